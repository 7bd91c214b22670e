"""The task heads, each once for every family.

A family's concrete class combines a head with the family's own base, which supplies the parts:
`class TFMobileBertForTokenClassification(ForTokenClassification, MobileBertPreTrainedModel)`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from keras import ops

from ..core import outputs
from ..core.config import IGNORED_LABEL, PretrainedConfig
from ..core.outputs import ModelOutput
from .generation import GenerationMixin
from .inputs import check_choices, input_error
from .layers import Block, Dense
from .losses import cross_entropy, question_answering_loss, sequence_classification_loss
from .modeling import TFPreTrainedModel

logger = logging.getLogger("isobert")


class HeadModel(TFPreTrainedModel):
    """An encoder with a head. Subclasses add the head's parts in `add_head` and say whether they need the pooler."""

    output_class: ClassVar[type[ModelOutput]]
    add_pooling_layer: ClassVar[bool] = False

    def __init__(self, config: PretrainedConfig, *, dtype: Any = None, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(config, dtype=dtype, name=name, **kwargs)
        # The encoder builds itself; inside this scope, its variables' paths begin with this model's name.
        with keras.name_scope(self.name):
            setattr(self, self.base_model_prefix, self.make_base_model(self.add_pooling_layer))
        self.add_head()
        self.tie_weights()
        self.build()

    def add_head(self) -> None:
        """Make the head's parts."""
        raise NotImplementedError

    def respond(self, encoded: ModelOutput, loss: Any, **scores: Any) -> ModelOutput:
        """Put together the output: the loss if there is one, the scores, and what the encoder was asked for."""
        return self.output_class(
            loss=loss, **scores, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )

    def is_to_score(self, output_logits: bool | None, loss: Any) -> bool:
        """Say whether to return the scores of words: as asked, or else where no loss stands for them.

        What `compile` was given sees scores too.
        """
        if output_logits is not None:
            return output_logits
        return loss is None or self._compile_loss is not None or self._compile_metrics is not None


class LabelledModel(HeadModel):
    """A head with one kind of scores and one kind of labels: subclasses define `logits` and may define `loss_of`."""

    targets: ClassVar[dict[str, str]] = {"labels": "logits"}

    def logits(self, encoded: ModelOutput, training: bool | None = None) -> Any:
        """Return the head's scores for the encoder's output."""
        raise NotImplementedError

    def loss_of(self, logits: Any, labels: Any) -> Any:
        """Return the scalar loss; by default the cross entropy, with labels of -100 ignored."""
        return cross_entropy(logits, labels)

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        labels: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        training: bool | None = None,
    ) -> ModelOutput:
        """Return `logits`, and the `loss` if there are labels. The other arguments are the encoder's.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.base_model(
            *inputs, output_attentions=output_attentions, output_hidden_states=output_hidden_states, training=training
        )
        logits = self.logits(encoded, training)
        return self.respond(encoded, None if labels is None else self.loss_of(logits, labels), logits=logits)


class ForPreTraining(HeadModel):
    """Both heads of BERT's pretraining (Devlin et al. 2018, section 3.1): masked words and next sentence."""

    targets = {"labels": "prediction_logits", "next_sentence_label": "seq_relationship_logits"}
    add_pooling_layer = True

    def add_head(self) -> None:
        """Make both heads."""
        config = self.config
        seq_relationship = Dense(
            config.hidden_size, 2, config.initializer_range, dtype=self.dtype_policy, name="seq_relationship"
        )
        self.cls = _Heads(predictions=self.make_lm_head(), seq_relationship=seq_relationship)

    def get_lm_head(self) -> keras.layers.Layer:
        """Return the part that scores words."""
        return self.cls.predictions

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        labels: Any = None,
        next_sentence_label: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_logits: bool | None = None,
        training: bool | None = None,
    ) -> ModelOutput:
        """Return `prediction_logits` `[batch, length, vocab]` and `seq_relationship_logits` `[batch, 2]`.

        `labels` `[batch, length]` are the masked words' ids, -100 elsewhere; `next_sentence_label` `[batch]` is 0 where
        the second sentence follows the first, and 1 where it does not. With both, `loss` is the sum of the two losses.
        `output_logits` is whether to return `prediction_logits`; None returns them only where there is no loss, which
        itself does not need them, or where a loss or metrics of `compile` see them.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.base_model(
            *inputs, output_attentions=output_attentions, output_hidden_states=output_hidden_states, training=training
        )
        relationship_logits = self.cls.seq_relationship(encoded.pooler_output)
        loss = None
        if labels is not None and next_sentence_label is not None:
            next_sentence_loss = cross_entropy(relationship_logits, next_sentence_label, "next_sentence_label")
            masked_loss = self.cls.predictions(encoded.last_hidden_state, labels=labels)
            loss = masked_loss + next_sentence_loss
        scores = {"seq_relationship_logits": relationship_logits}
        if self.is_to_score(output_logits, loss):
            scores["prediction_logits"] = self.cls.predictions(encoded.last_hidden_state)
        return self.respond(encoded, loss, **scores)


class ForMaskedLM(LabelledModel):
    """Scores of every word at every position `[batch, length, vocab]`; labels `[batch, length]` are ids or -100."""

    output_class: ClassVar[type[ModelOutput]] = outputs.MaskedLMOutput

    def add_head(self) -> None:
        """Make the part that scores words."""
        self.cls = _Heads(predictions=self.make_lm_head())

    def get_lm_head(self) -> keras.layers.Layer:
        """Return the part that scores words."""
        return self.cls.predictions

    def logits(self, encoded: ModelOutput, training: bool | None = None) -> Any:
        """Score `[batch, length, hidden]` as `[batch, length, vocab]`."""
        return self.cls.predictions(encoded.last_hidden_state)

    def loss_of_words(self, encoded: ModelOutput, labels: Any) -> Any:
        """Return the mean cross entropy of labels `[batch, length]`."""
        return self.cls.predictions(encoded.last_hidden_state, labels=labels)

    def answer(self, encoded: ModelOutput, labels: Any, output_logits: bool | None) -> ModelOutput:
        """Put together the output of an encoded batch: the loss of its labels, or the scores, or both."""
        loss = None if labels is None else self.loss_of_words(encoded, labels)
        scores = {"logits": self.logits(encoded)} if self.is_to_score(output_logits, loss) else {}
        return self.respond(encoded, loss, **scores)

    def call(  # type: ignore[override]
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        labels: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_logits: bool | None = None,
        training: bool | None = None,
    ) -> ModelOutput:
        """Return the `loss` if there are labels, and else `logits`. The other arguments are the encoder's.

        `output_logits` is whether to return `logits`; None returns them only where there is no loss, which itself does
        not need them, or where a loss or metrics of `compile` see them.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.base_model(
            *inputs, output_attentions=output_attentions, output_hidden_states=output_hidden_states, training=training
        )
        return self.answer(encoded, labels, output_logits)


def next_labels(labels: Any) -> Any:
    """Move labels `[batch, length]` to the position before; the last position has none (-100)."""
    return ops.pad(labels[..., 1:], [(0, 0)] * (len(labels.shape) - 1) + [(0, 1)], constant_values=IGNORED_LABEL)


class ForCausalLM(GenerationMixin, ForMaskedLM):
    """Scores of every word as the next one after each position; labels `[batch, length]` are the input's ids or -100.

    The score at a position is for the label at the next, so labels need not be shifted.
    """

    output_class = outputs.CausalLMOutputWithCrossAttentions
    config: Any

    def __init__(self, config: PretrainedConfig, *, dtype: Any = None, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(config, dtype=dtype, name=name, **kwargs)
        if not self.config.is_decoder:
            logger.warning(
                "%s is made from a config with is_decoder=False, so each position sees those after it: what it is to "
                "predict. Give is_decoder=True.",
                type(self).__name__,
            )

    def new_cache(self, batch_size: int, max_length: int | None = None) -> Any:
        """Return an empty cache, to be given as `past_key_values`; see the decoder's `new_cache`."""
        return self.base_model.new_cache(batch_size, max_length)

    def loss_of_words(self, encoded: ModelOutput, labels: Any) -> Any:
        """Return the mean cross entropy of the labels `[batch, length]` after each position."""
        return super().loss_of_words(encoded, next_labels(labels))

    def symbolic_call(self, *args: Any, **kwargs: Any) -> Any:
        """Become a part of a functional model: without a cache unless asked, for some of its tensors may be absent."""
        use_cache = kwargs.pop("use_cache", None)
        return super().symbolic_call(*args, use_cache=bool(use_cache), **kwargs)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the compiled metrics; labels among the inputs are moved to the scores that are for them."""
        if y is None and isinstance(x, Mapping) and x.get("labels") is not None:
            x = {**x, "labels": next_labels(x["labels"])}
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def respond(self, encoded: ModelOutput, loss: Any, **scores: Any) -> ModelOutput:
        """Put together the output, with what a decoder returns."""
        decoded = {name: encoded[name] for name in ("past_key_values", "cross_attentions") if name in encoded}
        return super().respond(encoded, loss, **scores, **decoded)

    def call(  # type: ignore[override]
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        labels: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_logits: bool | None = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        training: bool | None = None,
    ) -> ModelOutput:
        """Return the `loss` if there are labels, and else `logits`. The other arguments are the decoder's.

        `output_logits` is whether to return `logits`; None returns them only where there is no loss, which itself does
        not need them, or where a loss or metrics of `compile` see them. `use_cache` is whether to return
        `past_key_values`; None returns them if some came in, or takes the config's where nothing is learnt: outside of
        training and without labels.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        if use_cache is None and past_key_values is None and labels is None and not training:
            square = attention_mask is not None and len(attention_mask.shape) != 2
            use_cache = self.config.is_decoder and self.config.use_cache and not square
        encoded = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            use_cache=use_cache,
            training=training,
        )
        return self.answer(encoded, labels, output_logits)


class ForNextSentencePrediction(LabelledModel):
    """Scores `[batch, 2]` of whether the second sentence follows the first (label 0) or does not (label 1)."""

    targets = {"labels": "logits", "next_sentence_label": "logits"}
    output_class = outputs.NextSentencePredictorOutput
    add_pooling_layer = True

    def add_head(self) -> None:
        """Make the part that scores a pair of sentences."""
        config = self.config
        seq_relationship = Dense(
            config.hidden_size, 2, config.initializer_range, dtype=self.dtype_policy, name="seq_relationship"
        )
        self.cls = _Heads(seq_relationship=seq_relationship)

    def logits(self, encoded: ModelOutput, training: bool | None = None) -> Any:
        """Score `[batch, hidden]` as `[batch, 2]`."""
        return self.cls.seq_relationship(encoded.pooler_output)

    def call(  # type: ignore[override]
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        labels: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        next_sentence_label: Any = None,
        training: bool | None = None,
    ) -> ModelOutput:
        """Return `logits`, and the `loss` if there are labels `[batch]`, called `labels` or `next_sentence_label`.

        Raises:
            InputError: an argument has a wrong shape, dtype or range, or the labels are given twice.
        """
        if labels is not None and next_sentence_label is not None:
            raise input_error("Give the labels once, as labels or as next_sentence_label.")
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        labels = next_sentence_label if labels is None else labels
        return super().call(*inputs, labels, output_attentions, output_hidden_states, training)


class ForSequenceClassification(LabelledModel):
    """Scores `[batch, num_labels]` of a whole sequence; labels as in `losses.sequence_classification_loss`."""

    output_class = outputs.SequenceClassifierOutput
    add_pooling_layer = True

    def add_head(self) -> None:
        """Make the classifier."""
        config, dtype = self.config, self.dtype_policy
        self.dropout = keras.layers.Dropout(config.head_dropout_prob, dtype=dtype, name="dropout")
        self.classifier = Dense(
            config.hidden_size, config.num_labels, config.initializer_range, dtype=dtype, name="classifier"
        )

    def logits(self, encoded: ModelOutput, training: bool | None = None) -> Any:
        """Score `[batch, hidden]` as `[batch, num_labels]`."""
        return self.classifier(self.dropout(encoded.pooler_output, training=training))

    def loss_of(self, logits: Any, labels: Any) -> Any:
        """Return the loss of `config.problem_type`."""
        return sequence_classification_loss(logits, labels, self.config)


class ForMultipleChoice(LabelledModel):
    """Scores `[batch, choices]` of each choice; labels `[batch]` number the right ones.

    Every input has one more axis than elsewhere, the choices, after the batch: `input_ids` is
    `[batch, choices, length]`. `hidden_states` and `attentions` of the output have batch and choices in one axis,
    `[batch * choices, ...]`.
    """

    input_rank = 3
    output_class = outputs.MultipleChoiceModelOutput
    add_pooling_layer = True

    def add_head(self) -> None:
        """Make the classifier."""
        config, dtype = self.config, self.dtype_policy
        self.dropout = keras.layers.Dropout(config.head_dropout_prob, dtype=dtype, name="dropout")
        self.classifier = Dense(config.hidden_size, 1, config.initializer_range, dtype=dtype, name="classifier")

    def logits(self, encoded: ModelOutput, training: bool | None = None) -> Any:
        """Score `[batch * choices, hidden]` as `[batch * choices, 1]`."""
        return self.classifier(self.dropout(encoded.pooler_output, training=training))

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        labels: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        training: bool | None = None,
    ) -> ModelOutput:
        """Return `logits` `[batch, choices]`, and the `loss` if there are labels.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        num_choices = check_choices(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        flat = [None if values is None else ops.reshape(values, (-1, *ops.shape(values)[2:])) for values in inputs]
        encoded = self.base_model(
            *flat,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            training=training,
        )
        logits = ops.reshape(self.logits(encoded, training), (-1, num_choices))
        return self.respond(encoded, None if labels is None else self.loss_of(logits, labels), logits=logits)


class ForTokenClassification(LabelledModel):
    """Scores `[batch, length, num_labels]` of each token; labels `[batch, length]`, -100 where none counts."""

    output_class = outputs.TokenClassifierOutput

    def add_head(self) -> None:
        """Make the classifier."""
        config, dtype = self.config, self.dtype_policy
        self.dropout = keras.layers.Dropout(config.head_dropout_prob, dtype=dtype, name="dropout")
        self.classifier = Dense(
            config.hidden_size, config.num_labels, config.initializer_range, dtype=dtype, name="classifier"
        )

    def logits(self, encoded: ModelOutput, training: bool | None = None) -> Any:
        """Score `[batch, length, hidden]` as `[batch, length, num_labels]`."""
        return self.classifier(self.dropout(encoded.last_hidden_state, training=training))


class ForQuestionAnswering(HeadModel):
    """Scores of each position as the start and the end of an answer, each `[batch, length]`."""

    targets = {"start_positions": "start_logits", "end_positions": "end_logits"}
    output_class = outputs.QuestionAnsweringModelOutput

    def add_head(self) -> None:
        """Make the part that scores starts and ends."""
        config = self.config
        self.qa_outputs = Dense(
            config.hidden_size, 2, config.initializer_range, dtype=self.dtype_policy, name="qa_outputs"
        )

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        start_positions: Any = None,
        end_positions: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        training: bool | None = None,
    ) -> ModelOutput:
        """Return `start_logits` and `end_logits`, and the `loss` if both positions `[batch]` are given.

        A position outside the sequence does not count.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        encoded = self.base_model(
            *inputs, output_attentions=output_attentions, output_hidden_states=output_hidden_states, training=training
        )
        start_logits, end_logits = ops.unstack(self.qa_outputs(encoded.last_hidden_state), 2, axis=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = question_answering_loss(start_logits, end_logits, start_positions, end_positions)
        return self.respond(encoded, loss, start_logits=start_logits, end_logits=end_logits)


class _Heads(Block):
    """The heads of pretraining, which checkpoints hold together under `cls`."""

    def __init__(self, **heads: keras.layers.Layer) -> None:
        super().__init__(name="cls")
        for name, head in heads.items():
            setattr(self, name, head)
