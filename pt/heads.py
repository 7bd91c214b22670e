"""The task heads, each once for every family.

A family's concrete class combines a head with the family's own base, which supplies the parts:
`class MobileBertForTokenClassification(ForTokenClassification, MobileBertPreTrainedModel)`.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ..core import outputs
from ..core.config import IGNORED_LABEL, PretrainedConfig
from ..core.outputs import ModelOutput
from ..errors import InputError
from .dropout import Dropout
from .generation import GenerationMixin
from .inputs import check_choices, check_tensors
from .layers import Dense
from .losses import cross_entropy, question_answering_loss, sequence_classification_loss
from .modeling import PreTrainedModel

logger = logging.getLogger("isobert")


class HeadModel(PreTrainedModel):
    """An encoder with a head. Subclasses add the head's parts in `add_head` and say whether they need the pooler."""

    output_class: ClassVar[type[ModelOutput]]
    add_pooling_layer: ClassVar[bool] = False

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.make_base_model(self.add_pooling_layer))
        self.add_head()
        self.tie_weights()

    def add_head(self) -> None:
        """Make the head's parts."""
        raise NotImplementedError

    def respond(self, encoded: ModelOutput, loss: Tensor | None, **scores: Tensor) -> ModelOutput:
        """Put together the output: the loss if there is one, the scores, and what the encoder was asked for."""
        return self.output_class(
            loss=loss, **scores, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )

    def is_to_score(self, output_logits: bool | None, loss: Tensor | None) -> bool:
        """Say whether to return the scores of words: as asked, or else where no loss stands for them."""
        return loss is None if output_logits is None else output_logits


class LabelledModel(HeadModel):
    """A head with one kind of scores and one kind of labels: subclasses define `logits` and may define `loss_of`."""

    def logits(self, encoded: ModelOutput) -> Tensor:
        """Return the head's scores for the encoder's output."""
        raise NotImplementedError

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss; by default the cross entropy, with labels of -100 ignored."""
        return cross_entropy(logits, labels)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> ModelOutput:
        """Return `logits`, and the `loss` if there are labels. The other arguments are the encoder's.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.base_model(*inputs, output_attentions, output_hidden_states)
        logits = self.logits(encoded)
        return self.respond(encoded, None if labels is None else self.loss_of(logits, labels), logits=logits)


class ForPreTraining(HeadModel):
    """Both heads of BERT's pretraining (Devlin et al. 2018, section 3.1): masked words and next sentence."""

    add_pooling_layer = True

    def add_head(self) -> None:
        """Make both heads."""
        seq_relationship = Dense(self.config.hidden_size, 2, self.config.initializer_range)
        self.cls = nn.ModuleDict({"predictions": self.make_lm_head(), "seq_relationship": seq_relationship})

    def get_lm_head(self) -> Any:
        """Return the part that scores words."""
        return self.cls["predictions"]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_logits: bool | None = None,
    ) -> ModelOutput:
        """Return `prediction_logits` `[batch, length, vocab]` and `seq_relationship_logits` `[batch, 2]`.

        `labels` `[batch, length]` are the masked words' ids, -100 elsewhere; `next_sentence_label` `[batch]` is 0 where
        the second sentence follows the first, and 1 where it does not. With both, `loss` is the sum of the two losses.
        `output_logits` is whether to return `prediction_logits`; None returns them only where there is no loss, which
        itself does not need them.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.base_model(*inputs, output_attentions, output_hidden_states)
        relationship_logits = self.cls["seq_relationship"](encoded.pooler_output)
        loss = None
        if labels is not None and next_sentence_label is not None:
            next_sentence_loss = cross_entropy(relationship_logits, next_sentence_label, "next_sentence_label")
            loss = self.cls["predictions"](encoded.last_hidden_state, labels) + next_sentence_loss
        scores = {"seq_relationship_logits": relationship_logits}
        if self.is_to_score(output_logits, loss):
            scores["prediction_logits"] = self.cls["predictions"](encoded.last_hidden_state)
        return self.respond(encoded, loss, **scores)


class ForMaskedLM(LabelledModel):
    """Scores of every word at every position `[batch, length, vocab]`; labels `[batch, length]` are ids or -100."""

    output_class: ClassVar[type[ModelOutput]] = outputs.MaskedLMOutput

    def add_head(self) -> None:
        """Make the part that scores words."""
        self.cls = nn.ModuleDict({"predictions": self.make_lm_head()})

    def get_lm_head(self) -> Any:
        """Return the part that scores words."""
        return self.cls["predictions"]

    def logits(self, encoded: ModelOutput) -> Tensor:
        """Score `[batch, length, hidden]` as `[batch, length, vocab]`."""
        return self.cls["predictions"](encoded.last_hidden_state)

    def loss_of_words(self, encoded: ModelOutput, labels: Tensor) -> Tensor:
        """Return the mean cross entropy of labels `[batch, length]`."""
        return self.cls["predictions"](encoded.last_hidden_state, labels)

    def answer(self, encoded: ModelOutput, labels: Tensor | None, output_logits: bool | None) -> ModelOutput:
        """Put together the output of an encoded batch: the loss of its labels, or the scores, or both."""
        loss = None if labels is None else self.loss_of_words(encoded, labels)
        scores = {"logits": self.logits(encoded)} if self.is_to_score(output_logits, loss) else {}
        return self.respond(encoded, loss, **scores)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_logits: bool | None = None,
    ) -> ModelOutput:
        """Return the `loss` if there are labels, and else `logits`. The other arguments are the encoder's.

        `output_logits` is whether to return `logits`; None returns them only where there is no loss, which itself does
        not need them.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.base_model(*inputs, output_attentions, output_hidden_states)
        return self.answer(encoded, labels, output_logits)


def next_labels(labels: Tensor) -> Tensor:
    """Move labels `[batch, length]` to the position before; the last position has none (-100).

    Raises:
        InputError: they are not a tensor.
    """
    check_tensors(labels=labels)
    return F.pad(labels[..., 1:], (0, 1), value=IGNORED_LABEL)


class ForCausalLM(GenerationMixin, ForMaskedLM):
    """Scores of every word as the next one after each position; labels `[batch, length]` are the input's ids or -100.

    The score at a position is for the label at the next, so labels need not be shifted.
    """

    output_class = outputs.CausalLMOutputWithCrossAttentions
    config: Any

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        if not self.config.is_decoder:
            logger.warning(
                "%s is made from a config with is_decoder=False, so each position sees those after it: what it is to "
                "predict. Give is_decoder=True.",
                type(self).__name__,
            )

    def new_cache(self, batch_size: int, max_length: int | None = None) -> Any:
        """Return an empty cache, to be given as `past_key_values`; see the decoder's `new_cache`."""
        return self.base_model.new_cache(batch_size, max_length)  # type: ignore[operator]

    def loss_of_words(self, encoded: ModelOutput, labels: Tensor) -> Tensor:
        """Return the mean cross entropy of the labels `[batch, length]` after each position."""
        return super().loss_of_words(encoded, next_labels(labels))

    def respond(self, encoded: ModelOutput, loss: Tensor | None, **scores: Tensor) -> ModelOutput:
        """Put together the output, with what a decoder returns."""
        decoded = {name: encoded[name] for name in ("past_key_values", "cross_attentions") if name in encoded}
        return super().respond(encoded, loss, **scores, **decoded)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_logits: bool | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
    ) -> ModelOutput:
        """Return the `loss` if there are labels, and else `logits`. The other arguments are the decoder's.

        `output_logits` is whether to return `logits`; None returns them only where there is no loss, which itself does
        not need them. `use_cache` is whether to return `past_key_values`; None returns them if some came in, or takes
        the config's where nothing is learnt: in evaluation mode and without labels.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        if use_cache is None and past_key_values is None and labels is None and not self.training:
            square = isinstance(attention_mask, Tensor) and attention_mask.dim() != 2
            use_cache = self.config.is_decoder and self.config.use_cache and not square
        encoded = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            encoder_hidden_states,
            encoder_attention_mask,
            past_key_values,
            use_cache,
        )
        return self.answer(encoded, labels, output_logits)


class ForNextSentencePrediction(LabelledModel):
    """Scores `[batch, 2]` of whether the second sentence follows the first (label 0) or does not (label 1)."""

    output_class = outputs.NextSentencePredictorOutput
    add_pooling_layer = True

    def add_head(self) -> None:
        """Make the part that scores a pair of sentences."""
        seq_relationship = Dense(self.config.hidden_size, 2, self.config.initializer_range)
        self.cls = nn.ModuleDict({"seq_relationship": seq_relationship})

    def logits(self, encoded: ModelOutput) -> Tensor:
        """Score `[batch, hidden]` as `[batch, 2]`."""
        return self.cls["seq_relationship"](encoded.pooler_output)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        next_sentence_label: Tensor | None = None,
    ) -> ModelOutput:
        """Return `logits`, and the `loss` if there are labels `[batch]`, called `labels` or `next_sentence_label`.

        Raises:
            InputError: an argument has a wrong shape, dtype or range, or the labels are given twice.
        """
        if labels is not None and next_sentence_label is not None:
            raise InputError("Give the labels once, as labels or as next_sentence_label.")
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        labels = next_sentence_label if labels is None else labels
        return super().forward(*inputs, labels, output_attentions, output_hidden_states)


class ForSequenceClassification(LabelledModel):
    """Scores `[batch, num_labels]` of a whole sequence; labels as in `losses.sequence_classification_loss`."""

    output_class = outputs.SequenceClassifierOutput
    add_pooling_layer = True

    def add_head(self) -> None:
        """Make the classifier."""
        config = self.config
        self.dropout = Dropout(config.head_dropout_prob)
        self.classifier: nn.Module = Dense(config.hidden_size, config.num_labels, config.initializer_range)

    def logits(self, encoded: ModelOutput) -> Tensor:
        """Score `[batch, hidden]` as `[batch, num_labels]`."""
        return self.classifier(self.dropout(encoded.pooler_output))

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of `config.problem_type`."""
        return sequence_classification_loss(logits, labels, self.config)


class ForMultipleChoice(LabelledModel):
    """Scores `[batch, choices]` of each choice; labels `[batch]` number the right ones.

    Every input has one more axis than elsewhere, the choices, after the batch: `input_ids` is
    `[batch, choices, length]`.
    `hidden_states` and `attentions` of the output have batch and choices in one axis, `[batch * choices, ...]`.
    """

    output_class = outputs.MultipleChoiceModelOutput
    add_pooling_layer = True

    def add_head(self) -> None:
        """Make the classifier."""
        self.dropout = Dropout(self.config.head_dropout_prob)
        self.classifier = Dense(self.config.hidden_size, 1, self.config.initializer_range)

    def logits(self, encoded: ModelOutput) -> Tensor:
        """Score `[batch * choices, hidden]` as `[batch * choices, 1]`."""
        return self.classifier(self.dropout(encoded.pooler_output))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> ModelOutput:
        """Return `logits` `[batch, choices]`, and the `loss` if there are labels.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        num_choices = check_choices(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        flat = [None if values is None else values.flatten(0, 1) for values in inputs]
        encoded = self.base_model(*flat, output_attentions, output_hidden_states)
        logits = self.logits(encoded).unflatten(0, (-1, num_choices)).squeeze(-1)
        return self.respond(encoded, None if labels is None else self.loss_of(logits, labels), logits=logits)


class ForTokenClassification(LabelledModel):
    """Scores `[batch, length, num_labels]` of each token; labels `[batch, length]`, -100 where none counts."""

    output_class = outputs.TokenClassifierOutput

    def add_head(self) -> None:
        """Make the classifier."""
        config = self.config
        self.dropout = Dropout(config.head_dropout_prob)
        self.classifier = Dense(config.hidden_size, config.num_labels, config.initializer_range)

    def logits(self, encoded: ModelOutput) -> Tensor:
        """Score `[batch, length, hidden]` as `[batch, length, num_labels]`."""
        return self.classifier(self.dropout(encoded.last_hidden_state))


class ForQuestionAnswering(HeadModel):
    """Scores of each position as the start and the end of an answer, each `[batch, length]`."""

    output_class = outputs.QuestionAnsweringModelOutput

    def add_head(self) -> None:
        """Make the part that scores starts and ends."""
        self.qa_outputs = Dense(self.config.hidden_size, 2, self.config.initializer_range)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> ModelOutput:
        """Return `start_logits` and `end_logits`, and the `loss` if both positions `[batch]` are given.

        A position outside the sequence does not count.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.base_model(*inputs, output_attentions, output_hidden_states)
        start_logits, end_logits = self.qa_outputs(encoded.last_hidden_state).unbind(dim=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = question_answering_loss(start_logits, end_logits, start_positions, end_positions)
        return self.respond(encoded, loss, start_logits=start_logits, end_logits=end_logits)
