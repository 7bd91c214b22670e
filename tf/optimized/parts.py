"""What optimized layers are made of. Their variables are not trained, and hold the dtype that is computed in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import ml_dtypes
import numpy as np
from keras import ops

from ..attention import AttentionMask
from ..layers import Activation, Block, Dense, GroupedDense, LayerNorm, activation


class Product(NamedTuple):
    """A dense map `values @ weight + bias`, as arrays of any floating dtype.

    Attributes:
        weight: `[in, out]`, or `[groups, in / groups, out / groups]` of a map of each group of channels apart.
        bias: `[out]`, or None.
    """

    weight: np.ndarray
    bias: np.ndarray | None

    @classmethod
    def of(cls, dense: Dense | GroupedDense) -> Product:
        """Return a layer's; one group is none."""
        weight = array(dense.weight if isinstance(dense, GroupedDense) else dense.kernel)
        bias = None if dense.bias is None else array(dense.bias)
        return cls(weight[0] if weight.ndim == 3 and len(weight) == 1 else weight, bias)

    def with_bias(self) -> np.ndarray:
        """Return the bias, which there is."""
        assert self.bias is not None
        return self.bias

    def scaled(self, factor: float) -> Product:
        """Return what yields so many times as much."""
        return Product(self.weight * factor, None if self.bias is None else self.bias * factor)


def array(variable: Any) -> np.ndarray:
    """Return a variable's numbers in float32, or in float64 if it holds that."""
    numbers: np.ndarray = ops.convert_to_numpy(variable)
    return numbers if numbers.dtype == np.float64 else numbers.astype(np.float32)


def joined(products: Sequence[Product]) -> Product:
    """Return the map whose results are those of several maps of the same values, side by side (in each group)."""
    weights = [product.weight for product in products]
    biases = [np.reshape(product.with_bias(), (*product.weight.shape[:-2], -1)) for product in products]
    return Product(np.concatenate(weights, axis=-1), np.concatenate(biases, axis=-1).ravel())


def fixed(layer: keras.layers.Layer, name: str, numbers: np.ndarray, dtype: str | None = None) -> Any:
    """Give a layer a variable with these numbers, rounded to a dtype; None is the one that the layer computes in."""

    def rounded(shape: tuple[int, ...], dtype: Any = None) -> Any:
        # What float16 does not hold is infinite, such as the shift of a hidden state that is itself beyond it.
        with np.errstate(over="ignore"):
            return ops.convert_to_tensor(numbers.astype(_numpy_dtype(dtype)))

    return layer.add_weight(
        shape=numbers.shape,
        dtype=dtype or layer.compute_dtype,
        trainable=False,
        initializer=rounded,
        name=name,
    )


def _numpy_dtype(dtype: Any) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def exchange(layer: keras.layers.Layer, attribute: str, part: keras.layers.Layer) -> None:
    """Put a part in the place of another."""
    layer._tracker.unlock()
    layer._tracker.untrack(getattr(layer, attribute))
    setattr(layer, attribute, part)
    layer._tracker.lock()


class Mapping(keras.layers.Layer):
    """`activation(values @ weight + bias)`.

    Values are `[batch, length, in]`; for a map of groups, `[groups, batch * length, in / groups]` (`to_groups`).
    """

    def __init__(self, product: Product, act: Activation | None = None, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        weight, bias = product
        self.groups = len(weight) if weight.ndim == 3 else 1
        self.act = act
        self.weight = fixed(self, "weight", weight)
        self.bias = None
        if bias is not None:
            self.bias = fixed(self, "bias", bias if self.groups == 1 else bias.reshape(self.groups, 1, -1))
        self.built = True

    def call(self, values: Any) -> Any:
        """Map values; the result is laid out as they are."""
        if self.groups > 1:
            return self.activated(ops.add(ops.matmul(values, self.weight), self.bias))
        shape = ops.shape(values)
        # TensorFlow computes a product of matrices, the bias and relu in one pass over the result.
        mapped = ops.matmul(ops.reshape(values, (-1, shape[-1])), self.weight)
        mapped = self.activated(mapped if self.bias is None else ops.add(mapped, self.bias))
        return ops.reshape(mapped, (*shape[:-1], self.weight.shape[-1]))

    def activated(self, mapped: Any) -> Any:
        """Apply the activation, if there is one."""
        return mapped if self.act is None else self.act(mapped)


def to_groups(values: Any, groups: int) -> Any:
    """`[batch, length, width]` -> `[groups, batch * length, width / groups]`; one group is left as it is."""
    if groups == 1:
        return values
    return ops.transpose(ops.reshape(values, (-1, groups, values.shape[-1] // groups)), (1, 0, 2))


def from_groups(values: Any, groups: int, like: Any) -> Any:
    """Undo `to_groups`, for as many positions as `like` `[batch, length, ...]` has."""
    if groups == 1:
        return values
    batch, length = ops.shape(like)[:2]
    return ops.reshape(ops.transpose(values, (1, 0, 2)), (batch, length, groups * values.shape[-1]))


class FeedForward(Block):
    """A feed-forward network, `contract(activation(expand(x)))`, without what closes it.

    Gelu is computed as `h * (1 + erf(h))`, with `sqrt(1 / 2)` in the weights before and after it: three passes over the
    wide values in place of five.
    """

    def __init__(self, expand: Product, contract: Product, act: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        dtype = self.dtype_policy
        function: Activation = activation(act)
        if act == "gelu":
            function = _scaled_gelu
            expand = expand.scaled(math.sqrt(0.5))
            contract = contract._replace(weight=contract.weight * math.sqrt(0.5))
        self.expand = Mapping(expand, function, dtype=dtype, name="expand")
        self.contract = Mapping(contract, dtype=dtype, name="contract")

    def call(self, values: Any) -> Any:
        """Map `[batch, length, width]` to the same shape."""
        within, without = self.expand.groups, self.contract.groups
        wide = self.expand(to_groups(values, within))
        if within != without:
            wide = to_groups(from_groups(wide, within, values), without)
        return from_groups(self.contract(wide), without, values)


def _scaled_gelu(values: Any) -> Any:
    return values * (1.0 + ops.erf(values))


class Norm(keras.layers.Layer):
    """The same as a layer norm: `gamma * (x - mean) / sqrt(variance + epsilon) + beta` over the last axis."""

    def __init__(self, norm: LayerNorm, **kwargs: Any) -> None:
        super().__init__(trainable=False, autocast=False, **kwargs)
        self.epsilon = norm.epsilon
        self.wide = keras.backend.result_type(self.compute_dtype, "float32")
        self.gamma = fixed(self, "gamma", array(norm.gamma), self.wide)
        self.beta = fixed(self, "beta", array(norm.beta), self.wide)
        self.built = True

    def call(self, values: Any) -> Any:
        """Normalise `[..., width]`, in float32 at least."""
        wide = ops.cast(values, self.wide)
        centered = wide - ops.mean(wide, axis=-1, keepdims=True)
        scale = ops.rsqrt(ops.mean(ops.square(centered), axis=-1, keepdims=True) + self.epsilon)
        return ops.cast(ops.add(centered * scale * self.gamma, self.beta), values.dtype)


class Mask(NamedTuple):
    """Which keys may be attended to, prepared once for all layers.

    Attributes:
        full: what `tf.attention.attend` takes.
        bias: what is added to scores, `[batch, 1, 1 or length, length]`: 0, or the dtype's lowest number. Beside that
            number every score vanishes, so that a query whose keys are all masked attends to all alike.
    """

    full: AttentionMask
    bias: Any

    @classmethod
    def of(cls, mask: AttentionMask | None, dtype: str) -> Mask | None:
        """Make one for values of a dtype."""
        if mask is None:
            return None
        scores = keras.backend.result_type(dtype, "float32")
        zero = ops.zeros((), scores)
        return cls(mask, ops.where(mask.keep, zero, float(ml_dtypes.finfo(scores).min)))


def attention(
    query: Any,
    key: Any,
    value: Any,
    mask: Mask | None,
    *,
    mask_value: float | None = None,
    output_attentions: bool = False,
) -> tuple[Any, Any]:
    """Attend as `tf.attention.attend` does, with queries that are divided by the root of a head's width already.

    Args:
        query: `[batch, heads, length, width of a head]`.
        key: shaped like `query`.
        value: shaped like `query`.
        mask: which keys may be attended to; None is all.
        mask_value: see `attend`.
        output_attentions: whether to return the probabilities.

    Returns:
        The context, shaped like `query`, and the probabilities `[batch, heads, length, length]` or None.
    """
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
    scores = ops.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
    if mask is not None:
        scores = scores + mask.bias if mask_value is None else ops.where(mask.full.keep, scores, mask_value)
    probabilities = ops.cast(ops.softmax(scores, axis=-1), value.dtype)
    return ops.matmul(probabilities, value), probabilities if output_attentions else None


def heads_of(values: Any, parts: int, num_heads: int) -> Any:
    """`[batch, length, parts * width]` -> `[parts, batch, heads, length, width / heads]`, in one pass."""
    batch, length = ops.shape(values)[:2]
    width = values.shape[-1] // (parts * num_heads)
    return ops.transpose(ops.reshape(values, (batch, length, parts, num_heads, width)), (2, 0, 3, 1, 4))


def side_by_side(context: Any) -> Any:
    """`[batch, heads, length, width of a head]` -> `[batch, length, width]`."""
    batch, heads, length, width = ops.shape(context)
    return ops.reshape(ops.swapaxes(context, 1, 2), (batch, length, heads * width))
