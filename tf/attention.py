"""Scaled dot-product attention, which every family shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import ml_dtypes
from keras import ops

from .layers import Block


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


def causal_mask(positions: Any, attention_mask: Any, keys: int) -> Any:
    """Return which keys each query of a decoder may attend to: its own and earlier ones, unless masked.

    Args:
        positions: integers `[length]`, where among the keys the queries stand.
        attention_mask: `[batch, keys]`, in which 0 masks; None keeps all.
        keys: number of keys.

    Returns:
        bool `[batch or 1, length, keys]`.

    Example:
        >>> causal_mask(ops.array([1, 2]), ops.array([[0, 1, 1]]), 3).numpy().astype(int).tolist()
        [[[0, 1, 0], [0, 1, 1]]]
    """
    earlier = ops.less_equal(ops.arange(keys, dtype=positions.dtype), positions[:, None])[None]
    return earlier if attention_mask is None else ops.logical_and(earlier, ops.cast(attention_mask, "bool")[:, None])


def positions_of(attention_mask: Any) -> Any:
    """Return the `position_ids` of rows that are padded on the left: they count from 0 at the first kept position.

    Args:
        attention_mask: `[batch, length]`; 1 keeps, 0 masks.

    Returns:
        integers `[batch, length]`; 0 where there is padding before a row.

    Example:
        >>> positions_of(ops.array([[0, 0, 1, 1], [1, 1, 1, 1]])).numpy().tolist()
        [[0, 0, 0, 1], [0, 1, 2, 3]]
    """
    return ops.maximum(ops.cumsum(ops.cast(attention_mask, "int32"), axis=1) - 1, 0)


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
        key: `[batch, heads, keys, width of a head]`.
        value: shaped like `key`.
        mask: which keys may be attended to; None is all.
        dropout: the layer that drops probabilities in training.
        mask_value: the score of masked keys; None is the dtype's lowest number, which masks them fully.
        output_attentions: whether to return the probabilities.

    Returns:
        The context, shaped like `query`, and the probabilities `[batch, heads, length, keys]` before dropout or None.
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
        query, key, value: dense maps from what each is computed from to the width of all heads together.
        num_heads: number of heads; it divides that width.
        dropout: dropout of the probabilities.
        mask_value: see `attend`.
    """

    def __init__(
        self,
        query: keras.layers.Layer,
        key: keras.layers.Layer,
        value: keras.layers.Layer,
        num_heads: int,
        *,
        dropout: float,
        mask_value: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mask_value = mask_value
        self.query = query
        self.key = key
        self.value = value
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
            query_input: what queries are computed from, `[batch, length, ...]`.
            key_input: what keys are computed from.
            value_input: what values are computed from.
            attention_mask: which keys may be attended to.
            output_attentions: whether to return the probabilities.

        Returns:
            The context `[batch, length, width]`, and the probabilities `[batch, heads, length, length]` or None.
        """
        key, value = self.keys_and_values(key_input, value_input)
        return self.attend_to(query_input, key, value, attention_mask, output_attentions)

    def keys_and_values(self, key_input: Any, value_input: Any) -> tuple[Any, Any]:
        """Return the heads' keys and values, each `[batch, heads, length, width / heads]`."""
        return self._split_heads(self.key(key_input)), self._split_heads(self.value(value_input))

    def attend_to(
        self,
        query_input: Any,
        key: Any,
        value: Any,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
    ) -> tuple[Any, Any]:
        """Attend to keys and values that are there already; the arguments and results are otherwise `call`'s."""
        context, probabilities = attend(
            self._split_heads(self.query(query_input)),
            key,
            value,
            attention_mask,
            dropout=self.dropout,
            mask_value=self.mask_value,
            output_attentions=output_attentions,
        )
        batch, heads, length, width = ops.shape(context)
        return ops.reshape(ops.swapaxes(context, 1, 2), (batch, length, heads * width)), probabilities

    def _split_heads(self, values: Any) -> Any:
        """`[batch, length, width]` -> `[batch, heads, length, width / heads]`."""
        batch, length, width = ops.shape(values)
        return ops.swapaxes(ops.reshape(values, (batch, length, self.num_heads, width // self.num_heads)), 1, 2)
