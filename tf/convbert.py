"""ConvBERT in Keras, in the order of its paper.

Jiang et al. 2020, "ConvBERT: Improving BERT with Span-based Dynamic Convolution", https://arxiv.org/abs/2008.02496.
BERT's layers with one part exchanged: half of what a layer's attention makes comes from attention heads, which look at
the whole text, and half from convolution heads, which look at a short span around each position. `H`, `E` and `K` stand
for `hidden_size`, `embedding_size` and `conv_kernel_size`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import keras
from keras import ops

from ..core.convbert import ConvBertConfig
from ..core.outputs import BaseModelOutput, ModelOutput
from .attention import AttentionMask, SelfAttention, attend, padded_positions
from .heads import (
    ForMaskedLM,
    ForMultipleChoice,
    ForQuestionAnswering,
    ForSequenceClassification,
    ForTokenClassification,
)
from .inputs import check_inputs
from .layers import (
    AddNorm,
    Block,
    Dense,
    Embedding,
    Embeddings,
    Encoder,
    GroupedConvolution,
    GroupedDense,
    Intermediate,
    LayerNorm,
    PredictionHeadTransform,
    activation,
    replace_weight,
    resized,
    truncated_normal,
)
from .modeling import TFPreTrainedModel
from .projection import Projection, projected_cross_entropy

# Both convolutions are sums of shifted views. Windows side by side would hold every value K times, and XLA is slow at
# `ops.depthwise_conv` on a CPU, many times so in training. The gradients are written out, since that of a sum of views
# would be K arrays of the whole size, nearly all zeros, to be added.


def _views(values: Any, kernel_size: int) -> list[Any]:
    """Return `values` `[batch, length, ...]` as seen from each place of a kernel, with zeros beyond both ends."""
    length, reach = ops.shape(values)[1], kernel_size // 2
    padded = ops.pad(values, [(0, 0), (reach, reach), *[(0, 0)] * (len(values.shape) - 2)])
    return [padded[:, k : k + length] for k in range(kernel_size)]


def _total(terms: Iterable[Any]) -> Any:
    return reduce(operator.add, terms)


@ops.custom_gradient
def _depthwise_convolution(values: Any, kernel: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
    """Convolve `[batch, length, width]` with `[K, width]`; also return the function of the gradients."""
    kernel_size = kernel.shape[0]

    def gradients(upstream: Any) -> tuple[Any, Any]:
        of_values = _total(view * kernel[-1 - k] for k, view in enumerate(_views(upstream, kernel_size)))
        of_kernel = [ops.sum(view * upstream, axis=(0, 1)) for view in _views(values, kernel_size)]
        return of_values, ops.stack(of_kernel)

    return _total(view * kernel[k] for k, view in enumerate(_views(values, kernel_size))), gradients


@ops.custom_gradient
def _dynamic_convolution(values: Any, kernels: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
    """Do what `dynamic_convolution` does; also return the function of the gradients."""
    kernel_size = kernels.shape[-1]

    def gradients(upstream: Any) -> tuple[Any, Any]:
        # Which kernel a value met at a place is said by the kernel's position, not by the value's.
        seen = zip(_views(upstream, kernel_size), _views(kernels, kernel_size), strict=True)
        last = kernel_size - 1
        of_values = _total(view * kernel[..., last - k : kernel_size - k] for k, (view, kernel) in enumerate(seen))
        of_kernels = [ops.sum(view * upstream, axis=-1) for view in _views(values, kernel_size)]
        return of_values, ops.stack(of_kernels, axis=-1)

    views = _views(values, kernel_size)
    return _total(view * kernels[..., k : k + 1] for k, view in enumerate(views)), gradients


class DepthwiseConvolution(keras.layers.Layer):
    """A convolution of each channel apart, `[batch, length, width]` -> the same; zeros stand beyond both ends.

    Args:
        width: number of channels.
        kernel_size: positions that the kernel sees; odd.
    """

    def __init__(self, width: int, kernel_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.kernel_size = kernel_size

    def build(self, input_shape: Any = None) -> None:
        """Draw new weights as the authors do: a kernel of K numbers with the standard deviation 1 / K."""
        initializer = truncated_normal(1 / self.kernel_size)
        self.kernel = self.add_weight(shape=(self.kernel_size, 1, self.width), initializer=initializer, name="kernel")

    def call(self, values: Any) -> Any:
        """Convolve `[batch, length, width]` along its positions."""
        return _depthwise_convolution(values, self.kernel[:, 0])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "width": self.width, "kernel_size": self.kernel_size}


class SeparableConvolution(Block):
    """A convolution of each channel apart, and a dense map of the channels: what makes a key see its span."""

    def __init__(self, in_width: int, out_width: int, kernel_size: int, std: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        dtype = self.dtype_policy
        self.out_width = out_width
        self.depthwise = DepthwiseConvolution(in_width, kernel_size, dtype=dtype, name="depthwise")
        self.pointwise = GroupedConvolution(in_width, out_width, 1, std, bias=False, dtype=dtype, name="pointwise")

    def build(self, input_shape: Any = None) -> None:
        """Start without a bias."""
        super().build(input_shape)
        self.bias = self.add_weight(shape=(self.out_width, 1), initializer="zeros", name="bias")

    def call(self, values: Any) -> Any:
        """Map `[batch, length, in_width]` to `[batch, length, out_width]`."""
        return self.pointwise(self.depthwise(values)) + self.bias[:, 0]


def dynamic_convolution(values: Any, kernels: Any) -> Any:
    """Convolve with another kernel at each position: the sum over k of `kernels[i, k] * values[i + k - K // 2]`.

    The lightweight convolution of Wu et al. 2019 (https://arxiv.org/abs/1901.10430); zeros stand beyond both ends.

    Args:
        values: `[batch, length, heads, width of a head]`.
        kernels: `[batch, length, heads, K]`, for all channels of a head alike; K is odd.

    Returns:
        `[batch, length, heads, width of a head]`.
    """
    return _dynamic_convolution(values, kernels)


class MixedAttention(SelfAttention):
    """The mixed attention: heads of self-attention beside as many of span-based dynamic convolution.

    Both take the same queries. A convolution head's kernel at a position is made from the query there and from a key
    of the span around it, `softmax(W(query * key of the span))`, so that equal words in unequal spans have unequal
    kernels. Each kind of heads is H / 2 wide together (the paper's "bottleneck design for self-attention").
    """

    def __init__(self, config: ConvBertConfig, **kwargs: Any) -> None:
        hidden, half, heads = config.hidden_size, config.attention_width, config.attention_heads
        kernel_size, std, dtype = config.conv_kernel_size, config.initializer_range, kwargs.get("dtype")
        super().__init__(
            query=Dense(hidden, half, std, dtype=dtype, name="query"),
            key=Dense(hidden, half, std, dtype=dtype, name="key"),
            value=Dense(hidden, half, std, dtype=dtype, name="value"),
            num_heads=heads,
            dropout=config.attention_probs_dropout_prob,
            **kwargs,
        )
        self.mask_padding = config.mask_padding
        self.kernel_size = kernel_size
        self.key_conv_attn_layer = SeparableConvolution(
            hidden, half, kernel_size, std, dtype=dtype, name="key_conv_attn_layer"
        )
        self.conv_kernel_layer = Dense(half, heads * kernel_size, std, dtype=dtype, name="conv_kernel_layer")
        self.conv_out_layer = Dense(hidden, half, std, dtype=dtype, name="conv_out_layer")

    def call(  # type: ignore[override]
        self, hidden: Any, attention_mask: AttentionMask | None = None, output_attentions: bool = False
    ) -> tuple[Any, Any]:
        """Attend and convolve.

        Args:
            hidden: `[batch, length, H]`.
            attention_mask: which keys may be attended to.
            output_attentions: whether to return the probabilities.

        Returns:
            The attention heads' context beside the convolution heads', `[batch, length, H]`, and the attention heads'
            probabilities `[batch, heads, length, length]` or None.
        """
        query = self.query(hidden)
        context, probabilities = attend(
            self._split_heads(query),
            self._split_heads(self.key(hidden)),
            self._split_heads(self.value(hidden)),
            attention_mask,
            dropout=self.dropout,
            output_attentions=output_attentions,
        )
        convolved = self.convolve(hidden, query, attention_mask)
        both = ops.concatenate([ops.swapaxes(context, 1, 2), convolved], axis=2)
        return ops.reshape(both, ops.shape(hidden)), probabilities

    def convolve(self, hidden: Any, query: Any, attention_mask: AttentionMask | None = None) -> Any:
        """Return the convolution heads' context, `[batch, length, heads, width of a head]`.

        Args:
            hidden: `[batch, length, H]`.
            query: `[batch, length, H / 2]`.
            attention_mask: which positions are padding, if the convolutions are not to see it.
        """
        values, neighbours = self.conv_out_layer(hidden), hidden
        if self.mask_padding and attention_mask is not None:
            padding = padded_positions(attention_mask.keep[:, 0])[..., None]
            values, neighbours = ops.where(padding, 0.0, values), ops.where(padding, 0.0, hidden)
        kernels = self.conv_kernel_layer(self.key_conv_attn_layer(neighbours) * query)
        batch, length, width = ops.shape(values)
        kernels = ops.softmax(ops.reshape(kernels, (batch, length, self.num_heads, self.kernel_size)), axis=-1)
        return dynamic_convolution(
            ops.reshape(values, (batch, length, self.num_heads, width // self.num_heads)), kernels
        )


class ConvBertAttention(Block):
    """The mixed attention, and the sum with what it was computed from."""

    def __init__(self, config: ConvBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        hidden, dtype = config.hidden_size, self.dtype_policy
        self.self = MixedAttention(config, dtype=dtype, name="self")
        self.output_ = AddNorm(
            Dense(hidden, hidden, config.initializer_range, dtype=dtype, name="dense"),
            LayerNorm(hidden, config.layer_norm_eps, dtype=dtype, name="LayerNorm"),
            dropout=config.hidden_dropout_prob,
            dtype=dtype,
            name="output",
        )

    def call(
        self, hidden: Any, attention_mask: AttentionMask | None = None, output_attentions: bool = False
    ) -> tuple[Any, Any]:
        """Map `[batch, length, H]` to the same shape; also return the attention heads' probabilities or None."""
        context, probabilities = self.self(hidden, attention_mask, output_attentions=output_attentions)
        return self.output_(context, hidden), probabilities


class ConvBertLayer(Block):
    """One layer: mixed attention, and a feed-forward network whose dense maps may be grouped.

    The paper calls such a map a "grouped linear operator".
    """

    def __init__(self, config: ConvBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        hidden, wide, dtype = config.hidden_size, config.intermediate_size, self.dtype_policy
        self.attention = ConvBertAttention(config, dtype=dtype, name="attention")
        self.intermediate = Intermediate(
            self.make_dense(config, hidden, wide, dtype=dtype, name="dense"),
            config.hidden_act,
            dtype=dtype,
            name="intermediate",
        )
        self.output_ = AddNorm(
            self.make_dense(config, wide, hidden, dtype=dtype, name="dense"),
            LayerNorm(hidden, config.layer_norm_eps, dtype=dtype, name="LayerNorm"),
            dropout=config.hidden_dropout_prob,
            dtype=dtype,
            name="output",
        )

    @staticmethod
    def make_dense(config: ConvBertConfig, in_width: int, out_width: int, **kwargs: Any) -> Dense | GroupedDense:
        """Return a dense map of the feed-forward network; a checkpoint holds a grouped one in another form."""
        if config.num_groups == 1:
            return Dense(in_width, out_width, config.initializer_range, **kwargs)
        return GroupedDense(in_width, out_width, config.num_groups, config.initializer_range, **kwargs)

    def call(
        self, hidden: Any, attention_mask: AttentionMask | None = None, output_attentions: bool = False
    ) -> tuple[Any, Any]:
        """Map `[batch, length, H]` to the same shape; also return the attention heads' probabilities or None."""
        hidden, probabilities = self.attention(hidden, attention_mask, output_attentions=output_attentions)
        return self.output_(self.intermediate(hidden), hidden), probabilities


class ConvBertLMHead(Block):
    """Scores of every word, `x @ word embeddings^T + bias`, in the pretraining's generator (Clark et al. 2020)."""

    def __init__(self, config: ConvBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config

    def build(self, input_shape: Any = None) -> None:
        """Start without a bias, and with a table of the head's own unless it shares one."""
        super().build(input_shape)
        self.weight = None
        if self.tied is None:
            initializer = truncated_normal(self.config.initializer_range)
            shape = (self.config.vocab_size, self.config.embedding_size)
            self.weight = self.add_weight(shape=shape, initializer=initializer, name="weight")
        self.bias = self.add_weight(shape=(self.config.vocab_size,), initializer="zeros", name="bias")

    def tie_weights(self, embeddings: Embedding | None) -> None:
        """Share the input embeddings' table, unless it is None. To be done once, before building."""
        self.tied = embeddings

    def resize(self, vocab_size: int) -> None:
        """Give the head scores for another number of words; new rows are drawn anew, their bias is zero."""
        if self.weight is not None:
            replace_weight(self, "weight", resized(self.weight, vocab_size, self.config.initializer_range))
        replace_weight(self, "bias", resized(self.bias, vocab_size, std=0.0))

    def call(self, hidden: Any, labels: Any = None) -> Any:
        """Score `[batch, length, E]` as `[batch, length, vocab]`, or return the loss of labels `[batch, length]`."""
        table = self.weight if self.tied is None else self.tied.embeddings
        if labels is not None:
            return projected_cross_entropy(hidden, Projection(table, self.bias), labels)
        # Outside of a graph, a transposed table would be a copy of it.
        return ops.einsum("...d,vd->...v", hidden, table) + self.bias


class ConvBertClassificationHead(Block):
    """Scores of a whole sequence, from its first token: `out_proj(activation(dense(x)))`, with dropout before each."""

    def __init__(self, config: ConvBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        hidden, std, dtype = config.hidden_size, config.initializer_range, self.dtype_policy
        self.dense = Dense(hidden, hidden, std, dtype=dtype, name="dense")
        self.activation = activation(config.hidden_act)
        self.dropout = keras.layers.Dropout(config.head_dropout_prob, dtype=dtype, name="dropout")
        self.out_proj = Dense(hidden, config.num_labels, std, dtype=dtype, name="out_proj")

    def call(self, hidden: Any, training: bool | None = None) -> Any:
        """Score `[batch, length, H]` as `[batch, num_labels]`."""
        first = self.dropout(hidden[:, 0], training=training)
        return self.out_proj(self.dropout(self.activation(self.dense(first)), training=training))


class SequenceSummary(Block):
    """One vector for a whole sequence; `core.convbert.SUMMARY_TYPES` tells from where it is taken."""

    def __init__(self, config: ConvBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        hidden, dtype = config.hidden_size, self.dtype_policy
        self.summary_type = config.summary_type
        self.summary = None
        if config.summary_use_proj:
            self.summary = Dense(hidden, hidden, config.initializer_range, dtype=dtype, name="summary")
        self.activation = activation(config.summary_activation or "linear")
        self.first_dropout = keras.layers.Dropout(config.summary_first_dropout, dtype=dtype, name="first_dropout")
        self.last_dropout = keras.layers.Dropout(config.summary_last_dropout, dtype=dtype, name="last_dropout")

    def call(self, hidden: Any, training: bool | None = None) -> Any:
        """Map `[batch, length, H]` to `[batch, H]`."""
        if self.summary_type == "mean":
            vector = ops.mean(hidden, axis=1)
        else:
            vector = hidden[:, 0 if self.summary_type == "first" else -1]
        vector = self.first_dropout(vector, training=training)
        if self.summary is not None:
            vector = self.summary(vector)
        return self.last_dropout(self.activation(vector), training=training)


class ConvBertPreTrainedModel(TFPreTrainedModel):
    """What all ConvBERT models have in common."""

    config: ConvBertConfig
    config_class = ConvBertConfig
    base_model_prefix = "convbert"

    def make_base_model(self, add_pooling_layer: bool) -> TFConvBertModel:
        """Return a new encoder for a model with a head; ConvBERT has no pooler, so it never gets one."""
        return TFConvBertModel(self.config, dtype=self.dtype_policy, name=self.base_model_prefix)

    def make_lm_head(self) -> ConvBertLMHead:
        """Return a new head that scores words."""
        return ConvBertLMHead(self.config, dtype=self.dtype_policy, name="generator_lm_head")


class TFConvBertModel(ConvBertPreTrainedModel):
    """The encoder without a head.

    Args:
        config: its shape.
        dtype: a dtype or policy, such as "float64" or "mixed_bfloat16"; None is Keras's global policy.
        name: the model's name.

    Example:
        >>> import numpy as np
        >>> from isobert import ConvBertConfig
        >>> config = ConvBertConfig(
        ...     vocab_size=50, hidden_size=32, embedding_size=8, num_attention_heads=4, num_hidden_layers=2
        ... )
        >>> model = TFConvBertModel(config)
        >>> out = model(np.array([[2, 7, 9, 3]]), output_attentions=True)
        >>> out.last_hidden_state.shape, out.attentions[0].shape
        (TensorShape([1, 4, 32]), TensorShape([1, 2, 4, 4]))
    """

    def __init__(self, config: ConvBertConfig, *, dtype: Any = None, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(config, dtype=dtype, name=name, **kwargs)
        words, hidden, dtype = config.embedding_size, config.hidden_size, self.dtype_policy
        norm = LayerNorm(words, config.layer_norm_eps, dtype=dtype, name="LayerNorm")
        self.embeddings = Embeddings(config, words, words, norm, dtype=dtype, name="embeddings")
        self.embeddings_project = None
        if words != hidden:
            self.embeddings_project = Dense(
                words, hidden, config.initializer_range, dtype=dtype, name="embeddings_project"
            )
        layers = [ConvBertLayer(config, dtype=dtype, name=f"layer.{i}") for i in range(config.num_hidden_layers)]
        self.encoder = Encoder(layers, dtype=dtype, name="encoder")
        self.build()

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
    ) -> BaseModelOutput:
        """Encode a batch.

        Args:
            input_ids: integers `[batch, length]`, or else `inputs_embeds`; or a dict of all the arguments.
            attention_mask: `[batch, length]` or, by query and key, `[batch, length, length]`; 1 keeps, 0 masks. None
                is all 1.
            token_type_ids: integers `[batch, length]`: 0 in the first segment, 1 in the second. None is all 0.
            position_ids: integers `[batch, length]` or `[1, length]`; None counts from 0.
            inputs_embeds: word vectors `[batch, length, embedding_size]` in place of ids.
            output_attentions: whether to return the attention heads' probabilities; None takes the config's.
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
        embedded = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds, training=training)
        if self.embeddings_project is not None:
            embedded = self.embeddings_project(embedded)
        encoded = self.encoder(
            embedded,
            AttentionMask.of(attention_mask),
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            training=training,
        )
        return BaseModelOutput(encoded._asdict())


class TFConvBertForMaskedLM(ForMaskedLM, ConvBertPreTrainedModel):
    """ConvBERT that scores the word at each position: the generator of its pretraining (Clark et al. 2020).

    Example:
        >>> import numpy as np
        >>> from isobert import ConvBertConfig, TFConvBertForMaskedLM
        >>> config = ConvBertConfig.from_size("convbert-small", num_hidden_layers=2)
        >>> model = TFConvBertForMaskedLM(config)
        >>> labels = np.array([[-100, -100, 2088, -100]])
        >>> out = model(np.array([[101, 7592, 103, 102]]), labels=labels, output_logits=True)
        >>> out.logits.shape, out.loss.shape
        (TensorShape([1, 4, 30522]), TensorShape([]))
    """

    def add_head(self) -> None:
        """Make the part that scores words. The activation before it is gelu, whatever `hidden_act` is."""
        config = self.config
        self.generator_predictions = PredictionHeadTransform(
            config.hidden_size,
            config.embedding_size,
            "gelu",
            config.layer_norm_eps,
            config.initializer_range,
            dtype=self.dtype_policy,
            name="generator_predictions",
        )
        self.generator_lm_head = self.make_lm_head()

    def get_lm_head(self) -> ConvBertLMHead:
        """Return the part that scores words."""
        return self.generator_lm_head

    def logits(self, encoded: ModelOutput, training: bool | None = None) -> Any:
        """Score `[batch, length, H]` as `[batch, length, vocab]`."""
        return self.generator_lm_head(self.generator_predictions(encoded.last_hidden_state))

    def loss_of_words(self, encoded: ModelOutput, labels: Any) -> Any:
        """Return the mean cross entropy of labels `[batch, length]`."""
        prepared = self.generator_predictions(encoded.last_hidden_state)
        return self.generator_lm_head(prepared, labels=labels)


class TFConvBertForSequenceClassification(ForSequenceClassification, ConvBertPreTrainedModel):
    """ConvBERT that classifies a sequence, or scores it (regression).

    Example:
        >>> import numpy as np
        >>> from isobert import ConvBertConfig, TFConvBertForSequenceClassification
        >>> config = ConvBertConfig.from_size("convbert-small", num_hidden_layers=2, num_labels=3)
        >>> model = TFConvBertForSequenceClassification(config)
        >>> out = model(np.array([[101, 7592, 102]]), labels=np.array([2]))
        >>> out.logits.shape, out.loss.shape
        (TensorShape([1, 3]), TensorShape([]))
    """

    def add_head(self) -> None:
        """Make the classifier."""
        self.classifier = ConvBertClassificationHead(self.config, dtype=self.dtype_policy, name="classifier")

    def logits(self, encoded: ModelOutput, training: bool | None = None) -> Any:
        """Score `[batch, length, H]` as `[batch, num_labels]`."""
        return self.classifier(encoded.last_hidden_state, training=training)


class TFConvBertForMultipleChoice(ForMultipleChoice, ConvBertPreTrainedModel):
    """ConvBERT that chooses among several continuations of a text.

    Example:
        >>> import numpy as np
        >>> from isobert import ConvBertConfig, TFConvBertForMultipleChoice
        >>> config = ConvBertConfig.from_size("convbert-small", num_hidden_layers=2)
        >>> model = TFConvBertForMultipleChoice(config)
        >>> two_choices = np.array([[[101, 7592, 102], [101, 2088, 102]]])
        >>> model(two_choices, labels=np.array([1])).logits.shape
        TensorShape([1, 2])
    """

    def add_head(self) -> None:
        """Make the summary of a text and its classifier."""
        config, dtype = self.config, self.dtype_policy
        self.sequence_summary = SequenceSummary(config, dtype=dtype, name="sequence_summary")
        self.classifier = Dense(config.hidden_size, 1, config.initializer_range, dtype=dtype, name="classifier")

    def logits(self, encoded: ModelOutput, training: bool | None = None) -> Any:
        """Score `[batch * choices, length, H]` as `[batch * choices, 1]`."""
        return self.classifier(self.sequence_summary(encoded.last_hidden_state, training=training))


class TFConvBertForTokenClassification(ForTokenClassification, ConvBertPreTrainedModel):
    """ConvBERT that classifies each token.

    Example:
        >>> import numpy as np
        >>> from isobert import ConvBertConfig, TFConvBertForTokenClassification
        >>> config = ConvBertConfig.from_size("convbert-small", num_hidden_layers=2, num_labels=5)
        >>> model = TFConvBertForTokenClassification(config)
        >>> model(np.array([[101, 7592, 2088, 102]])).logits.shape
        TensorShape([1, 4, 5])
    """


class TFConvBertForQuestionAnswering(ForQuestionAnswering, ConvBertPreTrainedModel):
    """ConvBERT that finds an answer's start and end in a text.

    Example:
        >>> import numpy as np
        >>> from isobert import ConvBertConfig, TFConvBertForQuestionAnswering
        >>> config = ConvBertConfig.from_size("convbert-small", num_hidden_layers=2)
        >>> model = TFConvBertForQuestionAnswering(config)
        >>> out = model(np.array([[101, 7592, 102, 2088, 102]]))
        >>> out.start_logits.shape, out.end_logits.shape
        (TensorShape([1, 5]), TensorShape([1, 5]))
    """
