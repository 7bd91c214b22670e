"""MobileBERT in PyTorch, in the order of its paper.

Sun et al. 2020, "MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices",
https://arxiv.org/abs/2004.02984. A layer is thin: it takes the stream of width H (512) through a bottleneck to width B
(128), attends and feeds forward there, and comes back to H. Section numbers below are the paper's; `H`, `B` and `E`
stand for `hidden_size`, `true_hidden_size` and `embedding_size`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.mobilebert import MobileBertConfig
from ..core.outputs import BaseModelOutputWithPooling, MobileBertForPreTrainingOutput
from .attention import AttentionMask, SelfAttention, padded_positions
from .heads import (
    ForMaskedLM,
    ForMultipleChoice,
    ForNextSentencePrediction,
    ForPreTraining,
    ForQuestionAnswering,
    ForSequenceClassification,
    ForTokenClassification,
)
from .inputs import check_inputs
from .layers import (
    AddNorm,
    Dense,
    Embeddings,
    Encoder,
    Intermediate,
    LayerNorm,
    LMPredictionHead,
    NoNorm,
    Pooler,
    is_plain,
    normalization,
    resized,
)
from .modeling import PreTrainedModel
from .projection import Projection


def norm(config: MobileBertConfig, width: int) -> LayerNorm | NoNorm:
    """Return the norm of every part but the language-model head (section 3.3, "operational optimizations")."""
    return normalization(config.normalization_type, width, config.layer_norm_eps)


class MobileBertEmbeddings(Embeddings):
    """Factorised embeddings (section 3.4): words of width E, three neighbours of which make one vector of width H."""

    def __init__(self, config: MobileBertConfig) -> None:
        words, hidden = config.embedding_size, config.hidden_size
        super().__init__(config, words, hidden, norm(config, hidden))
        self.trigram_input = config.trigram_input
        self.mask_padding = config.mask_padding
        self.embedding_transformation = Dense(
            words * (3 if config.trigram_input else 1), hidden, config.initializer_range
        )
        self.is_transformed = config.trigram_input or words != hidden
        # Checkpoints hold the map even where it has nothing to do; unused, it is not trained.
        self.embedding_transformation.requires_grad_(self.is_transformed)

    def words(self, input_ids: Tensor | None, inputs_embeds: Tensor | None, attention_mask: Tensor | None) -> Tensor:
        """Return what words bring to the sum, `[batch, length, H]`."""
        words = super().words(input_ids, inputs_embeds, attention_mask)
        if self.mask_padding and attention_mask is not None:
            words = words.masked_fill(padded_positions(attention_mask)[..., None], 0.0)
        if self.trigram_input:
            words = self.trigram(words)
        return self.embedding_transformation(words) if self.is_transformed else words

    @staticmethod
    def trigram(words: Tensor) -> Tensor:
        """Put next to each word its neighbours, zeros at the ends: `[batch, length, E]` -> `[batch, length, 3E]`."""
        following = F.pad(words[:, 1:], (0, 0, 0, 1))
        preceding = F.pad(words[:, :-1], (0, 0, 1, 0))
        return torch.cat([following, words, preceding], dim=-1)


class BottleneckLayer(nn.Module):
    """One linear map into the bottleneck: `norm(dense(stream))`, `[batch, length, H]` -> `[batch, length, B]`."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.dense = Dense(config.hidden_size, config.true_hidden_size, config.initializer_range)
        self.LayerNorm = norm(config, config.true_hidden_size)

    def forward(self, stream: Tensor) -> Tensor:
        """Map `[batch, length, H]` to `[batch, length, B]`."""
        return self.LayerNorm(self.dense(stream))


class Bottleneck(nn.Module):
    """The way into a layer (section 3.1): which width each part of the layer works from.

    Queries and keys come from a bottleneck of their own and values from the whole stream (Figure 1c); or all three from
    the layer's bottlenecked input (`use_bottleneck_attention`, section 4.1's tiny model); or all three from the stream.
    """

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.use_bottleneck_attention = config.use_bottleneck_attention
        self.input = BottleneckLayer(config)
        self.attention = None
        if config.key_query_shared_bottleneck:
            self.attention = BottleneckLayer(config)
            # Checkpoints hold it even where it has nothing to do; unused, it is not trained.
            self.attention.requires_grad_(not config.use_bottleneck_attention)

    def forward(self, stream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the layer's input `[batch, length, B]`, what queries and keys come from, and what values come from."""
        layer_input = self.input(stream)
        if self.use_bottleneck_attention:
            return layer_input, layer_input, layer_input
        if self.attention is not None:
            return layer_input, self.attention(stream), stream
        return layer_input, stream, stream


class MobileBertAttention(nn.Module):
    """Multi-head attention inside the bottleneck, and the sum with the layer's input (Figure 1c)."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        inner, stream, std = config.true_hidden_size, config.hidden_size, config.initializer_range
        is_shared = config.use_bottleneck_attention or config.key_query_shared_bottleneck
        query_width = inner if is_shared else stream
        self.self = SelfAttention(
            query=Dense(query_width, inner, std),
            key=Dense(query_width, inner, std),
            value=Dense(inner if config.use_bottleneck_attention else stream, inner, std),
            num_heads=config.num_attention_heads,
            dropout=config.attention_probs_dropout_prob,
            mask_value=config.attention_mask_value,
        )
        self.output = AddNorm(
            Dense(inner, inner, std),
            norm(config, inner),
            dropout=0.0 if config.use_bottleneck else config.hidden_dropout_prob,
        )

    def forward(
        self,
        layer_input: Tensor,
        query_key_input: Tensor,
        value_input: Tensor,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return `[batch, length, B]`, and the probabilities or None."""
        context, probabilities = self.self(
            query_key_input, query_key_input, value_input, attention_mask, output_attentions
        )
        return self.output(context, layer_input), probabilities


class FFNLayer(nn.Module):
    """One of the stacked feed-forward networks (section 3.2): `norm(dense(activation(dense(x))) + x)`."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        inner, std = config.true_hidden_size, config.initializer_range
        self.intermediate = Intermediate(Dense(inner, config.intermediate_size, std), config.hidden_act)
        self.output = AddNorm(Dense(config.intermediate_size, inner, std), norm(config, inner), dropout=0.0)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[batch, length, B]` to the same shape."""
        return self.output(self.intermediate(hidden), hidden)


class MobileBertOutput(AddNorm):
    """The end of the last feed-forward network, and beside it the way out of the bottleneck (section 3.1).

    The two are one module in a checkpoint's names: `output.dense`, and `output.bottleneck.dense` from B back to H.
    """

    def __init__(self, config: MobileBertConfig) -> None:
        inner, std, dropout = config.true_hidden_size, config.initializer_range, config.hidden_dropout_prob
        super().__init__(
            Dense(config.intermediate_size, inner, std),
            norm(config, inner),
            dropout=0.0 if config.use_bottleneck else dropout,
        )
        self.bottleneck = None
        if config.use_bottleneck:
            outer_norm = norm(config, config.hidden_size)
            self.bottleneck = AddNorm(Dense(inner, config.hidden_size, std), outer_norm, dropout=dropout)


class MobileBertLayer(nn.Module):
    """One layer (Figure 1c, Table 1): bottleneck, attention, stacked feed-forward networks, inverted bottleneck."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(config) if config.use_bottleneck else None
        self.attention = MobileBertAttention(config)
        # All but the last of the feed-forward networks; the last is `intermediate` and `output`.
        self.ffn = nn.ModuleList(FFNLayer(config) for _ in range(config.num_feedforward_networks - 1))
        dense = Dense(config.true_hidden_size, config.intermediate_size, config.initializer_range)
        self.intermediate = Intermediate(dense, config.hidden_act)
        self.output = MobileBertOutput(config)

    def forward(
        self, stream: Tensor, attention_mask: AttentionMask | None = None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Map `[batch, length, H]` to the same shape; also return the attention's probabilities or None."""
        inputs = (stream, stream, stream) if self.bottleneck is None else self.bottleneck(stream)
        hidden, probabilities = self.attention(*inputs, attention_mask, output_attentions)
        for feed_forward in self.ffn:
            hidden = feed_forward(hidden)
        hidden = self.output(self.intermediate(hidden), hidden)
        if self.output.bottleneck is not None:
            hidden = self.output.bottleneck(hidden, stream)
        return hidden, probabilities


class MobileBertLMPredictionHead(LMPredictionHead):
    """Scores of every word: `transform(x) @ [word embeddings^T ; dense] + bias`.

    The word embeddings are E wide and the stream is H wide, so the output table `[H, vocab]` is the (tied) embeddings'
    transpose `[E, vocab]` above a table of its own, `dense`, `[H - E, vocab]`. The transform's norm is a layer norm
    whatever `normalization_type` is.
    """

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__(config, config.embedding_size)
        self.dense = Dense(config.vocab_size, config.extra_output_width(), config.initializer_range, bias=False)

    def resize(self, vocab_size: int) -> None:
        """Give the head scores for another number of words; new rows are drawn anew, their bias is zero."""
        super().resize(vocab_size)
        self.dense.weight = resized(self.dense.weight, vocab_size, self.dense.std, axis=1)
        self.dense.in_features = vocab_size

    def projection(self) -> Projection | None:
        """Return what follows the transform; None where a part of it has been exchanged for one of another kind."""
        words = super().projection()
        return words._replace(rest=self.dense.weight) if words and is_plain(self.dense) else None

    def scores(self, vectors: Tensor) -> Tensor:
        """Score transformed vectors `[..., H]` as `[..., vocab]`."""
        # Two products instead of one with the joined table, which would have to be copied together on every call.
        factor, rest = vectors.tensor_split([self.decoder.in_features], dim=-1)
        return self.decoder(factor) + rest @ self.dense.weight


class MobileBertPreTrainedModel(PreTrainedModel):
    """What all MobileBERT models have in common."""

    config: MobileBertConfig
    config_class = MobileBertConfig
    base_model_prefix = "mobilebert"

    def make_base_model(self, add_pooling_layer: bool) -> MobileBertModel:
        """Return a new encoder for a model with a head."""
        return MobileBertModel(self.config, add_pooling_layer)

    def make_lm_head(self) -> MobileBertLMPredictionHead:
        """Return a new head that scores words."""
        return MobileBertLMPredictionHead(self.config)


class MobileBertModel(MobileBertPreTrainedModel):
    """The encoder without a head.

    Args:
        config: its shape.
        add_pooling_layer: whether the output has `pooler_output`.

    Example:
        >>> import torch
        >>> from isobert import MobileBertConfig
        >>> config = MobileBertConfig(
        ...     vocab_size=50, hidden_size=32, intra_bottleneck_size=16, embedding_size=8, num_hidden_layers=2
        ... )
        >>> model = MobileBertModel(config).eval()
        >>> out = model(torch.tensor([[2, 7, 9, 3]]), output_attentions=True)
        >>> out.last_hidden_state.shape, out.pooler_output.shape, len(out.attentions)
        (torch.Size([1, 4, 32]), torch.Size([1, 32]), 2)
    """

    def __init__(self, config: MobileBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = MobileBertEmbeddings(config)
        self.encoder = Encoder(MobileBertLayer(config) for _ in range(config.num_hidden_layers))
        self.pooler = None
        if add_pooling_layer:
            self.pooler = Pooler(config.hidden_size, config.initializer_range, bare=not config.classifier_activation)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Encode a batch.

        Args:
            input_ids: integers `[batch, length]`; or else `inputs_embeds`.
            attention_mask: `[batch, length]` or `[batch, length, length]`; 1 keeps, 0 masks. None keeps all.
            token_type_ids: integers `[batch, length]`: 0 in the first segment, 1 in the second. None is all 0.
            position_ids: integers `[batch, length]` or `[1, length]`; None counts from 0.
            inputs_embeds: word vectors `[batch, length, embedding_size]` in place of ids.
            output_attentions: whether to return the probabilities; None takes the config's.
            output_hidden_states: whether to return every layer's output; None takes the config's.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        config = self.config
        check_inputs(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            vocab_size=config.vocab_size,
            embedding_size=config.embedding_size,
            type_vocab_size=config.type_vocab_size,
            max_position_embeddings=config.max_position_embeddings,
        )
        embedded = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds, attention_mask)
        encoded = self.encoder(
            embedded,
            AttentionMask.of(attention_mask, embedded.dtype),
            config.output_attentions if output_attentions is None else output_attentions,
            config.output_hidden_states if output_hidden_states is None else output_hidden_states,
        )
        return BaseModelOutputWithPooling(
            last_hidden_state=encoded.last_hidden_state,
            pooler_output=None if self.pooler is None else self.pooler(encoded.last_hidden_state),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class MobileBertForPreTraining(ForPreTraining, MobileBertPreTrainedModel):
    """MobileBERT with both heads of its pretraining: masked words and next sentence (section 3.5).

    Example:
        >>> import torch
        >>> from isobert import MobileBertConfig, MobileBertForPreTraining
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2)
        >>> model = MobileBertForPreTraining(config).eval()
        >>> out = model(torch.tensor([[101, 7592, 103, 102]]))
        >>> out.prediction_logits.shape, out.seq_relationship_logits.shape
        (torch.Size([1, 4, 30522]), torch.Size([1, 2]))
    """

    output_class = MobileBertForPreTrainingOutput


class MobileBertForMaskedLM(ForMaskedLM, MobileBertPreTrainedModel):
    """MobileBERT that scores the word at each position.

    Example:
        >>> import torch
        >>> from isobert import MobileBertConfig, MobileBertForMaskedLM
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2)
        >>> model = MobileBertForMaskedLM(config).eval()
        >>> labels = torch.tensor([[-100, -100, 2088, -100]])
        >>> out = model(torch.tensor([[101, 7592, 103, 102]]), labels=labels, output_logits=True)
        >>> out.logits.shape, out.loss.shape
        (torch.Size([1, 4, 30522]), torch.Size([]))
    """


class MobileBertForNextSentencePrediction(ForNextSentencePrediction, MobileBertPreTrainedModel):
    """MobileBERT that tells whether a second sentence follows the first.

    Example:
        >>> import torch
        >>> from isobert import MobileBertConfig, MobileBertForNextSentencePrediction
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2)
        >>> model = MobileBertForNextSentencePrediction(config).eval()
        >>> model(torch.tensor([[101, 7592, 102, 2088, 102]])).logits.shape
        torch.Size([1, 2])
    """


class MobileBertForSequenceClassification(ForSequenceClassification, MobileBertPreTrainedModel):
    """MobileBERT that classifies a sequence, or scores it (regression).

    Example:
        >>> import torch
        >>> from isobert import MobileBertConfig, MobileBertForSequenceClassification
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2, num_labels=3)
        >>> model = MobileBertForSequenceClassification(config).eval()
        >>> out = model(torch.tensor([[101, 7592, 102]]), labels=torch.tensor([2]))
        >>> out.logits.shape, out.loss.shape
        (torch.Size([1, 3]), torch.Size([]))
    """


class MobileBertForMultipleChoice(ForMultipleChoice, MobileBertPreTrainedModel):
    """MobileBERT that chooses among several continuations of a text.

    Example:
        >>> import torch
        >>> from isobert import MobileBertConfig, MobileBertForMultipleChoice
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2)
        >>> model = MobileBertForMultipleChoice(config).eval()
        >>> two_choices = torch.tensor([[[101, 7592, 102], [101, 2088, 102]]])
        >>> model(two_choices, labels=torch.tensor([1])).logits.shape
        torch.Size([1, 2])
    """


class MobileBertForTokenClassification(ForTokenClassification, MobileBertPreTrainedModel):
    """MobileBERT that classifies each token.

    Example:
        >>> import torch
        >>> from isobert import MobileBertConfig, MobileBertForTokenClassification
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2, num_labels=5)
        >>> model = MobileBertForTokenClassification(config).eval()
        >>> model(torch.tensor([[101, 7592, 2088, 102]])).logits.shape
        torch.Size([1, 4, 5])
    """


class MobileBertForQuestionAnswering(ForQuestionAnswering, MobileBertPreTrainedModel):
    """MobileBERT that finds an answer's start and end in a text.

    Example:
        >>> import torch
        >>> from isobert import MobileBertConfig, MobileBertForQuestionAnswering
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2)
        >>> model = MobileBertForQuestionAnswering(config).eval()
        >>> out = model(torch.tensor([[101, 7592, 102, 2088, 102]]))
        >>> out.start_logits.shape, out.end_logits.shape
        (torch.Size([1, 5]), torch.Size([1, 5]))
    """
