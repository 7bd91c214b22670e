"""What a checkpoint folder holds, told from its config and the headers of its files; no framework is needed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from ..core.auto import config_class
from ..core.hub import resolve_file
from ..core.registry import FAMILIES, Family, family_of
from ..errors import CheckpointError
from .checkpoint import Checkpoint, open_checkpoint
from .expected import expected_tensors
from .matching import LoadPlan, LoadReport, match_tensors
from .names import FamilyNames, family_names
from .target import TOKENIZER_FILES


@dataclass(frozen=True)
class Description:
    """What was found.

    Attributes:
        form: the checkpoint's form.
        files: each file of tensors with its bytes.
        dtypes: how many numbers are of which dtype.
        parameters: how many numbers there are; what is stored twice or carries no weights does not count.
        parts: the same for each part: "embeddings", "encoder", "pooler", and each head by its first name.
        family: the family, None if there is no config.
        config: its config.
        heads_stated: heads that the config's `architectures` name.
        heads_found: heads for which every tensor is there, those first that leave the fewest over.
        head: the head that `report` judges: the first stated, else the first found, else "Model".
        report: what is missing, left over or misshapen for that head; None if there is no config.
        tokenizer_files: those that are there.
    """

    form: str
    files: dict[Path, int]
    dtypes: dict[str, int]
    parameters: int
    parts: dict[str, int]
    family: Family | None = None
    config: Any = None
    heads_stated: tuple[str, ...] = ()
    heads_found: tuple[str, ...] = ()
    head: str = ""
    report: LoadReport | None = None
    tokenizer_files: tuple[str, ...] = field(default=())


def describe(name_or_path: str | os.PathLike[str], head: str | None = None) -> Description:
    """Describe the checkpoint of a folder or a Hub repository.

    Args:
        name_or_path: the folder or repository.
        head: the head to judge it for, such as "ForMaskedLM"; None takes the one that it was saved with.

    Raises:
        CheckpointNotFoundError: there is no checkpoint.
        CheckpointError: it is damaged, or no tensor of it is one of the family's.
        ConfigError, UnknownNameError: its config is not legal, or of no family that is known here, or the family has
            no such head.
    """
    tokenizer_files = tuple(
        name for name in TOKENIZER_FILES if resolve_file(name_or_path, name, required=False) is not None
    )
    with open_checkpoint(name_or_path) as checkpoint:
        files = {path: path.stat().st_size for path in checkpoint.files}
        judged = judge(checkpoint, head, str(name_or_path))
        if judged is None:
            sizes = {name: prod(checkpoint.shape(name)) for name in checkpoint.names()}
            return Description(
                form=checkpoint.form,
                files=files,
                dtypes=_by_dtype(checkpoint, sizes),
                parameters=sum(sizes.values()),
                parts=_by_part(sizes, _table_of(checkpoint)),
                tokenizer_files=tokenizer_files,
            )
        sizes = {name: prod(checkpoint.shape(name)) for name in checkpoint.names() if _counts(name, judged.plan)}
        return Description(
            form=checkpoint.form,
            files=files,
            dtypes=_by_dtype(checkpoint, sizes),
            parameters=sum(sizes.values()),
            parts=_by_part(sizes, family_names(judged.family.model_type)),
            family=judged.family,
            config=judged.config,
            heads_stated=judged.heads_stated,
            heads_found=judged.heads_found,
            head=judged.head,
            report=judged.plan.report,
            tokenizer_files=tokenizer_files,
        )


@dataclass(frozen=True)
class Judgement:
    """Which model a checkpoint's tensors make up.

    Attributes:
        family, config: the model's.
        heads_stated: heads that the config's `architectures` name.
        heads_found: heads for which every tensor is there, those first that leave the fewest over.
        head: the head asked for, else the first stated, else the first found, else "Model".
        plan: where that head's tensors are, and what is missing, left over or misshapen.
    """

    family: Family
    config: Any
    heads_stated: tuple[str, ...]
    heads_found: tuple[str, ...]
    head: str
    plan: LoadPlan


def judge(checkpoint: Checkpoint, head: str | None = None, where: str = "the checkpoint") -> Judgement | None:
    """Tell which model an open checkpoint's tensors make up; None if it has no config.

    Raises:
        CheckpointError: no tensor of it is one of the family's.
        ConfigError, UnknownNameError: its config is not legal, or of no family that is known here, or the family has
            no such head.
    """
    if checkpoint.config is None:
        return None
    family = family_of(checkpoint.config["model_type"], f"{where}: config.json")
    config = config_class(family.model_type).from_dict(checkpoint.config)
    plans = {name: plan for name in family.heads if (plan := _plan(config, name, checkpoint)) is not None}
    if not plans:
        raise CheckpointError(f"{where}: no tensor of its checkpoint is one of {family.prefix}'s.")
    stated = tuple(name for cls in config.architectures or () if (name := head_named(family, cls)) in family.heads)
    complete = [name for name, plan in plans.items() if not plan.report.missing and not plan.report.mismatched]
    found = _fewest_left_over(tuple(sorted(complete, key=lambda name: len(plans[name].report.unexpected))), plans)
    judged = head or next(iter((*stated, *found)), "Model")
    # A head that the family lacks is answered by the table of expected tensors.
    plan = plans.get(judged) or match_tensors(
        expected_tensors(config, judged), checkpoint, family_names(family.model_type), ignore_mismatched_sizes=True
    )
    return Judgement(family, config, stated, found, judged, plan)


def head_named(family: Family, class_name: str) -> str:
    """Return the head of a class's name, of either framework.

    Example:
        >>> head_named(FAMILIES["mobilebert"], "TFMobileBertForMaskedLM")
        'ForMaskedLM'
    """
    return class_name.removeprefix("TF").removeprefix(family.prefix)


def _plan(config: Any, head: str, checkpoint: Checkpoint) -> LoadPlan | None:
    """Match one head; None where no tensor matches or the config does not allow the head."""
    try:
        names = family_names(config.model_type)
        return match_tensors(expected_tensors(config, head), checkpoint, names, ignore_mismatched_sizes=True)
    except ValueError:
        return None


def _fewest_left_over(found: tuple[str, ...], plans: dict[str, LoadPlan]) -> tuple[str, ...]:
    """Keep the heads that leave the fewest tensors over: every checkpoint with a head also holds the bare encoder."""
    fewest = min((len(plans[name].report.unexpected) for name in found), default=0)
    return tuple(name for name in found if len(plans[name].report.unexpected) == fewest)


def _counts(name: str, plan: LoadPlan) -> bool:
    """Say whether a tensor holds parameters of its own, rather than repeating another's or holding none."""
    misshapen = {mismatch.source for mismatch in plan.report.mismatched}
    return name in plan.sources.values() or name in plan.report.unexpected or name in misshapen


def _table_of(checkpoint: Checkpoint) -> FamilyNames:
    """Guess the family's table from the names alone."""
    first = {name.partition(".")[0] for name in checkpoint.names()}
    known = (family_names(model_type) for model_type in FAMILIES if model_type in first)
    return next(known, FamilyNames(""))


def _by_dtype(checkpoint: Checkpoint, sizes: dict[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, size in sizes.items():
        found[checkpoint.dtype(name)] = found.get(checkpoint.dtype(name), 0) + size
    return found


def _by_part(sizes: dict[str, int], names: FamilyNames) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, size in sizes.items():
        part = name.removeprefix(f"{names.base_prefix}.").partition(".")[0]
        found[part] = found.get(part, 0) + size
    return found
