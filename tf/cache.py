"""What a decoder remembers between steps, in tensors of one size from the first step to the last."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops


class LayerCache(NamedTuple):
    """The keys and values that one layer of a decoder has computed.

    Attributes:
        key: `[batch, heads, max_length, width of a head]`; what is not filled yet is zero.
        value: shaped like `key`.
        cross_key: the keys of an encoder's output, `[batch, heads, encoder's length, width of a head]`, or None.
        cross_value: shaped like `cross_key`.
    """

    key: Any
    value: Any
    cross_key: Any = None
    cross_value: Any = None


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
    mask: Any
    encoder_mask: Any
    position: Any

    @property
    def max_length(self) -> int:
        """How many positions there is room for."""
        return int(self.mask.shape[1])

    @classmethod
    def empty(cls, layers: int, batch: int, heads: int, max_length: int, width: int, *, dtype: str) -> KeyValueCache:
        """Make one with room for `max_length` positions of heads of a width."""
        shape = (batch, heads, max_length, width)
        return cls(
            layers=tuple(LayerCache(ops.zeros(shape, dtype), ops.zeros(shape, dtype)) for _ in range(layers)),
            mask=ops.zeros((batch, max_length), "bool"),
            encoder_mask=None,
            position=ops.zeros((), "int32"),
        )

    def remember(self, attention_mask: Any, positions: Any) -> Any:
        """Return the mask with what a call says.

        Args:
            attention_mask: `[batch, length]` of the call's positions, or longer, of all from the first; None keeps all.
            positions: integers `[length]`, where the call's positions stand.
        """
        if attention_mask is None:
            attention_mask = ops.ones((ops.shape(self.mask)[0], ops.shape(positions)[0]), "bool")
        attention_mask = ops.cast(attention_mask, "bool")
        is_of_all = attention_mask.shape[1] != positions.shape[0]
        return write(self.mask, attention_mask, ops.zeros_like(positions) if is_of_all else positions, axis=1)

    def with_room(self, max_length: int) -> KeyValueCache:
        """Return a cache with room for `max_length` positions, of one that is full."""
        room = max_length - ops.shape(self.mask)[1]

        def grown(values: Any) -> Any:
            return ops.pad(values, [(0, 0), (0, 0), (0, room), (0, 0)])

        layers = tuple(layer._replace(key=grown(layer.key), value=grown(layer.value)) for layer in self.layers)
        return self._replace(layers=layers, mask=ops.pad(self.mask, [(0, 0), (0, room)]))


def write(buffer: Any, values: Any, positions: Any, axis: int) -> Any:
    """Return a buffer with values written at positions `[length]` that follow each other along an axis.

    TensorFlow has no gradient of it.
    """
    start = [positions[0] if i == axis else 0 for i in range(len(buffer.shape))]
    return ops.slice_update(buffer, start, ops.cast(values, buffer.dtype))
