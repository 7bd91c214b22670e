"""MobileBERT in Keras, in the order of its paper.

Sun et al. 2020, "MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices",
https://arxiv.org/abs/2004.02984. A layer is thin: it takes the stream of width H (512) through a bottleneck to width B
(128), attends and feeds forward there, and comes back to H. Section numbers below are the paper's; `H`, `B` and `E`
stand for `hidden_size`, `true_hidden_size` and `embedding_size`.
"""

from __future__ import annotations

from typing import Any

from keras import ops

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
    Block,
    Dense,
    Embeddings,
    Encoder,
    Intermediate,
    LayerNorm,
    LMPredictionHead,
    NoNorm,
    Pooler,
    Table,
    normalization,
)
from .modeling import TFPreTrainedModel
from .projection import Projection


def norm(config: MobileBertConfig, width: int, **kwargs: Any) -> LayerNorm | NoNorm:
    """Return the norm of every part but the language-model head (section 3.3, "operational optimizations")."""
    return normalization(config.normalization_type, width, config.layer_norm_eps, name="LayerNorm", **kwargs)


class MobileBertEmbeddings(Embeddings):
    """Factorised embeddings (section 3.4): words of width E, three neighbours of which make one vector of width H."""

    def __init__(self, config: MobileBertConfig, **kwargs: Any) -> None:
        words, hidden = config.embedding_size, config.hidden_size
        super().__init__(config, words, hidden, norm(config, hidden, dtype=kwargs.get("dtype")), **kwargs)
        self.trigram_input = config.trigram_input
        self.mask_padding = config.mask_padding
        self.is_transformed = config.trigram_input or words != hidden
        # Checkpoints hold the map even where it has nothing to do; unused, it is not trained.
        self.embedding_transformation = Dense(
            words * (3 if config.trigram_input else 1),
            hidden,
            config.initializer_range,
            trainable=self.is_transformed,
            dtype=self.dtype_policy,
            name="embedding_transformation",
        )

    def words(self, input_ids: Any, inputs_embeds: Any, attention_mask: Any) -> Any:
        """Return what words bring to the sum, `[batch, length, H]`."""
        words = super().words(input_ids, inputs_embeds, attention_mask)
        if self.mask_padding and attention_mask is not None:
            words = ops.where(padded_positions(attention_mask)[..., None], 0.0, words)
        if self.trigram_input:
            words = self.trigram(words)
        return self.embedding_transformation(words) if self.is_transformed else words

    @staticmethod
    def trigram(words: Any) -> Any:
        """Put next to each word its neighbours, zeros at the ends: `[batch, length, E]` -> `[batch, length, 3E]`."""
        following = ops.pad(words[:, 1:], ((0, 0), (0, 1), (0, 0)))
        preceding = ops.pad(words[:, :-1], ((0, 0), (1, 0), (0, 0)))
        return ops.concatenate([following, words, preceding], axis=-1)


class BottleneckLayer(Block):
    """One linear map into the bottleneck: `norm(dense(stream))`, `[batch, length, H]` -> `[batch, length, B]`."""

    def __init__(self, config: MobileBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        dtype = self.dtype_policy
        self.dense = Dense(
            config.hidden_size, config.true_hidden_size, config.initializer_range, dtype=dtype, name="dense"
        )
        self.LayerNorm = norm(config, config.true_hidden_size, dtype=dtype)

    def call(self, stream: Any) -> Any:
        """Map `[batch, length, H]` to `[batch, length, B]`."""
        return self.LayerNorm(self.dense(stream))


class Bottleneck(Block):
    """The way into a layer (section 3.1): which width each part of the layer works from.

    Queries and keys come from a bottleneck of their own and values from the whole stream (Figure 1c); or all three from
    the layer's bottlenecked input (`use_bottleneck_attention`, section 4.1's tiny model); or all three from the stream.
    """

    def __init__(self, config: MobileBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        dtype = self.dtype_policy
        self.use_bottleneck_attention = config.use_bottleneck_attention
        self.input_ = BottleneckLayer(config, dtype=dtype, name="input")
        self.attention = None
        if config.key_query_shared_bottleneck:
            self.attention = BottleneckLayer(config, dtype=dtype, name="attention")
            # Checkpoints hold it even where it has nothing to do; unused, it is not trained.
            self.attention.trainable = not config.use_bottleneck_attention

    def call(self, stream: Any) -> tuple[Any, Any, Any]:
        """Return the layer's input `[batch, length, B]`, what queries and keys come from, and what values come from."""
        layer_input = self.input_(stream)
        if self.use_bottleneck_attention:
            return layer_input, layer_input, layer_input
        if self.attention is not None:
            return layer_input, self.attention(stream), stream
        return layer_input, stream, stream


class MobileBertAttention(Block):
    """Multi-head attention inside the bottleneck, and the sum with the layer's input (Figure 1c)."""

    def __init__(self, config: MobileBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        inner, stream, std = config.true_hidden_size, config.hidden_size, config.initializer_range
        is_shared, dtype = config.use_bottleneck_attention or config.key_query_shared_bottleneck, self.dtype_policy
        query_width = inner if is_shared else stream
        value_width = inner if config.use_bottleneck_attention else stream
        self.self = SelfAttention(
            query=Dense(query_width, inner, std, dtype=dtype, name="query"),
            key=Dense(query_width, inner, std, dtype=dtype, name="key"),
            value=Dense(value_width, inner, std, dtype=dtype, name="value"),
            num_heads=config.num_attention_heads,
            dropout=config.attention_probs_dropout_prob,
            mask_value=config.attention_mask_value,
            dtype=dtype,
            name="self",
        )
        self.output_ = AddNorm(
            Dense(inner, inner, std, dtype=dtype, name="dense"),
            norm(config, inner, dtype=dtype),
            dropout=0.0 if config.use_bottleneck else config.hidden_dropout_prob,
            dtype=dtype,
            name="output",
        )

    def call(
        self,
        layer_input: Any,
        query_key_input: Any,
        value_input: Any,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
    ) -> tuple[Any, Any]:
        """Return `[batch, length, B]`, and the probabilities or None."""
        context, probabilities = self.self(
            query_key_input, query_key_input, value_input, attention_mask, output_attentions=output_attentions
        )
        return self.output_(context, layer_input), probabilities


class FFNLayer(Block):
    """One of the stacked feed-forward networks (section 3.2): `norm(dense(activation(dense(x))) + x)`."""

    def __init__(self, config: MobileBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        inner, std, dtype = config.true_hidden_size, config.initializer_range, self.dtype_policy
        wide = config.intermediate_size
        self.intermediate = Intermediate(
            Dense(inner, wide, std, dtype=dtype, name="dense"), config.hidden_act, dtype=dtype, name="intermediate"
        )
        self.output_ = AddNorm(
            Dense(wide, inner, std, dtype=dtype, name="dense"),
            norm(config, inner, dtype=dtype),
            dropout=0.0,
            dtype=dtype,
            name="output",
        )

    def call(self, hidden: Any) -> Any:
        """Map `[batch, length, B]` to the same shape."""
        return self.output_(self.intermediate(hidden), hidden)


class MobileBertOutput(AddNorm):
    """The end of the last feed-forward network, and beside it the way out of the bottleneck (section 3.1).

    The two are one layer in a checkpoint's names: `output.dense`, and `output.bottleneck.dense` from B back to H.
    """

    def __init__(self, config: MobileBertConfig, **kwargs: Any) -> None:
        inner, std, dropout = config.true_hidden_size, config.initializer_range, config.hidden_dropout_prob
        dtype = kwargs.get("dtype")
        super().__init__(
            Dense(config.intermediate_size, inner, std, dtype=dtype, name="dense"),
            norm(config, inner, dtype=dtype),
            dropout=0.0 if config.use_bottleneck else dropout,
            **kwargs,
        )
        self.bottleneck = None
        if config.use_bottleneck:
            self.bottleneck = AddNorm(
                Dense(inner, config.hidden_size, std, dtype=dtype, name="dense"),
                norm(config, config.hidden_size, dtype=dtype),
                dropout=dropout,
                dtype=dtype,
                name="bottleneck",
            )


class MobileBertLayer(Block):
    """One layer (Figure 1c, Table 1): bottleneck, attention, stacked feed-forward networks, inverted bottleneck."""

    def __init__(self, config: MobileBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        dtype = self.dtype_policy
        self.bottleneck = Bottleneck(config, dtype=dtype, name="bottleneck") if config.use_bottleneck else None
        self.attention = MobileBertAttention(config, dtype=dtype, name="attention")
        # All but the last of the feed-forward networks; the last is `intermediate` and `output_`.
        self.ffn = [FFNLayer(config, dtype=dtype, name=f"ffn.{i}") for i in range(config.num_feedforward_networks - 1)]
        inner, wide, std = config.true_hidden_size, config.intermediate_size, config.initializer_range
        self.intermediate = Intermediate(
            Dense(inner, wide, std, dtype=dtype, name="dense"), config.hidden_act, dtype=dtype, name="intermediate"
        )
        self.output_ = MobileBertOutput(config, dtype=dtype, name="output")

    def call(
        self, stream: Any, attention_mask: AttentionMask | None = None, output_attentions: bool = False
    ) -> tuple[Any, Any]:
        """Map `[batch, length, H]` to the same shape; also return the attention's probabilities or None."""
        inputs = (stream, stream, stream) if self.bottleneck is None else self.bottleneck(stream)
        hidden, probabilities = self.attention(*inputs, attention_mask, output_attentions=output_attentions)
        for feed_forward in self.ffn:
            hidden = feed_forward(hidden)
        hidden = self.output_(self.intermediate(hidden), hidden)
        if self.output_.bottleneck is not None:
            hidden = self.output_.bottleneck(hidden, stream)
        return hidden, probabilities


class MobileBertLMPredictionHead(LMPredictionHead):
    """Scores of every word: `transform(x) @ [word embeddings^T ; dense] + bias`.

    The word embeddings are E wide and the stream is H wide, so the output table `[H, vocab]` is the (tied) embeddings'
    transpose `[E, vocab]` above a table of its own, `dense`, `[H - E, vocab]`. The transform's norm is a layer norm
    whatever `normalization_type` is.
    """

    def __init__(self, config: MobileBertConfig, **kwargs: Any) -> None:
        super().__init__(config, config.embedding_size, **kwargs)
        shape = (config.extra_output_width(), config.vocab_size)
        self.dense = Table(shape, config.initializer_range, dtype=self.dtype_policy, name="dense")

    def resize(self, vocab_size: int) -> None:
        """Give the head scores for another number of words; new rows are drawn anew, their bias is zero."""
        super().resize(vocab_size)
        self.dense.resize(vocab_size, axis=1)

    def projection(self) -> Projection:
        """Return what follows the transform."""
        return super().projection()._replace(rest=self.dense.weight)

    def scores(self, vectors: Any) -> Any:
        """Score transformed vectors `[..., H]` as `[..., vocab]`."""
        # Two products instead of one with the joined table, which would have to be copied together on every call.
        factor, rest = vectors[..., : self.word_width], vectors[..., self.word_width :]
        # Outside of a graph, a transposed table would be a copy of it, too.
        words = ops.einsum("...d,vd->...v", factor, self.decoder.embeddings)
        return words + ops.matmul(rest, self.dense.weight) + self.bias


class MobileBertPreTrainedModel(TFPreTrainedModel):
    """What all MobileBERT models have in common."""

    config: MobileBertConfig
    config_class = MobileBertConfig
    base_model_prefix = "mobilebert"

    def make_base_model(self, add_pooling_layer: bool) -> TFMobileBertModel:
        """Return a new encoder for a model with a head."""
        return TFMobileBertModel(self.config, add_pooling_layer, dtype=self.dtype_policy, name=self.base_model_prefix)

    def make_lm_head(self) -> MobileBertLMPredictionHead:
        """Return a new head that scores words."""
        return MobileBertLMPredictionHead(self.config, dtype=self.dtype_policy, name="predictions")


class TFMobileBertModel(MobileBertPreTrainedModel):
    """The encoder without a head.

    Args:
        config: its shape.
        add_pooling_layer: whether the output has `pooler_output`.
        dtype: a dtype or policy, such as "float64" or "mixed_bfloat16"; None is Keras's global policy.
        name: the model's name.

    Example:
        >>> import numpy as np
        >>> from isobert import MobileBertConfig
        >>> config = MobileBertConfig(
        ...     vocab_size=50, hidden_size=32, intra_bottleneck_size=16, embedding_size=8, num_hidden_layers=2
        ... )
        >>> model = TFMobileBertModel(config)
        >>> out = model(np.array([[2, 7, 9, 3]]), output_attentions=True)
        >>> out.last_hidden_state.shape, out.pooler_output.shape, len(out.attentions)
        (TensorShape([1, 4, 32]), TensorShape([1, 32]), 2)
    """

    def __init__(
        self,
        config: MobileBertConfig,
        add_pooling_layer: bool = True,
        *,
        dtype: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, dtype=dtype, name=name, **kwargs)
        dtype = self.dtype_policy
        self.embeddings = MobileBertEmbeddings(config, dtype=dtype, name="embeddings")
        layers = [MobileBertLayer(config, dtype=dtype, name=f"layer.{i}") for i in range(config.num_hidden_layers)]
        self.encoder = Encoder(layers, dtype=dtype, name="encoder")
        self.pooler = None
        if add_pooling_layer:
            width, std, bare = config.hidden_size, config.initializer_range, not config.classifier_activation
            self.pooler = Pooler(width, std, bare=bare, dtype=dtype, name="pooler")
        self.build()

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, ready for JSON."""
        return {**super().get_config(), "add_pooling_layer": self.pooler is not None}

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        training: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Encode a batch.

        Args:
            input_ids: integers `[batch, length]`, or else `inputs_embeds`; or a dict of all the arguments.
            attention_mask: `[batch, length]` or, by query and key, `[batch, length, length]`; 1 keeps, 0 masks. None
                is all 1.
            token_type_ids: integers `[batch, length]`: 0 in the first segment, 1 in the second. None is all 0.
            position_ids: integers `[batch, length]` or `[1, length]`; None counts from 0.
            inputs_embeds: word vectors `[batch, length, embedding_size]` in place of ids.
            output_attentions: whether to return the probabilities; None takes the config's.
            output_hidden_states: whether to return every layer's output; None takes the config's.
            training: whether dropout is on.

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
        embedded = self.embeddings(
            input_ids, token_type_ids, position_ids, inputs_embeds, attention_mask, training=training
        )
        encoded = self.encoder(
            embedded,
            AttentionMask.of(attention_mask),
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            training=training,
        )
        return BaseModelOutputWithPooling(
            last_hidden_state=encoded.last_hidden_state,
            pooler_output=None if self.pooler is None else self.pooler(encoded.last_hidden_state),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class TFMobileBertForPreTraining(ForPreTraining, MobileBertPreTrainedModel):
    """MobileBERT with both heads of its pretraining: masked words and next sentence (section 3.5).

    Example:
        >>> import numpy as np
        >>> from isobert import MobileBertConfig, TFMobileBertForPreTraining
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2)
        >>> model = TFMobileBertForPreTraining(config)
        >>> out = model(np.array([[101, 7592, 103, 102]]))
        >>> out.prediction_logits.shape, out.seq_relationship_logits.shape
        (TensorShape([1, 4, 30522]), TensorShape([1, 2]))
    """

    output_class = MobileBertForPreTrainingOutput


class TFMobileBertForMaskedLM(ForMaskedLM, MobileBertPreTrainedModel):
    """MobileBERT that scores the word at each position.

    Example:
        >>> import numpy as np
        >>> from isobert import MobileBertConfig, TFMobileBertForMaskedLM
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2)
        >>> model = TFMobileBertForMaskedLM(config)
        >>> labels = np.array([[-100, -100, 2088, -100]])
        >>> out = model(np.array([[101, 7592, 103, 102]]), labels=labels, output_logits=True)
        >>> out.logits.shape, out.loss.shape
        (TensorShape([1, 4, 30522]), TensorShape([]))
    """


class TFMobileBertForNextSentencePrediction(ForNextSentencePrediction, MobileBertPreTrainedModel):
    """MobileBERT that tells whether a second sentence follows the first.

    Example:
        >>> import numpy as np
        >>> from isobert import MobileBertConfig, TFMobileBertForNextSentencePrediction
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2)
        >>> model = TFMobileBertForNextSentencePrediction(config)
        >>> model(np.array([[101, 7592, 102, 2088, 102]])).logits.shape
        TensorShape([1, 2])
    """


class TFMobileBertForSequenceClassification(ForSequenceClassification, MobileBertPreTrainedModel):
    """MobileBERT that classifies a sequence, or scores it (regression).

    Example:
        >>> import numpy as np
        >>> from isobert import MobileBertConfig, TFMobileBertForSequenceClassification
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2, num_labels=3)
        >>> model = TFMobileBertForSequenceClassification(config)
        >>> out = model(np.array([[101, 7592, 102]]), labels=np.array([2]))
        >>> out.logits.shape, out.loss.shape
        (TensorShape([1, 3]), TensorShape([]))
    """


class TFMobileBertForMultipleChoice(ForMultipleChoice, MobileBertPreTrainedModel):
    """MobileBERT that chooses among several continuations of a text.

    Example:
        >>> import numpy as np
        >>> from isobert import MobileBertConfig, TFMobileBertForMultipleChoice
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2)
        >>> model = TFMobileBertForMultipleChoice(config)
        >>> two_choices = np.array([[[101, 7592, 102], [101, 2088, 102]]])
        >>> model(two_choices, labels=np.array([1])).logits.shape
        TensorShape([1, 2])
    """


class TFMobileBertForTokenClassification(ForTokenClassification, MobileBertPreTrainedModel):
    """MobileBERT that classifies each token.

    Example:
        >>> import numpy as np
        >>> from isobert import MobileBertConfig, TFMobileBertForTokenClassification
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2, num_labels=5)
        >>> model = TFMobileBertForTokenClassification(config)
        >>> model(np.array([[101, 7592, 2088, 102]])).logits.shape
        TensorShape([1, 4, 5])
    """


class TFMobileBertForQuestionAnswering(ForQuestionAnswering, MobileBertPreTrainedModel):
    """MobileBERT that finds an answer's start and end in a text.

    Example:
        >>> import numpy as np
        >>> from isobert import MobileBertConfig, TFMobileBertForQuestionAnswering
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2)
        >>> model = TFMobileBertForQuestionAnswering(config)
        >>> out = model(np.array([[101, 7592, 102, 2088, 102]]))
        >>> out.start_logits.shape, out.end_logits.shape
        (TensorShape([1, 5]), TensorShape([1, 5]))
    """
