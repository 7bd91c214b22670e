"""Scaled dot-product attention, which every family shares."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import dropout as drop


class AttentionMask(NamedTuple):
    """Which keys each query may attend to, in the forms that the two paths of `attend` need.

    Attributes:
        keep: bool `[batch, 1, 1 or length, length]`, True where the key may be attended to.
        blind: bool `[batch, 1, 1 or length, 1]`, True for a query that may attend to no key at all.
        bias: `[batch, 1, 1 or length, length]`, added to the scores: 0 or the dtype's lowest number. A blind query's
            row is 0.
    """

    keep: Tensor
    blind: Tensor
    bias: Tensor

    @classmethod
    def of(cls, attention_mask: Tensor | None, dtype: torch.dtype) -> AttentionMask | None:
        """Make one from a caller's mask `[batch, length]` or `[batch, length, length]`, in which 0 masks."""
        if attention_mask is None:
            return None
        keep = attention_mask.bool()
        keep = keep[:, None, None, :] if keep.dim() == 2 else keep[:, None]
        blind = ~keep.any(dim=-1, keepdim=True)
        bias = torch.zeros(keep.shape, dtype=dtype, device=keep.device)
        return cls(keep, blind, bias.masked_fill(~(keep | blind), torch.finfo(dtype).min))


def causal_mask(positions: Tensor, attention_mask: Tensor | None, keys: int) -> Tensor:
    """Return which keys each query of a decoder may attend to: its own and earlier ones, unless masked.

    Args:
        positions: integers `[length]`, where among the keys the queries stand.
        attention_mask: `[batch, keys]`, in which 0 masks; None keeps all.
        keys: number of keys.

    Returns:
        bool `[batch or 1, length, keys]`.

    Example:
        >>> causal_mask(torch.tensor([1, 2]), torch.tensor([[0, 1, 1]]), 3).int().tolist()
        [[[0, 1, 0], [0, 1, 1]]]
    """
    earlier = torch.arange(keys, device=positions.device) <= positions[:, None]
    return earlier[None] if attention_mask is None else earlier & attention_mask[:, None].bool()


def positions_of(attention_mask: Tensor) -> Tensor:
    """Return the `position_ids` of rows that are padded on the left: they count from 0 at the first kept position.

    Args:
        attention_mask: `[batch, length]`; 1 keeps, 0 masks.

    Returns:
        integers `[batch, length]`; 0 where there is padding before a row.

    Example:
        >>> positions_of(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])).tolist()
        [[0, 0, 0, 1], [0, 1, 2, 3]]
    """
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)


def padded_positions(attention_mask: Tensor) -> Tensor:
    """Return bool `[batch, length]`: the positions that a mask hides from every query."""
    keep = attention_mask.bool()
    return ~(keep if keep.dim() == 2 else keep.any(dim=1))


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask | None,
    *,
    dropout: float = 0.0,
    mask_value: float | None = None,
    output_attentions: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention: `softmax(query @ key^T / sqrt(width)) @ value` (Vaswani et al. 2017, equation 1).

    A query whose keys are all masked attends to all alike. The fused kernel is used unless the probabilities are asked
    for or `mask_value` is given, or on a CPU, where it knows no dropout; the numbers are the same.

    Args:
        query: `[batch, heads, length, width of a head]`.
        key: `[batch, heads, keys, width of a head]`.
        value: shaped like `key`.
        mask: which keys may be attended to; None is all.
        dropout: probability with which a probability is dropped.
        mask_value: the score of masked keys; None is the dtype's lowest number, which masks them fully.
        output_attentions: whether to return the probabilities.

    Returns:
        The context, shaped like `query`, and the probabilities before dropout `[batch, heads, length, keys]` or None.
    """
    fused = mask_value is None and not (dropout and query.device.type == "cpu")
    if fused and not output_attentions:
        bias = None
        if mask is not None:
            # A fused kernel's backward pass is wrong where a whole row of the bias is the lowest number. A zero query
            # scores 0 everywhere, which is the same uniform attention.
            query, bias = query.masked_fill(mask.blind, 0.0), mask.bias
        return F.scaled_dot_product_attention(query, key, value, bias, dropout_p=dropout), None

    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
    # Half precision sums too coarsely, and may not hold `mask_value`. The fused kernel sums in single precision too.
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if mask is not None:
        scores = scores.masked_fill(~mask.keep, torch.finfo(scores.dtype).min if mask_value is None else mask_value)
    probabilities = torch.softmax(scores, dim=-1).to(value.dtype)
    context = drop(probabilities, dropout) @ value
    return context, probabilities if output_attentions else None


class SelfAttention(nn.Module):
    """Multi-head attention up to the heads' concatenation, without the dense map after it.

    Args:
        query, key, value: dense maps from what each is computed from to the width of all heads together.
        num_heads: number of heads; it divides that width.
        dropout: dropout of the probabilities.
        mask_value: see `attend`.
    """

    def __init__(
        self,
        query: nn.Module,
        key: nn.Module,
        value: nn.Module,
        num_heads: int,
        *,
        dropout: float,
        mask_value: float | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout_prob = dropout
        self.mask_value = mask_value
        self.query = query
        self.key = key
        self.value = value

    def forward(
        self,
        query_input: Tensor,
        key_input: Tensor,
        value_input: Tensor,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
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

    def keys_and_values(self, key_input: Tensor, value_input: Tensor) -> tuple[Tensor, Tensor]:
        """Return the heads' keys and values, each `[batch, heads, length, width / heads]`."""
        return self._split_heads(self.key(key_input)), self._split_heads(self.value(value_input))

    def attend_to(
        self,
        query_input: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to keys and values that are there already; the arguments and results are otherwise `forward`'s."""
        context, probabilities = attend(
            self._split_heads(self.query(query_input)),
            key,
            value,
            attention_mask,
            dropout=self.dropout_prob if self.training else 0.0,
            mask_value=self.mask_value,
            output_attentions=output_attentions,
        )
        return context.transpose(1, 2).flatten(2), probabilities

    def _split_heads(self, values: Tensor) -> Tensor:
        """`[batch, length, width]` -> `[batch, heads, length, width / heads]`."""
        return values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
