"""Checkpoints as folders: opening one in any form, and writing one so that a crash never loses the old one."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np

from ..core.hub import make_folder, read_json, resolve_file, write_json
from ..errors import CheckpointError, CheckpointNotFoundError, InputError
from .formats import FORMS, Form, LazyTensor, TensorFile, TensorLike, form_of
from .formats.base import byte_size
from .matching import LoadPlan, LoadReport, match_tensors

__all__ = [
    "Checkpoint",
    "LazyTensor",
    "LoadPlan",
    "LoadReport",
    "match_tensors",
    "open_checkpoint",
    "parse_size",
    "write_checkpoint",
]

_STAGING = ".saving-"


class Checkpoint:
    """The tensors of one open checkpoint, whatever its form and however many its files.

    A context manager. Shapes and dtypes are known at once; a tensor is read when asked for.

    Attributes:
        form: the form's name, such as "safetensors".
        files: the files that hold the tensors, in order.
    """

    def __init__(self, form: str, files: Mapping[Path, TensorFile]) -> None:
        self.form = form
        self.files = tuple(files)
        self._holders = {name: file for file in files.values() for name in file.names()}
        self._open = tuple(files.values())

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, name: object) -> bool:
        return name in self._holders

    def __len__(self) -> int:
        return len(self._holders)

    def names(self) -> tuple[str, ...]:
        """Return the names of all tensors, file by file."""
        return tuple(self._holders)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, without reading it."""
        return self._holder(name).shape(name)

    def dtype(self, name: str) -> str:
        """Return a tensor's dtype as NumPy calls it ("float32", "bfloat16"), without reading it."""
        return self._holder(name).dtype(name)

    def read(self, name: str) -> np.ndarray:
        """Read one tensor; bfloat16 comes as `ml_dtypes.bfloat16`. The array is the caller's to alter.

        Raises:
            CheckpointError: there is no such tensor, or it is of a dtype that is not supported.
        """
        return self._holder(name).read(name)

    def close(self) -> None:
        """Let go of the files."""
        for file in self._open:
            file.close()

    def _holder(self, name: str) -> TensorFile:
        try:
            return self._holders[name]
        except KeyError:
            raise CheckpointError(f"{self.files[0].parent} holds no tensor {name}.") from None


def open_checkpoint(name_or_path: str | os.PathLike[str]) -> Checkpoint:
    """Open the checkpoint of a folder or of a Hub repository.

    Looked for, in this order: `model.safetensors`, its shards by `model.safetensors.index.json`, `pytorch_model.bin`,
    its shards by `pytorch_model.bin.index.json`.

    Raises:
        CheckpointNotFoundError: none of them is there, or a shard is missing.
        CheckpointError: a file is damaged, or index and shards disagree.
        MissingDependencyError: the checkpoint is a torch file and torch is not installed.

    Example:
        >>> import tempfile, numpy as np
        >>> folder = tempfile.mkdtemp()
        >>> _ = write_checkpoint(folder, {"a": np.arange(3.0)})
        >>> with open_checkpoint(folder) as checkpoint:
        ...     print(checkpoint.names(), checkpoint.shape("a"), checkpoint.dtype("a"), checkpoint.read("a"))
        ('a',) (3,) float64 [0. 1. 2.]
    """
    looked_for = []
    for form in FORMS.values():
        looked_for += [form.file_name, form.index_name]
        whole = resolve_file(name_or_path, form.file_name, required=False)
        if whole is not None:
            return Checkpoint(form.name, {whole: form.open(whole)})
        index = resolve_file(name_or_path, form.index_name, required=False)
        if index is not None:
            return _open_shards(name_or_path, form, index)
    folder = Path(name_or_path).expanduser()
    held = ", ".join(sorted(entry.name for entry in folder.iterdir())) if folder.is_dir() else ""
    raise CheckpointNotFoundError(
        f"{name_or_path} holds no checkpoint that isobert opens: none of {', '.join(looked_for)}"
        + (f" among {held}." if held else ".")
    )


def _open_shards(name_or_path: str | os.PathLike[str], form: Form, index: Path) -> Checkpoint:
    """Open all shards that an index names and hold them to what it says."""
    where = _read_index(index)
    paths: dict[str, Path] = {}
    for shard in dict.fromkeys(where.values()):
        path = resolve_file(name_or_path, shard, required=False)
        if path is not None:
            paths[shard] = path
    absent = sorted(set(where.values()) - set(paths))
    if absent:
        raise CheckpointNotFoundError(f"{index} names shards that are not there: {', '.join(absent)}.")
    opened: dict[Path, TensorFile] = {}
    try:
        for path in paths.values():
            opened[path] = form.open(path)
        _check_shards(index, where, {shard: opened[path] for shard, path in paths.items()})
    except BaseException:
        for file in opened.values():
            file.close()
        raise
    return Checkpoint(form.name, opened)


def _read_index(index: Path) -> dict[str, str]:
    """Return an index's map from a tensor to its shard, each a plain path inside the folder."""
    where = read_json(index, "index of shards").get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(shard, str) for shard in where.values()):
        raise CheckpointError(f"{index}: `weight_map` should map each tensor's name to the name of a shard.")
    for shard in where.values():
        path = PurePosixPath(shard)
        if path.is_absolute() or ".." in path.parts or "\\" in shard or ":" in shard or not path.parts:
            raise CheckpointError(f"{index} names the shard {shard!r}, which is not a file inside its own folder.")
    return where


def _check_shards(index: Path, where: Mapping[str, str], shards: Mapping[str, TensorFile]) -> None:
    """Raise when a tensor is not in the shard that the index names, or lies in two."""
    held = {shard: set(file.names()) for shard, file in shards.items()}
    lacking = [f"{name} (in {shard})" for name, shard in where.items() if name not in held[shard]]
    if lacking:
        raise CheckpointError(f"{index} names tensors that their shards do not hold: {_listed(lacking)}.")
    seen: dict[str, str] = {}
    for shard, names in held.items():
        for name in sorted(names):
            if name in seen:
                raise CheckpointError(f"{index}: tensor {name} lies in two shards, {seen[name]} and {shard}.")
            seen[name] = shard


def _listed(items: list[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def write_checkpoint(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, TensorLike],
    *,
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
    form: str = "safetensors",
) -> list[Path]:
    """Write tensors as the checkpoint of a folder and return the files that hold them.

    The new files are written beside the old ones and then moved into place, so that at every moment the folder holds
    one complete checkpoint: the old one until the new is there. Files of an earlier save that the new one does not
    overwrite (shards of another count, an index) are removed last.

    Args:
        folder: made if need be.
        tensors: NumPy arrays by name, or `LazyTensor`s, which are loaded one at a time.
        max_shard_size: bytes, or a text such as "5GB" or "500MiB"; a checkpoint above it is written in shards.
        metadata: a few words for the header of a safetensors file. By default `{"format": "pt"}`, which other readers
            of the Hub's checkpoints insist on.
        form: "safetensors" or "torch-bin".

    Raises:
        CheckpointError: there is nothing to write, a tensor's dtype has no place in the form, the folder is a file, or
            it holds a checkpoint in a form that is read before this one.
        InputError: the size cannot be understood.
        UnknownNameError: no form is called so.
    """
    kind = form_of(form)
    shards = _split(tensors, parse_size(max_shard_size))
    if not shards:
        raise CheckpointError(f"there are no tensors to write to {folder}.")
    target = Path(folder).expanduser()
    make_folder(target)
    _refuse_hidden(target, kind)
    staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=target))
    names = [kind.shard_name(i + 1, len(shards)) for i in range(len(shards))] if len(shards) > 1 else [kind.file_name]
    try:
        for name, shard in zip(names, shards, strict=True):
            kind.write(staging / name, shard, {"format": "pt"} if metadata is None else metadata)
            _flush(staging / name)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    if len(shards) == 1:
        # Readers take this file before any index, so moving it is the moment at which the new checkpoint counts.
        os.replace(staging / kind.file_name, target / kind.file_name)
        (target / kind.index_name).unlink(missing_ok=True)
    else:
        _publish_shards(target, staging, kind, dict(zip(names, shards, strict=True)))
        (target / kind.file_name).unlink(missing_ok=True)
    _remove_stale(target, kind, keep=set(names))
    return [target / name for name in names]


def _refuse_hidden(target: Path, form: Form) -> None:
    """Raise where a checkpoint in another form lies in the folder and would be read instead of the new one."""
    for other in FORMS.values():
        if other is form:
            return
        held = next((name for name in (other.file_name, other.index_name) if (target / name).exists()), None)
        if held is not None:
            raise CheckpointError(
                f"{target} holds {held}, which is read before any {form.file_name}: the new checkpoint would not be "
                "seen. Write to another folder, or remove that file."
            )


def _publish_shards(target: Path, staging: Path, form: Form, shards: Mapping[str, Mapping[str, TensorLike]]) -> None:
    """Move finished shards and their index into place.

    Where an earlier save had as many shards, the names are the same, and replacing them one by one would for a while
    mix old and new. So the index first points at the finished shards where they lie, which is one atomic step; then
    they get their own names as well; then the index points there.
    """

    def write_index(prefix: str) -> None:
        sizes = [byte_size(tensor) for shard in shards.values() for tensor in shard.values()]
        where = {name: prefix + file for file, shard in shards.items() for name in shard}
        write_json(staging / form.index_name, {"metadata": {"total_size": sum(sizes)}, "weight_map": where})
        os.replace(staging / form.index_name, target / form.index_name)

    overwrites = any((target / name).exists() for name in shards)
    if overwrites:
        write_index(f"{staging.name}/")
    for name in shards:
        if overwrites:
            second = staging / f"{name}.second"
            try:
                os.link(staging / name, second)
            except OSError:  # a file system without hard links
                shutil.copyfile(staging / name, second)
                _flush(second)
            os.replace(second, target / name)
        else:
            os.replace(staging / name, target / name)
    write_index("")


def _remove_stale(target: Path, form: Form, keep: set[str]) -> None:
    """Remove the shards of earlier saves, and what interrupted saves left behind."""
    stem, _, suffix = form.file_name.rpartition(".")
    shard = re.compile(rf"{re.escape(stem)}-\d{{5}}-of-\d{{5}}\.{re.escape(suffix)}")
    for entry in target.iterdir():
        if entry.name.startswith(_STAGING) and entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif shard.fullmatch(entry.name) and entry.name not in keep:
            entry.unlink()


def _flush(path: Path) -> None:
    """Have a finished file on the disk before anything refers to it."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _split(tensors: Mapping[str, TensorLike], limit: int) -> list[dict[str, TensorLike]]:
    """Deal tensors, in their order, into shards of at most `limit` bytes; a larger tensor gets a shard of its own."""
    shards: list[dict[str, Any]] = []
    filled = 0
    for name, tensor in tensors.items():
        size = byte_size(tensor)
        if not shards or filled + size > limit:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
    return shards


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(size: int | str) -> int:
    """Return a size in bytes.

    Raises:
        InputError: it is not a positive number of bytes.

    Example:
        >>> parse_size("5GB"), parse_size("1.5KiB"), parse_size(300)
        (5000000000, 1536, 300)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(size))
    unit = _UNITS.get(found.group(2).upper()) if found else None
    count = int(float(found.group(1)) * unit) if found and unit else 0
    if count < 1:
        raise InputError(f"size {size!r} is not a positive number of bytes such as 300, '500MB' or '5GiB'.")
    return count
