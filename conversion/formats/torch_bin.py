"""The form of older Hub checkpoints, `pytorch_model.bin`: a pickle, of which nothing but tensors is read."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ...errors import CheckpointError, MissingDependencyError
from .base import TensorLike, aligned_empty

# How much of a mapped file may be resident, in bytes, before it is let go of and mapped anew.
_MOST_MAPPED = 2**28


class TorchBinFile:
    """One open `.bin` file. Only tensors are unpickled; anything else is refused, since unpickling can run code.

    Raises:
        CheckpointError: the file is damaged, or holds something other than tensors by name.
        MissingDependencyError: torch is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tensors = _load(path)
        self._touched = 0

    def names(self) -> tuple[str, ...]:
        """Return the tensors' names, in the file's order."""
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> str:
        """Return a tensor's dtype as NumPy calls it."""
        return str(self._tensors[name].dtype).removeprefix("torch.")

    def read(self, name: str) -> np.ndarray:
        """Read one tensor, as an array of its own: the file's tensors may share memory with each other.

        Raises:
            CheckpointError: the tensor is sparse, quantised or of a dtype that NumPy lacks.
        """
        torch = _torch(self.path)
        tensor = self._tensors[name].detach()
        try:
            if tensor.dtype == torch.bfloat16:
                # NumPy itself has no bfloat16: the bits pass through an integer of the same width.
                held: np.ndarray = tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
            else:
                held = tensor.numpy()
        except (TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.path}: tensor {name} ({tensor.dtype}, {tensor.layout}) has no NumPy form: {error}"
            ) from error
        copy = aligned_empty(held.shape, held.dtype)
        copy[...] = held
        self._touched += copy.nbytes
        if self._touched > _MOST_MAPPED and _is_archive(self.path):
            # What has been read stays in memory for as long as the file is mapped, beside the copies.
            del tensor, held
            self._tensors = {}
            self._tensors, self._touched = _load(self.path), 0
        return copy

    def close(self) -> None:
        """Let go of the file."""
        self._tensors = {}


def write(path: Path, tensors: Mapping[str, TensorLike], metadata: Mapping[str, str]) -> None:
    """Write tensors into one file. The form holds no metadata; a whole file's tensors are in memory at once.

    Raises:
        CheckpointError: a tensor's dtype has no torch counterpart.
        MissingDependencyError: torch is not installed.
    """
    torch = _torch(path)
    state = {}
    for name, tensor in tensors.items():
        array = np.ascontiguousarray(np.asarray(tensor)).reshape(tensor.shape)
        try:
            if array.dtype == ml_dtypes.bfloat16:
                state[name] = torch.tensor(array.view(np.int16)).view(torch.bfloat16)
            else:
                state[name] = torch.tensor(array)
        except TypeError as error:
            raise CheckpointError(f"tensor {name} has dtype {array.dtype}, which torch cannot hold.") from error
    torch.save(state, path)


def _torch(path: Path) -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{path.name} is a torch file and torch is not installed: pip install 'isobert[pt]', "
            "or use the safetensors form."
        ) from error
    return torch


def _is_archive(path: Path) -> bool:
    """Say whether a file can be mapped into memory: those of torch before 1.6 cannot."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _load(path: Path) -> dict[str, Any]:
    """Unpickle a file's tensors."""
    torch = _torch(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))
    except Exception as error:
        raise CheckpointError(_why_unreadable(path, error)) from error
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, where tensors by name were expected.")
    others = [str(name) for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise CheckpointError(
            f"{path} should hold tensors by name alone, and {', '.join(others[:5])} "
            f"{'is' if len(others) == 1 else 'are'} something else. If this is a training checkpoint, save its "
            "state_dict alone."
        )
    return dict(state)


def _why_unreadable(path: Path, error: Exception) -> str:
    """Tell a file that asks for code from one that is merely damaged."""
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and asked:
        return (
            f"{path} is refused: besides tensors it asks for Python's {asked.group(1)}, and reading that can run code. "
            "If you trust its author, have the tensors saved alone, best as safetensors."
        )
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return f"{path} cannot be read as a torch file ({reason}): it is damaged or was not copied whole. Fetch it again."
