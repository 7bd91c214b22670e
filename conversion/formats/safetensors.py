"""The safetensors form: checked by the safetensors library, read and written one tensor at a time."""

from __future__ import annotations

import json
import mmap
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from ...errors import CheckpointError
from .base import About, TensorLike, aligned_empty, byte_size, elements_of
from .digest import digest_of_all, digest_of_elements

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}

_DIGEST = "sha256"
"""The metadata's key of the digest of all tensors (see `digest_of_all`), which files written here carry."""
_NO_DIGEST = "0" * 64

# The file's byte order must be the machine's, and Windows lets no file be replaced while it is mapped.
_CAN_MAP = sys.byteorder == "little" and os.name == "posix"

# The elements begin at a multiple of it, so that most tensors do: where vector instructions want them.
_ALIGNMENT = 64


def recognises(path: Path) -> bool:
    """Say whether a file begins with a length and a JSON object."""
    with open(path, "rb") as file:
        begin = file.read(9)
    length = int.from_bytes(begin[:8], "little")
    return begin[8:] == b"{" and 2 <= length <= path.stat().st_size - 8


class SafetensorsFile:
    """One open `.safetensors` file.

    The library maps a file into memory and copies tensors out of it, so that in the end both are resident. Here it
    checks the header, and tensors are read from the file into arrays of their own.

    Raises:
        CheckpointError: the file is cut short or is not of this form.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, framework="np"):
                self._file = open(path, "rb")  # noqa: SIM115  it is open until `close`
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} cannot be read as safetensors ({error}): it is damaged or was not copied whole. "
                "Fetch or save it again."
            ) from error
        length = int.from_bytes(self._file.read(8), "little")
        header = json.loads(self._file.read(length))
        self._digest = header.pop("__metadata__", {}).get(_DIGEST)
        self._entries = dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"]))
        self._data = 8 + length
        self._map: mmap.mmap | None = None

    def names(self) -> tuple[str, ...]:
        """Return the tensors' names, in the file's order."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return tuple(self._entries[name]["shape"])

    def dtype(self, name: str) -> str:
        """Return a tensor's dtype as NumPy calls it; one that cannot be read here, as the file calls it."""
        code: str = self._entries[name]["dtype"]
        return _DTYPES[code].name if code in _DTYPES else code

    def read(self, name: str) -> np.ndarray:
        """Read one tensor.

        Raises:
            CheckpointError: the tensor is of a dtype that is not supported, or the file has become shorter.
        """
        code = self._entries[name]["dtype"]
        if code not in _DTYPES:
            raise CheckpointError(
                f"{self.path}: tensor {name} has dtype {code}, which is not supported; "
                f"supported: {', '.join(dtype.name for dtype in _CODES)}."
            )
        array = aligned_empty(self.shape(name), _DTYPES[code])
        self._file.seek(self._data + self._entries[name]["data_offsets"][0])
        if self._file.readinto(array.reshape(-1).view(np.uint8).data) < array.nbytes:
            raise CheckpointError(f"{self.path} ends within tensor {name}: it was cut short after it had been opened.")
        return array.byteswap() if sys.byteorder == "big" else array

    def view(self, name: str) -> np.ndarray:
        """Return one tensor as a view of the file, which is mapped into memory: a page is read when it is first used.

        What is written to the array stays in the process's own memory; the file is as it was. The array lives on after
        `close`, and if another file takes this one's place by a rename. It does not if this file itself is written to
        or cut short: then the array changes, or using it ends the process.

        Where a tensor cannot be used as it lies in the file, it is read.

        Raises:
            CheckpointError: as `read`.
        """
        dtype = _DTYPES.get(self._entries[name]["dtype"])
        begin = self._data + self._entries[name]["data_offsets"][0]
        end = self._data + self._entries[name]["data_offsets"][1]
        if dtype is None or begin == end or begin % dtype.itemsize or not _CAN_MAP:
            return self.read(name)
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        if end > min(len(self._map), os.fstat(self._file.fileno()).st_size):
            return self.read(name)
        count = (end - begin) // dtype.itemsize
        return np.frombuffer(self._map, dtype, count, begin).reshape(self.shape(name))

    def check(self, digest: Callable[[str], str]) -> None:
        """Compare the tensors with the digest in the header, if there is one.

        Raises:
            CheckpointError: they differ.
        """
        if self._digest is not None and digest_of_all({name: digest(name) for name in self.names()}) != self._digest:
            raise CheckpointError(
                f"{self.path} has changed since it was written: its tensors are not those of the digest in its header. "
                "It is damaged; fetch or save it again."
            )

    def close(self) -> None:
        """Let go of the file; views of it keep it mapped."""
        self._file.close()
        self._map = None


def write(path: Path, tensors: Mapping[str, TensorLike], about: About | None = None) -> None:
    """Write tensors into one file, with no more than one of them in memory.

    The library's own writer wants all of a file's tensors at once, which for a lazily converted checkpoint would be
    all of its memory; hence this one. The layout is the format's: the header's length as 8 bytes, the header as JSON
    padded with blanks, so that the elements begin at a multiple of 64, then the elements, little-endian, without gaps.
    The header says `format: pt`, which other readers insist on, and has the digest of the tensors, filled in at the
    end.

    Raises:
        CheckpointError: a tensor's dtype has no place in this form.
    """
    # The widest elements first, so that every tensor begins at a multiple of its element's size.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", _DIGEST: _NO_DIGEST}}
    end = 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + byte_size(tensor)
        header[name] = {"dtype": _code(name, tensor), "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        digests = {}
        known = about.digests if about is not None else {}
        for name in order:
            tensor = tensors[name]
            elements = elements_of(name, tensor)
            file.write(elements)
            digests[name] = known.get(name) or digest_of_elements(tensor.dtype.name, tensor.shape, elements)
        file.seek(8 + text.index(_NO_DIGEST.encode()))
        file.write(digest_of_all(digests).encode())


def _code(name: str, tensor: TensorLike) -> str:
    code = _CODES.get(tensor.dtype.newbyteorder("="))
    if code is None:
        raise CheckpointError(
            f"tensor {name} has dtype {tensor.dtype}, which safetensors cannot hold here; "
            f"it can hold {', '.join(dtype.name for dtype in _CODES)}."
        )
    return code
