"""Building blocks that every family shares: dense maps, norms, embeddings, self-attention and the stack of layers.

A block takes explicit widths and draws its own new weights, so that a model is ready once it is made: building a block
builds its parts, without data. Its variables have the paths they have on the Hub, by the layers' names. `std` is the
standard deviation of new weights (`config.initializer_range`); `name` and `dtype`, which are Keras's, pass through
`kwargs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras
import ml_dtypes
from keras import ops

Activation = Callable[[Any], Any]


# `ops.gelu` holds its constants in float32 on TensorFlow, which shows in float64.
def _gelu(values: Any) -> Any:
    return 0.5 * values * (1.0 + ops.erf(values * math.sqrt(0.5)))


def _gelu_tanh(values: Any) -> Any:
    return 0.5 * values * (1.0 + ops.tanh(math.sqrt(2.0 / math.pi) * (values + 0.044715 * values * values * values)))


def _quick_gelu(values: Any) -> Any:
    return values * ops.sigmoid(1.702 * values)


ACTIVATIONS: dict[str, Activation] = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "relu": ops.relu,
    "relu6": ops.relu6,
    "silu": ops.silu,
    "swish": ops.silu,
    "mish": keras.activations.mish,
    "sigmoid": ops.sigmoid,
    "tanh": ops.tanh,
    "linear": keras.activations.linear,
}


def activation(name: str) -> Activation:
    """Return the activation that a config's `hidden_act` names; `core.config.ACTIVATIONS` lists the legal names."""
    return ACTIVATIONS[name]


class Block(keras.layers.Layer):
    """A layer made of parts that know their own widths, so that it can be built before it sees data."""

    def build(self, input_shape: Any = None) -> None:
        """Build the parts, and with them all variables, each under the path of its owners' names."""
        for part in self._flatten_layers(include_self=False, recursive=False):
            if not part.built:
                part.build()


class Dense(keras.layers.Dense):
    """`x @ kernel + bias`, with BERT's initialisation: truncated normal weights, zero bias."""

    def __init__(self, in_features: int, out_features: int, std: float, *, bias: bool = True, **kwargs: Any) -> None:
        initializer = keras.initializers.TruncatedNormal(stddev=std)
        super().__init__(out_features, use_bias=bias, kernel_initializer=initializer, **kwargs)
        self.in_features = in_features
        self.std = std

    def build(self, input_shape: Any = None) -> None:
        """Make the variables."""
        super().build((None, self.in_features))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "in_features": self.in_features,
            "out_features": self.units,
            "std": self.std,
            "bias": self.use_bias,
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }


class Embedding(keras.layers.Embedding):
    """A table of vectors, with BERT's initialisation: truncated normal.

    The row `padding_idx`, if there is one, starts as zeros and gets no gradient from being looked up.
    """

    def __init__(
        self, num_embeddings: int, width: int, std: float, *, padding_idx: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_embeddings, width, embeddings_initializer=self._draw, **kwargs)
        self.std = std
        self.padding_idx = padding_idx

    def call(self, inputs: Any) -> Any:
        """Look up ids `[...]` as vectors `[..., width]`."""
        vectors = super().call(inputs)
        if self.padding_idx is None:
            return vectors
        return ops.where(ops.equal(inputs, self.padding_idx)[..., None], ops.stop_gradient(vectors), vectors)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "num_embeddings": self.input_dim,
            "width": self.output_dim,
            "std": self.std,
            "padding_idx": self.padding_idx,
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    def _draw(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        vectors = keras.initializers.TruncatedNormal(stddev=self.std)(shape, dtype)
        if self.padding_idx is None:
            return vectors
        return ops.where(ops.equal(ops.arange(shape[0]), self.padding_idx)[:, None], 0.0, vectors)


class LayerNorm(keras.layers.LayerNormalization):
    """`gamma * (x - mean) / sqrt(variance + epsilon) + beta` over the last axis (Ba et al. 2016)."""

    def __init__(self, width: int, epsilon: float, **kwargs: Any) -> None:
        super().__init__(epsilon=epsilon, **kwargs)
        self.width = width

    def build(self, input_shape: Any = None) -> None:
        """Make the variables."""
        super().build((None, self.width))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "width": self.width,
            "epsilon": self.epsilon,
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }


class NoNorm(keras.layers.Layer):
    """`weight * x + bias`, elementwise: what MobileBERT has in a layer norm's place (section 3.3, equation 1)."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width

    def build(self, input_shape: Any = None) -> None:
        """Start as the identity."""
        self.weight = self.add_weight(shape=(self.width,), initializer="ones", name="weight")
        self.bias = self.add_weight(shape=(self.width,), initializer="zeros", name="bias")

    def call(self, values: Any) -> Any:
        """Scale and shift `[..., width]`."""
        return self.weight * values + self.bias

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "width": self.width}


def normalization(kind: str, width: int, epsilon: float, **kwargs: Any) -> LayerNorm | NoNorm:
    """Return the norm that `normalization_type` names; see `core.mobilebert.NORMALIZATION_TYPES`."""
    if kind == "no_norm":
        return NoNorm(width, **kwargs)
    return LayerNorm(width, 1e-6 if kind == "manual_layer_norm" else epsilon, **kwargs)


class AttentionMask(NamedTuple):
    """Which keys each query may attend to.

    Attributes:
        keep: bool `[batch, 1, 1 or length, length]`, True where the key may be attended to.
    """

    keep: Any

    @classmethod
    def of(cls, attention_mask: Any) -> AttentionMask | None:
        """Make one from a caller's mask `[batch, length]` or `[batch, length, length]`, in which 0 masks."""
        if attention_mask is None:
            return None
        keep = ops.cast(attention_mask, "bool")
        return cls(keep[:, None, None, :] if len(keep.shape) == 2 else keep[:, None])


def padded_positions(attention_mask: Any) -> Any:
    """Return bool `[batch, length]`: the positions that a mask hides from every query."""
    keep = ops.cast(attention_mask, "bool")
    return ops.logical_not(keep if len(keep.shape) == 2 else ops.any(keep, axis=1))


def attend(
    query: Any,
    key: Any,
    value: Any,
    mask: AttentionMask | None,
    *,
    dropout: Callable[[Any], Any],
    mask_value: float | None = None,
    output_attentions: bool = False,
) -> tuple[Any, Any]:
    """Scaled dot-product attention: `softmax(query @ key^T / sqrt(width)) @ value` (Vaswani et al. 2017, equation 1).

    A query whose keys are all masked attends to all alike. `keras.ops.dot_product_attention` has no such guarantee,
    scales by a float32 number even in float64, and on TensorFlow runs these same operations.

    Args:
        query: `[batch, heads, length, width of a head]`.
        key: shaped like `query`.
        value: shaped like `query`.
        mask: which keys may be attended to; None is all.
        dropout: the layer that drops probabilities in training.
        mask_value: the score of masked keys; None is the dtype's lowest number, which masks them fully.
        output_attentions: whether to return the probabilities.

    Returns:
        The context, shaped like `query`, and the probabilities `[batch, heads, length, length]` before dropout or None.
    """
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2)) / math.sqrt(query.shape[-1])
    # Half precision sums too coarsely, and may not hold `mask_value`.
    scores = ops.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
    if mask is not None:
        lowest = float(ml_dtypes.finfo(keras.backend.standardize_dtype(scores.dtype)).min)
        scores = ops.where(mask.keep, scores, lowest if mask_value is None else mask_value)
    probabilities = ops.cast(ops.softmax(scores, axis=-1), value.dtype)
    context = ops.matmul(dropout(probabilities), value)
    return context, probabilities if output_attentions else None


class SelfAttention(Block):
    """Multi-head attention up to the heads' concatenation, without the dense map after it.

    Args:
        query_width: width of what queries and keys are computed from.
        value_width: width of what values are computed from.
        width: width of all heads together.
        num_heads: number of heads; it divides `width`.
        dropout: dropout of the probabilities.
        std: standard deviation of new weights.
        mask_value: see `attend`.
    """

    def __init__(
        self,
        query_width: int,
        value_width: int,
        width: int,
        num_heads: int,
        *,
        dropout: float,
        std: float,
        mask_value: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mask_value = mask_value
        self.query = Dense(query_width, width, std, dtype=self.dtype_policy, name="query")
        self.key = Dense(query_width, width, std, dtype=self.dtype_policy, name="key")
        self.value = Dense(value_width, width, std, dtype=self.dtype_policy, name="value")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def call(
        self,
        query_input: Any,
        key_input: Any,
        value_input: Any,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
    ) -> tuple[Any, Any]:
        """Attend.

        Args:
            query_input: `[batch, length, query_width]`.
            key_input: shaped like `query_input`.
            value_input: `[batch, length, value_width]`.
            attention_mask: which keys may be attended to.
            output_attentions: whether to return the probabilities.

        Returns:
            The context `[batch, length, width]`, and the probabilities `[batch, heads, length, length]` or None.
        """
        context, probabilities = attend(
            self._split_heads(self.query(query_input)),
            self._split_heads(self.key(key_input)),
            self._split_heads(self.value(value_input)),
            attention_mask,
            dropout=self.dropout,
            mask_value=self.mask_value,
            output_attentions=output_attentions,
        )
        batch, length, _ = ops.shape(query_input)
        return ops.reshape(ops.swapaxes(context, 1, 2), (batch, length, self.query.units)), probabilities

    def _split_heads(self, values: Any) -> Any:
        """`[batch, length, width]` -> `[batch, heads, length, width / heads]`."""
        batch, length, width = ops.shape(values)
        return ops.swapaxes(ops.reshape(values, (batch, length, self.num_heads, width // self.num_heads)), 1, 2)


class Intermediate(Block):
    """The first half of a feed-forward network: `activation(dense(x))`."""

    def __init__(self, width: int, inner_width: int, activation_name: str, std: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = Dense(width, inner_width, std, dtype=self.dtype_policy, name="dense")
        self.activation = activation(activation_name)

    def call(self, hidden: Any) -> Any:
        """`[batch, length, width]` -> `[batch, length, inner_width]`."""
        return self.activation(self.dense(hidden))


class AddNorm(Block):
    """What closes each sub-layer of a transformer: `norm(dropout(dense(x)) + residual)`."""

    def __init__(
        self, in_width: int, width: int, norm: keras.layers.Layer, *, dropout: float, std: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.dense = Dense(in_width, width, std, dtype=self.dtype_policy, name="dense")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self.LayerNorm = norm

    def call(self, values: Any, residual: Any) -> Any:
        """`[batch, length, in_width]` and a residual `[batch, length, width]` -> `[batch, length, width]`."""
        return self.LayerNorm(self.dropout(self.dense(values)) + residual)


class EncoderOutput(NamedTuple):
    """What a stack of layers yields.

    Attributes:
        last_hidden_state: `[batch, length, hidden]`.
        hidden_states: the stack's input and each layer's output, or None.
        attentions: each layer's probabilities, or None.
    """

    last_hidden_state: Any
    hidden_states: tuple[Any, ...] | None
    attentions: tuple[Any, ...] | None


class Encoder(Block):
    """A stack of layers, each `(hidden, attention_mask, output_attentions) -> (hidden, probabilities or None)`.

    With `gradient_checkpointing`, a training step keeps only each layer's input and computes the rest of the layer
    again in the backward pass (Chen et al. 2016).
    """

    def __init__(self, layers: Iterable[keras.layers.Layer], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layer = list(layers)
        self.gradient_checkpointing = False

    def call(
        self,
        hidden: Any,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        training: bool | None = None,
    ) -> EncoderOutput:
        """Run `[batch, length, hidden]` through every layer in turn."""
        hidden_states: tuple[Any, ...] = (hidden,) if output_hidden_states else ()
        attentions: tuple[Any, ...] = ()
        for layer in self.layer:
            if self.gradient_checkpointing and training:
                hidden, probabilities = _checkpoint(layer, hidden, attention_mask, output_attentions)
            else:
                hidden, probabilities = layer(hidden, attention_mask, output_attentions=output_attentions)
            # What is not asked for is not held on to: without a backward pass it is freed layer by layer.
            if output_hidden_states:
                hidden_states += (hidden,)
            if output_attentions:
                attentions += (probabilities,)
        return EncoderOutput(
            hidden, hidden_states if output_hidden_states else None, attentions if output_attentions else None
        )


def _checkpoint(
    layer: keras.layers.Layer, hidden: Any, attention_mask: AttentionMask | None, output_attentions: bool
) -> tuple[Any, Any]:
    """Call a layer in training so that the backward pass computes it again, with the same dropout."""
    generators = [part.seed_generator for part in layer._flatten_layers() if getattr(part, "rate", 0.0) > 0]
    seeds = [ops.copy(generator.state) for generator in generators]

    def run(hidden: Any) -> Any:
        # The second run would otherwise go on from the seeds that the first one left, and drop other numbers.
        for generator, seed in zip(generators, seeds, strict=True):
            generator.state.assign(seed)
        # `training` explicitly: the second run has no outer call to take it from.
        outputs = layer(hidden, attention_mask, output_attentions=output_attentions, training=True)
        return outputs if output_attentions else outputs[0]

    outputs = keras.remat(run)(hidden)
    return outputs if output_attentions else (outputs, None)


def resized(parameter: Any, size: int, std: float, *, axis: int = 0) -> Any:
    """Return a copy of a variable cut or grown to `size` along an axis; what is new is drawn with `std` (0: zeros)."""
    shape = list(parameter.shape)
    kept = min(size, shape[axis])
    values = ops.take(ops.convert_to_tensor(parameter), ops.arange(kept), axis=axis)
    shape[axis] = size - kept
    dtype = keras.backend.standardize_dtype(parameter.dtype)
    new = keras.initializers.TruncatedNormal(stddev=std)(shape, dtype) if std > 0 else ops.zeros(shape, dtype)
    return ops.concatenate([values, new], axis=axis)


def replace_weight(layer: keras.layers.Layer, attribute: str, values: Any) -> None:
    """Put a new variable with these values, of another shape, in an old one's place and under its path."""
    old = getattr(layer, attribute)
    layer._untrack_variable(old)
    layer._tracker.unlock()
    new = layer.add_weight(
        shape=values.shape,
        dtype=old.dtype,
        trainable=old.trainable,
        initializer=lambda shape, dtype=None: values,
        name=old.name,
    )
    setattr(layer, attribute, new)
    layer._tracker.lock()
