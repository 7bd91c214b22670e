"""Checkpoints as folders: opening one in any form, and writing one so that a crash never loses the old one."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..core.hub import make_folder, read_json, resolve_file, write_json
from ..errors import CheckpointError, CheckpointNotFoundError, InputError
from .formats import FORMS, About, Form, LazyTensor, TensorFile, TensorLike, form_of, recognised, writable_forms
from .formats.base import byte_size
from .formats.digest import digest_of
from .formats.foreign import ForeignFile
from .formats.safetensors import SafetensorsFile
from .formats.tf1_config import hub_config
from .matching import LoadPlan, LoadReport, match_tensors
from .shards import check_shards, parse_size, read_index, split_by_size

__all__ = [
    "Checkpoint",
    "LazyTensor",
    "LoadPlan",
    "LoadReport",
    "match_tensors",
    "open_checkpoint",
    "write_checkpoint",
]

_STAGING = ".saving-"


class Checkpoint:
    """The tensors of one open checkpoint, whatever its form and however many its files.

    A context manager. Shapes and dtypes are known at once; a tensor is read when asked for.

    Attributes:
        form: the form's name, such as "safetensors".
        files: the files that hold the tensors, in order.
        config: the content of its config, in the Hub's keys; None if there is none.
        left_out: tensors of a foreign form that have no place on the Hub, each with the reason.
        foreign_names: what a foreign form calls each tensor, by the Hub's name.
    """

    def __init__(self, form: str, files: Mapping[Path, TensorFile], config: dict[str, Any] | None = None) -> None:
        self.form = form
        self.files = tuple(files)
        self._holders = {name: file for file in files.values() for name in file.names()}
        self._open = tuple(files.values())
        foreign = [file for file in self._open if isinstance(file, ForeignFile)]
        self.config = config or next((file.config for file in foreign if file.config is not None), None)
        self.left_out = {name: reason for file in foreign for name, reason in file.left_out.items()}
        self.foreign_names = {name: told for file in foreign for name, told in file.foreign_names.items()}

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

    def view(self, name: str) -> np.ndarray:
        """Return one tensor in memory that the file is mapped to, if its form allows it (`SafetensorsFile.view`).

        The array is the caller's to alter, and the file stays as it is. Otherwise the tensor is read.

        Raises:
            CheckpointError: there is no such tensor, or it is of a dtype that is not supported.
        """
        holder = self._holder(name)
        return holder.view(name) if isinstance(holder, SafetensorsFile) else holder.read(name)

    def check(self, digests: Mapping[str, str] | None = None) -> None:
        """Compare the checksums that the forms of the files keep with their content.

        Args:
            digests: of tensors that were read, by name, which then need not be read again; see `digest_of`.

        Raises:
            CheckpointError: one differs from its content.
        """
        known = digests or {}
        for file in dict.fromkeys(self._open):
            file.check(lambda name: known.get(name) or digest_of(name, self.read(name)))

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
    """Open the checkpoint of a folder or of a Hub repository, or one file of a checkpoint in a single file.

    A form's own file names are looked for first, in the order of `formats.FORMS`, each followed by the index of its
    shards; then whatever else the folder holds. What a file is, its content says and not its name.

    Raises:
        CheckpointNotFoundError: there is none, or a shard is missing.
        CheckpointError: a file is damaged; index and shards disagree; or several files could be meant.
        MissingDependencyError: the form needs a framework that is not installed.

    Example:
        >>> import tempfile, numpy as np
        >>> folder = tempfile.mkdtemp()
        >>> _ = write_checkpoint(folder, {"a": np.arange(3.0)})
        >>> with open_checkpoint(folder) as checkpoint:
        ...     print(checkpoint.names(), checkpoint.shape("a"), checkpoint.dtype("a"), checkpoint.read("a"))
        ('a',) (3,) float64 [0. 1. 2.]
    """
    path = Path(name_or_path).expanduser()
    tf1_index = Path(f"{path}.index")
    if path.is_file() or tf1_index.is_file():
        # TensorFlow calls a checkpoint by its files' name less the suffix.
        return _open_file(path if path.is_file() else tf1_index, None, _config_in(path.parent))
    config = _config_in(name_or_path)
    looked_for = []
    for form in FORMS.values():
        if not form.file_name:
            continue
        looked_for += [form.file_name, form.index_name]
        whole = resolve_file(name_or_path, form.file_name, required=False)
        if whole is not None:
            return _open_file(whole, form, config)
        index = resolve_file(name_or_path, form.index_name, required=False)
        if index is not None:
            return _open_shards(name_or_path, form, index, config)
    if not path.is_dir():
        raise CheckpointNotFoundError(
            f"{name_or_path} holds no checkpoint that isobert opens: none of {', '.join(looked_for)}."
        )
    return _open_file(*_found_by_looking(path, looked_for), config)


def _config_in(name_or_path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the content of the Hub's config of a folder or repository; None if there is none."""
    path = resolve_file(name_or_path, "config.json", required=False)
    content = {} if path is None else read_json(path, "config")
    return content if "model_type" in content else None


def _found_by_looking(folder: Path, looked_for: list[str]) -> tuple[Path, Form | None]:
    """Return the one file of a folder that is a checkpoint under a name of its own, and its form."""
    for form in FORMS.values():
        if form.find is not None and (path := form.find(folder)) is not None:
            return path, form
    files = sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    found = [path for path in files if recognised(path) is not None]
    if not found:
        held = ", ".join(entry.name for entry in sorted(folder.iterdir()))
        raise CheckpointNotFoundError(
            f"{folder} holds no checkpoint that isobert opens: none of {', '.join(looked_for)}, and no other file of "
            f"their forms, among {held or 'nothing'}."
        )
    if len(found) > 1:
        raise CheckpointError(
            f"{folder} holds several checkpoints: {', '.join(path.name for path in found)}. Name the one that is meant."
        )
    return found[0], None


def _open_file(path: Path, named: Form | None, config: dict[str, Any] | None) -> Checkpoint:
    """Open a file in the form that its content shows, else in that of its name, which tells what is damaged."""
    form = recognised(path)
    if form is None:
        _refuse_stand_in(path)
        form = named
    if form is None:
        raise CheckpointError(f"{path} is damaged, or of no form that isobert opens: {', '.join(FORMS)}.")
    if config is None and form.name == "tf1":
        config = hub_config(path.parent, path)
    return Checkpoint(form.name, {path: form.open(path)}, config)


def _refuse_stand_in(path: Path) -> None:
    """Raise where something else lies under a checkpoint's name, as failed downloads leave it."""
    with open(path, "rb") as file:
        begin = file.read(64).lstrip()
    if begin.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a pointer of Git LFS and not the file itself: fetch that with `git lfs pull`."
        )
    if not begin or begin.startswith((b"<!", b"<html")):
        what = "a web page" if begin else "empty"
        raise CheckpointError(f"{path} is damaged: it is {what}, and no checkpoint. Fetch it again.")


def _open_shards(
    name_or_path: str | os.PathLike[str], form: Form, index: Path, config: dict[str, Any] | None
) -> Checkpoint:
    """Open all shards that an index names and hold them to what it says."""
    where = read_index(index)
    paths: dict[str, Path] = {}
    for shard in dict.fromkeys(where.values()):
        path = resolve_file(name_or_path, shard, required=False)
        if path is not None:
            paths[shard] = path
    absent = sorted(set(where.values()) - set(paths))
    if absent:
        raise CheckpointNotFoundError(f"{index} names shards that are not there: {', '.join(absent)}.")
    if form.open_shards is not None:
        for path in paths.values():
            _refuse_stand_in(path)
        return Checkpoint(form.name, dict.fromkeys(paths.values(), form.open_shards(index, where, paths)), config)
    opened: dict[Path, TensorFile] = {}
    try:
        for path in paths.values():
            _refuse_stand_in(path)
            opened[path] = form.open(path)
        check_shards(index, where, {shard: opened[path] for shard, path in paths.items()})
    except BaseException:
        for file in opened.values():
            file.close()
        raise
    return Checkpoint(form.name, opened, config)


def write_checkpoint(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, TensorLike],
    *,
    max_shard_size: int | str = "5GB",
    form: str = "safetensors",
    about: About | None = None,
) -> list[Path]:
    """Write tensors as the checkpoint of a folder and return the files that hold them.

    The new files are written beside the old ones and then moved into place, so that at every moment the folder holds
    one complete checkpoint: the old one until the new is there. Files of an earlier save that the new one does not
    overwrite (shards of another count, an index) are removed last.

    Args:
        folder: made if need be.
        tensors: NumPy arrays by name, or `LazyTensor`s, which are loaded one at a time.
        max_shard_size: bytes, or a text such as "5GB" or "500MiB"; a checkpoint above it is written in shards, if the
            form has any.
        form: its name; see `formats.FORMS`.
        about: the model, for forms that name it.

    Raises:
        CheckpointError: there is nothing to write, a tensor's dtype has no place in the form, the folder is a file, or
            it holds a checkpoint in a form that is read before this one.
        InputError: the size cannot be understood, or the form is only read.
        UnknownNameError: no form is called so.
    """
    kind = form_of(form)
    if kind.write is None:
        raise InputError(f"the form {form!r} is only read; write one of {', '.join(writable_forms())}.")
    limit = parse_size(max_shard_size)
    shards = split_by_size(tensors, limit) if kind.is_native else [dict(tensors)]
    if not any(shards):
        raise CheckpointError(f"there are no tensors to write to {folder}.")
    target = Path(folder).expanduser()
    make_folder(target)
    _refuse_hidden(target, kind)
    staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=target))
    names = [kind.shard_name(i + 1, len(shards)) for i in range(len(shards))] if len(shards) > 1 else [kind.file_name]
    try:
        for name, shard in zip(names, shards, strict=True):
            kind.write(staging / name, shard, about or About())
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
        if not other.file_name:
            continue
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
