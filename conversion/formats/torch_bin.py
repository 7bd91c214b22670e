"""The form of older Hub checkpoints, `pytorch_model.bin`: a pickle, of which nothing but tensors is read."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ...errors import CheckpointError, MissingDependencyError
from .base import About, TensorLike, aligned_empty, elements_of

# How much of a mapped file may be resident, in bytes, before it is let go of and mapped anew.
_MOST_MAPPED = 2**28


# How a pickle begins.
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


def recognises(path: Path) -> bool:
    """Say whether a file is an archive of torch or a pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(re.fullmatch(r"[^/]+/data\.pkl", name) for name in archive.namelist())
    except Exception:  # damaged, or no archive
        with open(path, "rb") as file:
            return file.read(2) in _PICKLES


class TorchBinFile:
    """One open `.bin` file. Only tensors are unpickled; anything else is refused, since unpickling can run code.

    Args:
        path: the file.
        pick: returns the tensors of what the file holds, by name; None if it holds nothing else.

    Raises:
        CheckpointError: the file is damaged, or holds something other than tensors by name.
        MissingDependencyError: torch is not installed.
    """

    def __init__(self, path: Path, pick: Callable[[Any, Path], dict[str, Any]] | None = None) -> None:
        self.path = path
        self._pick = pick or _tensors_by_name
        self._tensors = self._pick(unpickle(path), path)
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
            self._tensors, self._touched = self._pick(unpickle(self.path), self.path), 0
        return copy

    def check(self, digest: Callable[[str], str]) -> None:
        """Compare each part of the archive with its checksum; files of torch before 1.6 have none.

        Raises:
            CheckpointError: they differ.
        """
        if not _is_archive(self.path):
            return
        try:
            with zipfile.ZipFile(self.path) as archive:
                for entry in archive.infolist():
                    if entry.CRC == 0:  # torch can be told to leave them out
                        continue
                    with archive.open(entry) as part:
                        while part.read(2**20):
                            pass
        except Exception as error:  # the library has no error of its own for each kind of damage
            raise CheckpointError(f"{self.path} is damaged ({error}). Fetch it again.") from error

    def close(self) -> None:
        """Let go of the file."""
        self._tensors = {}


def write(path: Path, tensors: Mapping[str, TensorLike], about: About | None = None) -> None:
    """Write tensors into one file, as `torch.save` does, with no more than one of them in memory.

    `torch.save` wants all tensors at once. So it first writes the archive of tensors that were never filled, with holes
    in place of their elements, which takes no room; then that archive is copied, each hole filled when its turn comes.

    Raises:
        CheckpointError: a tensor's dtype has no torch counterpart.
        MissingDependencyError: torch is not installed.
    """
    save({name: hollow_tensor(name, tensor, path) for name, tensor in tensors.items()}, tensors, path)


def hollow_tensor(name: str, tensor: TensorLike, path: Path) -> Any:
    """Return a torch tensor of a tensor's shape and dtype that was never filled, which takes up no room, for a file.

    Raises:
        CheckpointError: the dtype has no torch counterpart.
        MissingDependencyError: torch is not installed.
    """
    torch = _torch(path)
    return torch.empty(tensor.shape, dtype=_torch_dtype(torch, name, tensor))


def save(state: Any, tensors: Mapping[str, TensorLike], path: Path) -> None:
    """Write what `torch.save` can write, with the elements of its tensors taken from elsewhere, one at a time.

    Args:
        state: anything made of plain values and `hollow_tensor`s.
        tensors: what the hollow tensors stand for, in the order in which they come in `state`.
        path: the file.
    """
    torch = _torch(path)
    hollow = path.with_name(f"{path.name}.hollow")
    try:
        try:
            with torch.serialization.skip_data():
                torch.save(state, hollow)
        except RuntimeError as error:
            # So torch says that it could not write.
            raise OSError(str(error).splitlines()[0]) from error
        with zipfile.ZipFile(hollow) as source, zipfile.ZipFile(path, "w") as target:
            # The elements of each tensor are an entry of their own, numbered in the order of the tensors.
            waiting = iter(tensors.items())
            for entry in source.infolist():
                if re.fullmatch(r"[^/]+/data/\d+", entry.filename):
                    content = elements_of(*next(waiting))
                    assert len(content) == entry.file_size
                else:
                    content = memoryview(source.read(entry))
                # torch calls the archive's folder after the file, whose name is a passing one.
                _store(target, f"archive/{entry.filename.partition('/')[2]}", content)
    finally:
        hollow.unlink(missing_ok=True)


def _torch_dtype(torch: Any, name: str, tensor: TensorLike) -> Any:
    found = getattr(torch, tensor.dtype.name, None)
    if not isinstance(found, torch.dtype):
        raise CheckpointError(f"tensor {name} has dtype {tensor.dtype}, which torch cannot hold.")
    return found


def _store(archive: zipfile.ZipFile, name: str, content: memoryview) -> None:
    """Add an entry whose content begins at a multiple of 64 bytes, as torch wants it for mapping."""
    entry = zipfile.ZipInfo(name)
    entry.file_size = len(content)
    assert archive.fp is not None
    # Content follows a header of fixed length, the name, and extra fields: of sizes beyond 2 GiB, and of our padding.
    header = 30 + len(name.encode()) + (20 if entry.file_size * 1.05 > zipfile.ZIP64_LIMIT else 0) + 4
    padding = -(archive.fp.tell() + header) % 64
    entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    with archive.open(entry, "w") as file:
        file.write(content)


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


def unpickle(path: Path) -> Any:
    """Return what a file holds: tensors, whose elements stay on the disk until they are asked for, and plain values.

    Raises:
        CheckpointError: the file is damaged, or asks for code.
        MissingDependencyError: torch is not installed.
    """
    torch = _torch(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))
    except Exception as error:
        raise CheckpointError(_why_unreadable(path, error)) from error


def _tensors_by_name(state: Any, path: Path) -> dict[str, Any]:
    """Return a file's content, which should be tensors alone."""
    torch = _torch(path)
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
