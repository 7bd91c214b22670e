"""What a decoder remembers between steps, in tensors of one size from the first step to the last."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class LayerCache(NamedTuple):
    """The keys and values that one layer of a decoder has computed.

    Attributes:
        key: `[batch, heads, max_length, width of a head]`; what is not filled yet is zero.
        value: shaped like `key`.
        cross_key: the keys of an encoder's output, `[batch, heads, encoder's length, width of a head]`, or None.
        cross_value: shaped like `cross_key`.
    """

    key: Tensor
    value: Tensor
    cross_key: Tensor | None = None
    cross_value: Tensor | None = None


class KeyValueCache(NamedTuple):
    """The keys and values of all layers, so that a decoder goes on from where it was.

    Its tensors have one size from the first step to the last, so that a step is compiled once.

    Attributes:
        layers: each layer's.
        mask: bool `[batch, max_length]`, False at positions that are padding.
        encoder_mask: bool `[batch, encoder's length]`, False where the encoder's output is padding; None if nothing is.
        position: integer scalar, how many positions are filled.
    """

    layers: tuple[LayerCache, ...]
    mask: Tensor
    encoder_mask: Tensor | None
    position: Tensor

    @property
    def max_length(self) -> int:
        """How many positions there is room for."""
        return self.mask.shape[1]

    @classmethod
    def empty(
        cls,
        layers: int,
        batch: int,
        heads: int,
        max_length: int,
        width: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> KeyValueCache:
        """Make one with room for `max_length` positions of heads of a width."""
        shape = (batch, heads, max_length, width)

        def zeros() -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            layers=tuple(LayerCache(zeros(), zeros()) for _ in range(layers)),
            mask=torch.zeros(batch, max_length, dtype=torch.bool, device=device),
            encoder_mask=None,
            position=torch.zeros((), dtype=torch.int64, device=device),
        )

    def remember(self, attention_mask: Tensor | None, positions: Tensor) -> Tensor:
        """Return the mask with what a call says, written in place.

        Args:
            attention_mask: `[batch, length]` of the call's positions, or longer, of all from the first; None keeps all.
            positions: integers `[length]`, where the call's positions stand.
        """
        if attention_mask is not None and attention_mask.shape[1] != len(positions):
            self.mask[:, : attention_mask.shape[1]] = attention_mask.bool()
            return self.mask
        if attention_mask is None:
            attention_mask = self.mask.new_ones(self.mask.shape[0], len(positions))
        return write(self.mask, attention_mask.bool(), positions, axis=1)

    def with_room(self, max_length: int) -> KeyValueCache:
        """Return a cache with room for `max_length` positions, of one that is full."""
        room = max_length - self.max_length
        layers = tuple(
            layer._replace(key=F.pad(layer.key, (0, 0, 0, room)), value=F.pad(layer.value, (0, 0, 0, room)))
            for layer in self.layers
        )
        return self._replace(layers=layers, mask=F.pad(self.mask, (0, room)))


def write(buffer: Tensor, values: Tensor, positions: Tensor, axis: int) -> Tensor:
    """Write values into a buffer, in place, at positions `[length]` that follow each other along an axis; return it."""
    return buffer.index_copy_(axis, positions, values.to(buffer.dtype))
