"""Turning a checkpoint of one form into another, one tensor at a time."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ..core.config import DTYPE_KEYS
from ..core.hub import read_json, resolve_file, write_json
from ..errors import CheckpointError, InputError
from .checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from .formats import FORMS, LazyTensor, form_of
from .names import FAMILY_NAMES, FamilyNames

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "sentencepiece.model",
)
COMPANIONS = ("config.json", "generation_config.json", *TOKENIZER_FILES)
"""What goes along with the tensors."""

DTYPES: dict[str, np.dtype[Any]] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

Progress = Callable[[str, int, int], None]
"""Called with a tensor's name, the bytes written so far and the bytes in all."""


@dataclass
class ConversionReport:
    """What a conversion did.

    Attributes:
        source_form, form: the forms it led from and to.
        files: the files that hold the tensors now.
        tensors: how many were written.
        parameters: how many numbers they hold.
        dtype: what floating tensors were cast to; None if they kept theirs.
        rounding: the largest |new - old| relative to its tensor's largest |old|, when casting lost anything.
        rounded_most: the tensor where that was.
        renamed: old names brought up to date, by the new name.
        left_out: tensors that only repeat a tied one, or carry no weights.
        copied: the files that went along.
    """

    source_form: str
    form: str
    files: tuple[Path, ...] = ()
    tensors: int = 0
    parameters: int = 0
    dtype: str | None = None
    rounding: float = 0.0
    rounded_most: str = ""
    renamed: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{self.source_form} to {self.form}: {self.tensors:,} tensors, {self.parameters:,} numbers, "
            f"{len(self.files)} file{'s' * (len(self.files) > 1)}"
        ]
        if self.dtype and self.rounding:
            lines.append(
                f"cast to {self.dtype}; the largest rounding error is {self.rounding:.1e} of its tensor's largest "
                f"value, in {self.rounded_most}"
            )
        elif self.dtype:
            lines.append(f"cast to {self.dtype} without rounding anything")
        if self.renamed:
            new, old = next(iter(self.renamed.items()))
            lines.append(f"{len(self.renamed)} names of an older form brought up to date ({old} is {new} now)")
        if self.left_out:
            lines.append(f"left out, since they repeat another tensor or hold no weights: {', '.join(self.left_out)}")
        lines.append(f"copied along: {', '.join(self.copied) or 'nothing'}")
        if "config.json" not in self.copied:
            lines.append("there was no config.json, without which no model can be opened: add one")
        return "\n".join(lines)


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    to: str = "safetensors",
    dtype: str | None = None,
    max_shard_size: int | str = "5GB",
    force: bool = False,
    progress: Progress | None = None,
) -> ConversionReport:
    """Write the checkpoint `src` into a new folder `dst`, in another form, dtype or number of shards.

    Config and tokenizer files go along. Names of older checkpoints are brought up to date. `dst` appears only when
    everything is in it.

    Args:
        src: a folder, or a repository of the Hub.
        dst: the new folder.
        to: the form, "safetensors" or "torch-bin".
        dtype: what to cast floating tensors to ("float32", "bfloat16", "float16", "float64"); None keeps theirs.
        max_shard_size: bytes, or a text such as "500MB"; a larger checkpoint is written in shards.
        force: replace `dst` if it exists and holds nothing but a checkpoint.
        progress: told of every tensor.

    Raises:
        InputError: `dst` exists and may not be replaced, or the dtype is not known.
        CheckpointNotFoundError: `src` holds no checkpoint.
        CheckpointError: `src` is damaged, or a number of it lies outside the range of `dtype`.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is not known; known: {', '.join(DTYPES)}.")
    form_of(to)
    target = Path(dst).expanduser()
    if Path(src).expanduser().resolve() == target.resolve():
        raise InputError(f"{dst} is the checkpoint itself; name a new folder.")
    check_target(target, force)
    with open_checkpoint(src) as checkpoint, appearing(target) as staging:
        report = ConversionReport(checkpoint.form, to, dtype=dtype, copied=_copy_companions(src, staging, dtype))
        kept = modern_names(checkpoint, _config(staging), report)
        tensors = _lazy_tensors(checkpoint, kept, dtype, report, progress)
        files = write_checkpoint(staging, tensors, max_shard_size=max_shard_size, form=to)
        report.files = tuple(target / file.name for file in files)
        report.tensors = len(tensors)
        report.parameters = sum(int(np.prod(tensor.shape, dtype=np.int64)) for tensor in tensors.values())
    return report


def check_target(target: Path, force: bool) -> None:
    """Raise when the target exists and may not be replaced: only a folder that is a checkpoint and nothing more may."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise InputError(f"{target} is a file; name a new folder.")
    if not force:
        raise InputError(f"{target} exists and is not empty; name a new folder, or replace it with force (--force).")
    weights = "|".join(
        re.escape(form.file_name) + r"(\.index\.json)?|" + re.escape(form.shard_name(0, 0)).replace("00000", r"\d{5}")
        for form in FORMS.values()
    )
    for entry in sorted(target.iterdir()):
        if entry.is_dir() or not (entry.name in COMPANIONS or re.fullmatch(weights, entry.name)):
            raise InputError(
                f"{target} holds {entry.name!r}, which is no part of a checkpoint and would be lost; "
                "move it away, or name a new folder."
            )


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target` that takes its place on success and vanishes on failure."""
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    staging = target.with_name(f".{target.name}.{mark}")
    staging.mkdir()
    try:
        yield staging
        if target.exists():
            old = target.with_name(f".{target.name}.{mark}.old")
            os.rename(target, old)
            try:
                os.rename(staging, target)
            except BaseException:
                os.rename(old, target)
                raise
            shutil.rmtree(old)
        else:
            os.rename(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _copy_companions(src: str | os.PathLike[str], staging: Path, dtype: str | None) -> tuple[str, ...]:
    """Copy config and tokenizer files; a config that states the tensors' dtype states the new one."""
    copied = []
    for name in COMPANIONS:
        path = resolve_file(src, name, required=False)
        if path is not None:
            shutil.copyfile(path, staging / name)
            copied.append(name)
    config = _config(staging)
    stated = {key for key in DTYPE_KEYS if isinstance(config.get(key), str)}
    if dtype is not None and stated:
        write_json(staging / "config.json", {**config, **dict.fromkeys(stated, dtype)})
    return tuple(copied)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return read_json(path, "config") if path.is_file() else {}


def modern_names(checkpoint: Checkpoint, config: Mapping[str, Any], report: ConversionReport) -> dict[str, str]:
    """Map today's name of every tensor worth keeping to the checkpoint's name of it; note the others."""
    table = FAMILY_NAMES.get(str(config.get("model_type")), FamilyNames(""))
    kept: dict[str, str] = {}
    for name in checkpoint.names():
        modern = table.modern(name)
        if modern in kept:
            raise CheckpointError(f"tensors {kept[modern]} and {name} are both {modern}; remove one of them.")
        kept[modern] = name
    report.left_out = tuple(name for modern, name in kept.items() if table.is_ignored(modern))
    for alias, source in table.tied:
        # An untied table that happens to equal its source says something that other readers would miss.
        is_tied = not alias.endswith(".weight") or config.get("tie_word_embeddings", True)
        if alias in kept and source in kept and is_tied and _equal(checkpoint, kept[alias], kept[source]):
            report.left_out += (kept[alias],)
    kept = {modern: name for modern, name in kept.items() if name not in report.left_out}
    report.renamed = {modern: name for modern, name in kept.items() if modern != name}
    return kept


def _equal(checkpoint: Checkpoint, first: str, second: str) -> bool:
    """Say whether two tensors are the same, bit for bit."""
    a, b = checkpoint.read(first), checkpoint.read(second)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _lazy_tensors(
    checkpoint: Checkpoint,
    kept: Mapping[str, str],
    dtype: str | None,
    report: ConversionReport,
    progress: Progress | None,
) -> dict[str, LazyTensor]:
    """Describe the tensors to write; each is read, cast and measured when its turn comes."""

    def describe(modern: str, name: str) -> LazyTensor:
        held = numpy_dtype(checkpoint, name)
        wanted = DTYPES[dtype] if dtype is not None and checkpoint.dtype(name) in DTYPES else held

        def load() -> np.ndarray:
            array = checkpoint.read(name)
            cast = array if array.dtype == wanted else _cast(modern, array, wanted, report)
            done[0] += cast.nbytes
            if progress is not None:
                progress(modern, done[0], total)
            return cast

        return LazyTensor(checkpoint.shape(name), wanted, load)

    done = [0]
    tensors = {modern: describe(modern, name) for modern, name in kept.items()}
    total = sum(int(np.prod(t.shape, dtype=np.int64)) * t.dtype.itemsize for t in tensors.values())
    return tensors


def numpy_dtype(checkpoint: Checkpoint, name: str) -> np.dtype[Any]:
    """Return the NumPy dtype that a tensor is read in, without reading it.

    Raises:
        CheckpointError: there is none.
    """
    stated = checkpoint.dtype(name)
    try:
        return DTYPES.get(stated) or np.dtype(stated)
    except TypeError:
        raise CheckpointError(f"tensor {name} has dtype {stated}, which cannot be converted.") from None


def _cast(name: str, array: np.ndarray, wanted: np.dtype[Any], report: ConversionReport) -> np.ndarray:
    """Cast one tensor and note the largest rounding error of all so far."""
    with np.errstate(over="ignore"):  # answered below
        cast = array.astype(wanted)
    old, new = array.astype(np.float64), cast.astype(np.float64)
    finite = np.isfinite(old)
    if not np.isfinite(new[finite]).all():
        raise CheckpointError(
            f"tensor {name} holds {np.abs(old[finite]).max():.3g}, which {wanted.name} cannot hold; "
            "choose bfloat16 or float32."
        )
    difference = np.abs(new[finite] - old[finite]).max(initial=0.0)
    largest = np.abs(old[finite]).max(initial=0.0)
    if difference and difference / largest > report.rounding:
        report.rounding, report.rounded_most = float(difference / largest), name
    return cast
