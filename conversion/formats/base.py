"""What a form of checkpoint must offer, and a tensor that is read or computed only when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ...errors import CheckpointError


class TensorFile(Protocol):
    """One open file of tensors. Shapes and dtypes are known without reading the tensors."""

    def names(self) -> Sequence[str]:
        """Return the tensors' names, in the file's order."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""

    def dtype(self, name: str) -> str:
        """Return a tensor's dtype as NumPy calls it, such as "float32" or "bfloat16"."""

    def read(self, name: str) -> np.ndarray:
        """Read one tensor."""

    def check(self, digest: Callable[[str], str]) -> None:
        """Compare the checksums that the form keeps with the content.

        Args:
            digest: returns the digest of a tensor by its name.

        Raises:
            CheckpointError: a checksum is not that of the content.
        """

    def close(self) -> None:
        """Let go of the file."""


class TensorLike(Protocol):
    """What can be written: a NumPy array, or anything that knows its shape and dtype and can become one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype."""

    def __array__(self, dtype: Any = None, /) -> np.ndarray: ...


@dataclass(frozen=True)
class About:
    """What a form may want to write beside the tensors.

    Attributes:
        config: the model's config; None if there is none, which forms that name the model's class refuse.
        head: the model's name after its family's, such as "ForMaskedLM"; "Model" is the bare encoder.
        optimizer: the variables of the model's optimizer by number, for Keras's files.
        compiled: what Keras notes of how the model was compiled; nothing if it was not.
        digests: those of the tensors that have been loaded, by name, so that they need not be computed again.
    """

    config: Any = None
    head: str = "Model"
    optimizer: Mapping[str, TensorLike] = field(default_factory=dict)
    compiled: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LazyTensor:
    """A tensor whose shape and dtype are known now and whose numbers are fetched when they are written.

    A checkpoint of any size can so be written while one tensor at a time is in memory.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[], np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.load()
        return array if dtype is None else array.astype(dtype, copy=False)


# What vector instructions want, and TensorFlow of memory that it is to take over.
_ALIGNMENT = 64


def aligned_empty(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """Return an array of any content whose memory begins at a multiple of 64 bytes.

    Large memory that nothing has been written to yet takes up an address and no room.

    Example:
        >>> aligned_empty((2, 3), np.dtype(np.float32)).ctypes.data % 64
        0
    """
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    return memory[begin : begin + size].view(dtype).reshape(shape)


def aligned(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return an array in this dtype, row by row, in memory as of `aligned_empty`: itself if it is so, else a copy."""
    if array.dtype == dtype and array.flags.c_contiguous and array.ctypes.data % _ALIGNMENT == 0:
        return array
    copy = aligned_empty(array.shape, dtype)
    copy[...] = array
    return copy


def byte_size(tensor: TensorLike) -> int:
    """Return the number of bytes of a tensor's elements."""
    return int(np.prod(tensor.shape, dtype=np.int64)) * tensor.dtype.itemsize


def elements_of(name: str, tensor: TensorLike) -> memoryview:
    """Return a tensor's elements row by row, little-endian, as bytes.

    Raises:
        CheckpointError: the tensor came in another shape or dtype than it was announced in.
    """
    array = np.asarray(tensor)
    if array.shape != tuple(tensor.shape) or array.dtype != tensor.dtype:
        # What was announced is already written; a tensor that differs from it would spoil all after it.
        raise CheckpointError(
            f"tensor {name} was announced as {tensor.dtype} {tuple(tensor.shape)} "
            f"and came as {array.dtype} {array.shape}."
        )
    little = array.astype(array.dtype.newbyteorder("<"), copy=False) if array.dtype.byteorder == ">" else array
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8).data
