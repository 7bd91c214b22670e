"""Building blocks that families share: dense maps, norms, embeddings, feed-forward networks and the stack of layers.

A block takes explicit widths and draws its own new weights, so that a model is ready once it is made: building a block
builds its parts, without data. Its variables have the paths they have on the Hub, by the layers' names. `std` is the
standard deviation of new weights (`config.initializer_range`); `name` and `dtype`, which are Keras's, pass through
`kwargs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import ops

from ..conversion.formats.base import aligned_empty
from ..core.config import PretrainedConfig
from .projection import Projection, projected_cross_entropy

if TYPE_CHECKING:
    from .attention import AttentionMask

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


# How many numbers of a new weight are drawn at a time: 4 MB in float32.
_DRAWN_AT_ONCE = 2**20


def truncated_normal(std: float, zero_row: int | None = None) -> Callable[..., Any]:
    """Return what draws new weights: from a normal distribution cut off at two deviations, as the authors of BERT do.

    A few rows are drawn at a time, since the backend holds what it draws a second time.

    Args:
        std: the distribution's standard deviation.
        zero_row: a row of zeros.
    """

    def draw(shape: tuple[int, ...], dtype: Any = None) -> Any:
        weight = aligned_empty(shape, np.dtype(keras.backend.standardize_dtype(dtype)))
        rows = max(1, _DRAWN_AT_ONCE * len(weight) // max(1, weight.size))
        for start in range(0, len(weight), rows):
            part = weight[start : start + rows]
            part[...] = ops.convert_to_numpy(keras.initializers.TruncatedNormal(stddev=std)(part.shape, dtype))
        if zero_row is not None:
            weight[zero_row] = 0
        return adopted(weight)

    return draw


def adopted(array: np.ndarray) -> Any:
    """Return a tensor that has an array's numbers, and under TensorFlow its very memory; do not use the array again.

    Args:
        array: from `aligned_empty`, as its memory must begin where TensorFlow wants it.
    """
    # NumPy itself has no bfloat16 to hand over.
    if keras.backend.backend() != "tensorflow" or array.dtype.kind != "f":
        return ops.convert_to_tensor(array)
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


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
        super().__init__(out_features, use_bias=bias, kernel_initializer=truncated_normal(std), **kwargs)
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


class GroupedDense(keras.layers.Layer):
    """A dense map of each group of channels apart; the weight is `[groups, in/groups, out/groups]`.

    The grouped convolution of size 1 (Iandola et al. 2020, section 3).

    Args:
        in_features: width of the input; `groups` divides it.
        out_features: width of the output; `groups` divides it.
        groups: number of groups.
        std: standard deviation of new weights.
        bias: whether there is a bias `[out_features]`.
    """

    # The weight's name, which tells the tables in `conversion/names.py` how it lies in a checkpoint.
    weight_name: ClassVar[str] = "weight"

    def __init__(
        self, in_features: int, out_features: int, groups: int, std: float, *, bias: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.in_features = in_features
        self.out_features = out_features
        self.groups = groups
        self.std = std
        self.use_bias = bias

    def build(self, input_shape: Any = None) -> None:
        """Make the variables."""
        shape = (self.groups, self.in_features // self.groups, self.out_features // self.groups)
        self.weight = self.add_weight(shape=shape, initializer=truncated_normal(self.std), name=self.weight_name)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.out_features,), initializer="zeros", name="bias")

    def call(self, values: Any) -> Any:
        """`[..., in_features]` -> `[..., out_features]`, the groups' results side by side."""
        if self.groups == 1:
            mapped = ops.matmul(values, self.weight[0])
        else:
            # A batch of products, one for each group: the backward pass of an `einsum` would be many times slower.
            grouped = ops.reshape(values, (-1, self.groups, self.in_features // self.groups))
            mapped = ops.transpose(ops.matmul(ops.transpose(grouped, (1, 0, 2)), self.weight), (1, 0, 2))
            mapped = ops.reshape(mapped, (*ops.shape(values)[:-1], self.out_features))
        return mapped if self.bias is None else mapped + self.bias

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "in_features": self.in_features,
            "out_features": self.out_features,
            "groups": self.groups,
            "std": self.std,
            "bias": self.use_bias,
        }


class GroupedConvolution(GroupedDense):
    """The same map, stored in a checkpoint as a convolution of size 1: the weight is `[out, in/groups, 1]` there."""

    weight_name = "grouped_kernel"


class Embedding(keras.layers.Embedding):
    """A table of vectors, with BERT's initialisation: truncated normal.

    The row `padding_idx`, if there is one, starts as zeros and gets no gradient from being looked up.
    """

    def __init__(
        self, num_embeddings: int, width: int, std: float, *, padding_idx: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_embeddings, width, embeddings_initializer=truncated_normal(std, padding_idx), **kwargs)
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


class Embeddings(Block):
    """The sum of a word's, its position's and its segment's vector, normalised (Devlin et al. 2018, section 3).

    Args:
        config: a family's config.
        word_width: width of the word vectors.
        width: width of the positions' and segments' vectors, and of the sum.
        norm: what the sum goes through.
    """

    def __init__(
        self, config: PretrainedConfig, word_width: int, width: int, norm: keras.layers.Layer, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        std, dtype = config.initializer_range, self.dtype_policy
        self.word_embeddings = Embedding(
            config.vocab_size,
            word_width,
            std,
            padding_idx=config.pad_token_id,
            dtype=dtype,
            name="word_embeddings",
        )
        self.position_embeddings = Embedding(
            config.max_position_embeddings, width, std, dtype=dtype, name="position_embeddings"
        )
        self.token_type_embeddings = Embedding(
            config.type_vocab_size, width, std, dtype=dtype, name="token_type_embeddings"
        )
        self.LayerNorm = norm
        self.dropout = keras.layers.Dropout(config.hidden_dropout_prob, dtype=dtype, name="dropout")

    def call(
        self,
        input_ids: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        attention_mask: Any = None,
    ) -> Any:
        """Embed ids `[batch, length]`, or word vectors `[batch, length, word_width]`, as `[batch, length, width]`."""
        words = self.words(input_ids, inputs_embeds, attention_mask)
        if position_ids is None:
            position_ids = ops.arange(ops.shape(words)[1])[None]
        if token_type_ids is None:
            token_type_ids = ops.zeros_like(position_ids)
        embedded = words + self.position_embeddings(position_ids) + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(embedded))

    def words(self, input_ids: Any, inputs_embeds: Any, attention_mask: Any) -> Any:
        """Return what words bring to the sum, `[batch, length, width]`."""
        return self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds


class Intermediate(Block):
    """The first half of a feed-forward network: `activation(dense(x))`."""

    def __init__(self, dense: keras.layers.Layer, activation_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = dense
        self.activation = activation(activation_name)

    def call(self, hidden: Any) -> Any:
        """`[batch, length, width]` -> `[batch, length, inner width]`."""
        return self.activation(self.dense(hidden))


class AddNorm(Block):
    """What closes each sub-layer of a transformer: `norm(dropout(dense(x)) + residual)`."""

    def __init__(self, dense: keras.layers.Layer, norm: keras.layers.Layer, *, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = dense
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self.LayerNorm = norm

    def call(self, values: Any, residual: Any) -> Any:
        """`[batch, length, inner width]` and a residual `[batch, length, width]` -> `[batch, length, width]`."""
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
            hidden, probabilities = self.run_layer(
                layer, hidden, attention_mask, output_attentions=output_attentions, training=training
            )
            # What is not asked for is not held on to: without a backward pass it is freed layer by layer.
            if output_hidden_states:
                hidden_states += (hidden,)
            if output_attentions:
                attentions += (probabilities,)
        return EncoderOutput(
            hidden, hidden_states if output_hidden_states else None, attentions if output_attentions else None
        )

    def run_layer(
        self, layer: keras.layers.Layer, *inputs: Any, output_attentions: bool = False, training: bool | None = None
    ) -> Any:
        """Call a layer, so that the backward pass computes it again if that is asked for."""
        if self.gradient_checkpointing and training:
            return _checkpoint(layer, inputs, output_attentions)
        return layer(*inputs, output_attentions=output_attentions)


def _checkpoint(layer: keras.layers.Layer, inputs: tuple[Any, ...], output_attentions: bool) -> Any:
    """Call a layer in training so that the backward pass computes it again, with the same dropout."""
    generators = [part.seed_generator for part in layer._flatten_layers() if getattr(part, "rate", 0.0) > 0]
    seeds = [ops.copy(generator.state) for generator in generators]
    leaves = keras.tree.flatten(inputs)
    # Gradients flow to what the second run is given, and to nothing that it only sees.
    given = [i for i, leaf in enumerate(leaves) if leaf is not None and keras.backend.is_float_dtype(leaf.dtype)]
    form: list[Any] = []

    def run(*values: Any) -> list[Any]:
        # The second run would otherwise go on from the seeds that the first one left, and drop other numbers.
        for generator, seed in zip(generators, seeds, strict=True):
            generator.state.assign(seed)
        replaced = list(leaves)
        for i, value in zip(given, values, strict=True):
            replaced[i] = value
        # `training` explicitly: the second run has no outer call to take it from.
        outputs = layer(
            *keras.tree.pack_sequence_as(inputs, replaced), output_attentions=output_attentions, training=True
        )
        form.append(outputs)
        return [leaf for leaf in keras.tree.flatten(outputs) if leaf is not None]

    found = iter(keras.remat(run)(*(leaves[i] for i in given)))
    return keras.tree.map_structure(lambda leaf: None if leaf is None else next(found), form[0])


class Pooler(Block):
    """The vector of the whole sequence: the first token's, through `tanh(dense(x))` unless `bare`."""

    def __init__(self, width: int, std: float, *, bare: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = None if bare else Dense(width, width, std, dtype=self.dtype_policy, name="dense")

    def call(self, hidden: Any) -> Any:
        """Map `[batch, length, width]` to `[batch, width]`."""
        first = hidden[:, 0]
        return first if self.dense is None else ops.tanh(self.dense(first))


class PredictionHeadTransform(Block):
    """What a language-model head does before it scores words: `layer_norm(activation(dense(x)))`."""

    def __init__(
        self, in_width: int, width: int, activation_name: str, epsilon: float, std: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.dense = Dense(in_width, width, std, dtype=self.dtype_policy, name="dense")
        self.activation = activation(activation_name)
        self.LayerNorm = LayerNorm(width, epsilon, dtype=self.dtype_policy, name="LayerNorm")

    def call(self, hidden: Any) -> Any:
        """Map `[batch, length, in_width]` to `[batch, length, width]`."""
        return self.LayerNorm(self.activation(self.dense(hidden)))


class LMPredictionHead(Block):
    """Scores of every word: `transform(x) @ word embeddings^T + bias` (Devlin et al. 2018, section 3.1).

    Args:
        config: a family's config.
        word_width: width of the word embeddings, which the table of outputs shares if it is tied.
    """

    def __init__(self, config: PretrainedConfig, word_width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width, std = config.hidden_size, config.initializer_range
        self.config = config
        self.word_width = word_width
        self.transform = PredictionHeadTransform(
            width, width, config.hidden_act, config.layer_norm_eps, std, dtype=self.dtype_policy, name="transform"
        )

    def build(self, input_shape: Any = None) -> None:
        """Start without a bias."""
        super().build(input_shape)
        self.bias = self.add_weight(shape=(self.config.vocab_size,), initializer="zeros", name="bias")

    def tie_weights(self, embeddings: Embedding | None) -> None:
        """Share the input embeddings' table; None makes a table of the head's own. To be done once, before building."""
        if embeddings is None:
            shape, std = (self.config.vocab_size, self.word_width), self.config.initializer_range
            embeddings = Table(shape, std, dtype=self.dtype_policy, name="decoder")
        self.decoder = embeddings

    def resize(self, vocab_size: int) -> None:
        """Give the head scores for another number of words; new rows are drawn anew, their bias is zero."""
        if isinstance(self.decoder, Table):
            self.decoder.resize(vocab_size)
        replace_weight(self, "bias", resized(self.bias, vocab_size, std=0.0))

    def projection(self) -> Projection:
        """Return what follows the transform."""
        return Projection(self.decoder.embeddings, self.bias)

    def scores(self, vectors: Any) -> Any:
        """Score transformed vectors `[..., width]` as `[..., vocab]`."""
        # Outside of a graph, a transposed table would be a copy of it.
        return ops.einsum("...d,vd->...v", vectors, self.decoder.embeddings) + self.bias

    def call(self, hidden: Any, labels: Any = None) -> Any:
        """Score `[batch, length, width]` as `[batch, length, vocab]`, or return the loss of labels `[batch, length]`.

        The loss is a scalar; it takes and holds fewer scores than there are (`projected_cross_entropy`).
        """
        if labels is not None:
            return projected_cross_entropy(hidden, self.projection(), labels, self.transform)
        return self.scores(self.transform(hidden))


class Table(keras.layers.Layer):
    """A bare matrix `weight`, possibly without rows; like an `Embedding`'s, it is also called `embeddings`."""

    def __init__(self, shape: tuple[int, int], std: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = shape
        self.std = std

    def build(self, input_shape: Any = None) -> None:
        """Make the variable."""
        self.weight = self.add_weight(shape=self.shape, initializer=truncated_normal(self.std), name="weight")

    @property
    def embeddings(self) -> Any:
        """The matrix."""
        return self.weight

    def resize(self, size: int, *, axis: int = 0) -> None:
        """Cut or grow the matrix along an axis; what is new is drawn anew."""
        replace_weight(self, "weight", resized(self.weight, size, self.std, axis=axis))


def resized(parameter: Any, size: int, std: float, *, axis: int = 0) -> Any:
    """Return a copy of a variable cut or grown to `size` along an axis; what is new is drawn with `std` (0: zeros)."""
    shape = list(parameter.shape)
    kept = min(size, shape[axis])
    values = ops.take(ops.convert_to_tensor(parameter), ops.arange(kept), axis=axis)
    shape[axis] = size - kept
    dtype = keras.backend.standardize_dtype(parameter.dtype)
    new = truncated_normal(std)(shape, dtype) if std > 0 else ops.zeros(shape, dtype)
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
