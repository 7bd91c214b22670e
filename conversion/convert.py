"""Turning a checkpoint of one form into another, one tensor at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ..core.config import DTYPE_KEYS
from ..core.hub import resolve_file, write_json
from ..errors import CheckpointError, ConfigError, InputError
from .checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from .describe import Judgement, judge
from .expected import expected_tensors
from .formats import About, Form, LazyTensor, form_of, writable_forms
from .formats.digest import digest_of, digest_of_all
from .names import FAMILY_NAMES, FamilyNames, family_names
from .optimizer import OPTIMIZER_FILE, optimizer_file, read_optimizer, write_optimizer
from .optimizer_keras import KERAS_VARIABLES_PLACE, compile_config, keras_variables
from .report import ConversionReport
from .target import COMPANIONS, appearing, check_target

DTYPES: dict[str, np.dtype[Any]] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

_ADAMW: dict[str, Any] = {"learning_rate": 1e-3, "betas": (0.9, 0.999), "epsilon": 1e-8, "weight_decay": 0.01}
"""The settings of PyTorch's AdamW unless it is told others."""

Progress = Callable[[str, int, int], None]
"""Called with a tensor's name, the bytes written so far and the bytes in all."""


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    to: str = "safetensors",
    dtype: str | None = None,
    head: str | None = None,
    optimizer: bool = True,
    max_shard_size: int | str = "5GB",
    force: bool = False,
    check: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
) -> ConversionReport:
    """Write the checkpoint `src` into a new folder `dst`, in another form, dtype or number of shards.

    Config and tokenizer files go along. Names of older checkpoints are brought up to date. Every tensor is written,
    repeats a tied one, or is left out with a reason that the report gives. What was written is read back, and its
    digest compared. `dst` appears only when everything is in it. One tensor at a time is in memory.

    Args:
        src: a folder, a repository of the Hub, or a file of a checkpoint in one file. Its content tells its form.
        dst: the new folder.
        to: the form; see `formats.writable_forms`.
        dtype: what to cast floating tensors to ("float32", "bfloat16", "float16", "float64"); None keeps theirs.
        head: the model to write, such as "ForMaskedLM"; "Model" is the bare encoder. None takes what the config names
            if the tensors are there, else what the tensors are. The native forms are written whole unless it is given.
        optimizer: whether the state of AdamW goes along, if there is one: PyTorch's in `optimizer.pt` beside the
            checkpoint, Keras's in its files.
        max_shard_size: bytes, or a text such as "500MB"; a larger checkpoint is written in shards, if the form has any.
        force: replace `dst` if it exists and holds nothing but a checkpoint.
        check: called with the finished folder before that gets its name; what it raises keeps it from appearing.
        progress: told of every tensor.

    Raises:
        InputError: `dst` exists and may not be replaced, the dtype is not known, or the form is only read.
        CheckpointNotFoundError: `src` holds no checkpoint.
        CheckpointError: `src` is damaged, holds a tensor that is none of its family's or of another shape than its
            config says, or a number outside the range of `dtype`; it has no config and the form needs one; or `dst`
            could not be written.
    """
    form = form_of(to)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is not known; known: {', '.join(DTYPES)}.")
    if form.write is None:
        raise InputError(f"the form {to!r} is only read; write one of {', '.join(writable_forms())}.")
    target = Path(dst).expanduser()
    source = Path(src).expanduser().resolve()
    if target.resolve() == (source.parent if source.is_file() else source):
        raise InputError(f"{dst} is the checkpoint itself; name a new folder.")
    check_target(target, force)
    with open_checkpoint(src) as checkpoint, appearing(target) as staging:
        report = ConversionReport(checkpoint.form, to, dtype=dtype, left_out=dict(checkpoint.left_out))
        judged = judge(checkpoint, head, str(src))
        if judged is not None and judged.plan.report.missing and head is None and judged.heads_found:
            # The config names a head that is not there: what is there is written, and the rest told.
            report.missing = judged.plan.report.missing
            judged = judge(checkpoint, judged.heads_found[0], str(src))
        kept = modern_names(checkpoint, checkpoint.config or {}, report)
        if judged is not None:
            _account(judged, report, str(src), must_be_whole=not form.is_native)
            if not (form.is_native and form_of(checkpoint.form).is_native):
                _refuse_strangers(judged, report, str(src))
            if head is not None or not form.is_native:
                kept = _of_model(judged, report, form.is_native)
        elif head is not None or not form.is_native:
            raise CheckpointError(f"{src} has no config.json, which says what the tensors belong to: add the model's.")
        report.copied = _copy_companions(src, staging, checkpoint.config, judged, dtype)
        read: dict[str, str] = {}
        digests: dict[str, str] = {}
        tensors = _lazy_tensors(checkpoint, kept, dtype, report, read, digests, progress)
        about = About(digests=digests) if judged is None else About(judged.config, judged.head, digests=digests)
        state = optimizer_file(checkpoint.files) if optimizer and judged is not None else None
        if state is not None:
            about = _with_optimizer(about, state, form, staging, report)
        files = write_checkpoint(staging, tensors, max_shard_size=max_shard_size, form=to, about=about)
        checkpoint.check(read)
        report.files = tuple(target / file.name for file in files)
        report.tensors = len(tensors)
        report.parameters = sum(prod(tensor.shape) for tensor in tensors.values())
        report.digest = _read_back(staging, digests, judged)
        if check is not None:
            check(staging)
    return report


def _with_optimizer(about: About, file: Path, form: Form, staging: Path, report: ConversionReport) -> About:
    """Put an optimizer's state beside the new checkpoint, or into what is to be written of it."""
    try:
        if form.is_native and file.name == OPTIMIZER_FILE:
            shutil.copyfile(file, staging / OPTIMIZER_FILE)
            report.optimizer = "copied as it is"
            return about
        state = read_optimizer(file, about.config, about.head)
        report.optimizer = f"carried along, after {state.step:,} steps"
        defaults = {name: value for name, value in _ADAMW.items() if getattr(state, name) is None}
        if defaults:
            # Keras's files of weights hold no settings.
            told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in defaults.items())
            report.optimizer += f"; the source does not say its settings, which are now PyTorch's defaults: {told}"
            state = replace(state, **defaults)
        report.left_out = {
            name: reason for name, reason in report.left_out.items() if not name.startswith(KERAS_VARIABLES_PLACE)
        }
        if form.name in ("keras", "keras-weights"):
            variables = keras_variables(state, about.config, about.head)
            return replace(about, optimizer=variables, compiled=compile_config(state) if form.name == "keras" else {})
        write_optimizer(staging / OPTIMIZER_FILE, state, about.config, about.head)
    except (CheckpointError, InputError) as error:
        raise CheckpointError(
            f"{error} The model can be converted without its optimizer's state: optimizer=False (--no-optimizer)."
        ) from error
    return about


def _account(judged: Judgement, report: ConversionReport, where: str, must_be_whole: bool) -> None:
    """Note what the source lacks of its model; raise where a tensor is of another shape, or is needed and missing."""
    found = judged.plan.report
    report.model = judged.family.prefix + judged.head
    report.missing = found.missing or report.missing
    if found.mismatched:
        raise CheckpointError(
            f"{where} holds tensors of other shapes than its config says: {'; '.join(map(str, found.mismatched))}. "
            "The config is another model's, or was changed: correct it."
        )
    if must_be_whole and found.missing:
        raise CheckpointError(
            f"{where} lacks {len(found.missing)} tensors of {report.model}: {', '.join(found.missing[:5])}"
            f"{', ...' if len(found.missing) > 5 else ''}. Name a head that it has (--head), or complete it first."
        )


def _refuse_strangers(judged: Judgement, report: ConversionReport, where: str) -> None:
    """Raise where a tensor is none of the family's."""
    table = family_names(judged.family.model_type)
    known = {name for head in judged.family.heads for name in _names_of(judged.config, head)}
    tied = dict(table.tied)
    strangers = []
    for name in judged.plan.report.unexpected:
        modern = table.modern(name)
        if modern in tied and name not in report.left_out:
            raise CheckpointError(
                f"{where}: tensor {name} differs from {tied[modern]}, to which the config ties it: set "
                "tie_word_embeddings to false in config.json, or remove the tensor."
            )
        if not {modern, f"{table.base_prefix}.{modern}"} & known and name not in report.left_out:
            strangers.append(name)
    if strangers:
        raise CheckpointError(
            f"{where} holds tensors that are none of {judged.family.prefix}'s: {', '.join(strangers[:5])}"
            f"{f' and {len(strangers) - 5} more' if len(strangers) > 5 else ''}. Remove them; between safetensors and "
            "torch-bin alone, every name is kept."
        )


def _of_model(judged: Judgement, report: ConversionReport, is_native: bool) -> dict[str, str]:
    """Keep the tensors of the model alone, by the names under which they are written; say so of the others."""
    unused = (name for name in judged.plan.report.unexpected if name not in report.left_out)
    report.left_out |= dict.fromkeys(unused, f"since it is no part of {report.model}")
    # A foreign form names the tensors of a bare encoder as those of a model with a head.
    prefix = f"{family_names(judged.family.model_type).base_prefix}."
    added = prefix if judged.head == "Model" and not is_native else ""
    return {added + name: source for name, source in sorted(judged.plan.sources.items())}


def _names_of(config: Any, head: str) -> tuple[str, ...]:
    try:
        return tuple(expected_tensors(config, head))
    except ConfigError:
        return ()  # the config does not allow this head


def _read_back(staging: Path, digests: Mapping[str, str], judged: Judgement | None) -> str:
    """Read what was written, hold it to what was sent, and return the digest of all of it.

    Raises:
        CheckpointError: a tensor is not what was sent.
    """
    prefix = "" if judged is None else f"{family_names(judged.family.model_type).base_prefix}."
    sent = {name.removeprefix(prefix): digest for name, digest in digests.items()}
    with open_checkpoint(staging) as written:
        # A form may hold a tied tensor twice.
        kept = modern_names(written, written.config or {}, ConversionReport(written.form, written.form))
        found = {name.removeprefix(prefix): digest_of(name, written.read(held)) for name, held in kept.items()}
    wrong = sorted(name for name in {*sent, *found} if sent.get(name) != found.get(name))
    if wrong:
        raise CheckpointError(
            f"what was written does not read back as it was sent: {', '.join(wrong[:5])}"
            f"{', ...' if len(wrong) > 5 else ''}. The disk or the memory may be at fault: try again, elsewhere."
        )
    return digest_of_all(found)


def _copy_companions(
    src: str | os.PathLike[str],
    staging: Path,
    config: dict[str, Any] | None,
    judged: Judgement | None,
    dtype: str | None,
) -> tuple[str, ...]:
    """Copy config and tokenizer files; what the config says of the tensors' dtype and model is brought up to date."""
    path = Path(src).expanduser()
    copied = []
    for name in COMPANIONS:
        found = resolve_file(path.parent if not path.is_dir() and path.parent.is_dir() else src, name, required=False)
        if found is not None:
            shutil.copyfile(found, staging / name)
            copied.append(name)
    if config is None:
        return tuple(copied)
    new = dict(config)
    if dtype is not None:
        new |= {key: dtype for key in DTYPE_KEYS if isinstance(config.get(key), str)}
    if judged is not None and judged.head not in judged.heads_stated:
        new["architectures"] = [judged.family.prefix + judged.head]
    if new != config or "config.json" not in copied:
        write_json(staging / "config.json", new)
    return tuple(copied) if "config.json" in copied else ("config.json", *copied)


def modern_names(checkpoint: Checkpoint, config: Mapping[str, Any], report: ConversionReport) -> dict[str, str]:
    """Map today's name of every tensor worth keeping to the checkpoint's name of it; note the others."""
    table = FAMILY_NAMES.get(str(config.get("model_type")), FamilyNames(""))
    kept: dict[str, str] = {}
    for name in checkpoint.names():
        modern = table.modern(name)
        if modern in kept:
            raise CheckpointError(f"tensors {kept[modern]} and {name} are both {modern}; remove one of them.")
        kept[modern] = name
    report.left_out |= {name: "since it holds no weights" for modern, name in kept.items() if table.is_ignored(modern)}
    for alias, source in table.tied:
        # An untied table that happens to equal its source says something that other readers would miss.
        is_tied = not alias.endswith(".weight") or config.get("tie_word_embeddings", True)
        if alias in kept and source in kept and is_tied and _equal(checkpoint, kept[alias], kept[source]):
            report.left_out[kept[alias]] = f"since it repeats {source}"
    kept = {modern: name for modern, name in kept.items() if name not in report.left_out}
    told = {modern: checkpoint.foreign_names.get(name, name) for modern, name in kept.items()}
    report.renamed = {modern: name for modern, name in told.items() if modern != name}
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
    read: dict[str, str],
    digests: dict[str, str],
    progress: Progress | None,
) -> dict[str, LazyTensor]:
    """Describe the tensors to write; each is read, cast and measured when its turn comes.

    The digests of what was read, by the source's names, and of what is written are put into `read` and `digests`.
    """

    def describe(modern: str, name: str) -> LazyTensor:
        held = numpy_dtype(checkpoint, name)
        wanted = DTYPES[dtype] if dtype is not None and checkpoint.dtype(name) in DTYPES else held
        if not prod(checkpoint.shape(name)):
            # There is nothing to write, and so to load.
            digests[modern] = digest_of(modern, np.empty(checkpoint.shape(name), wanted))

        def load() -> np.ndarray:
            array = checkpoint.read(name)
            read[name] = digest_of(name, array)
            cast = array if array.dtype == wanted else _cast(modern, array, wanted, report)
            digests[modern] = read[name] if cast is array else digest_of(modern, cast)
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
