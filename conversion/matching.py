"""Matching the tensors that a model wants with those that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import numpy as np

from ..errors import CheckpointError
from .names import FamilyNames


class HoldsTensors(Protocol):
    """What matching needs of a checkpoint."""

    def names(self) -> Sequence[str]:
        """Return the names of all tensors."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""

    def dtype(self, name: str) -> str:
        """Return a tensor's dtype."""

    def read(self, name: str) -> np.ndarray:
        """Read one tensor."""


@dataclass(frozen=True)
class Mismatch:
    """A tensor whose shape in the checkpoint is not the model's.

    Attributes:
        name: the model's name of it.
        source: the checkpoint's name of it.
        in_checkpoint, in_model: the two shapes.
    """

    name: str
    source: str
    in_checkpoint: tuple[int, ...]
    in_model: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} is {list(self.in_checkpoint)} in the checkpoint and {list(self.in_model)} in the model"


@dataclass(frozen=True)
class LoadReport:
    """Where a checkpoint and a model part. False when they do not.

    Attributes:
        missing: tensors of the model that the checkpoint lacks, by the model's names; they keep their initial values.
        unexpected: tensors of the checkpoint that the model has no place for, by the checkpoint's names.
        mismatched: tensors of another shape; they keep their initial values.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        """Say it in full: every tensor by name."""
        parts = (
            ("not in the checkpoint, so newly initialised (train before use)", self.missing),
            ("in the checkpoint, with no place in this model, so left over", self.unexpected),
            ("of another shape, so newly initialised", tuple(map(str, self.mismatched))),
        )
        lines = [
            f"{len(names)} tensor{'s' * (len(names) > 1)} {what}:\n" + "\n".join(f"  {name}" for name in names)
            for what, names in parts
            if names
        ]
        return "\n".join(lines) or "Every tensor of the model came from the checkpoint, and none was left over."


@dataclass(frozen=True)
class LoadPlan:
    """Which tensor of a checkpoint goes where.

    Attributes:
        sources: for each tensor of the model that can be loaded, the checkpoint's name of it. The largest come first:
            while one is loaded there may be a second copy of it, and then little else is in memory yet.
        report: what cannot be loaded, and what is left over.
    """

    sources: dict[str, str] = field(default_factory=dict)
    report: LoadReport = field(default_factory=LoadReport)


def match_tensors(
    wanted: Mapping[str, tuple[int, ...]],
    checkpoint: HoldsTensors,
    names: FamilyNames,
    *,
    ignore_mismatched_sizes: bool = False,
) -> LoadPlan:
    """Match the tensors that a model wants with those that a checkpoint holds.

    A checkpoint of the bare encoder fits a model with a head and the reverse; names of older checkpoints are
    understood; of two tied names either will do; what carries no weights is passed over.

    Args:
        wanted: the shape of each of the model's tensors, by its Hub name, in the Hub's layout.
        checkpoint: an open checkpoint.
        names: the family's table.
        ignore_mismatched_sizes: leave out a tensor of another shape and report it, instead of raising.

    Raises:
        CheckpointError: shapes differ; no tensor matches at all; or two of the checkpoint's tensors claim one name.
    """
    held = _full_names_held(checkpoint, names, wanted)
    partners = [*names.tied, *((source, alias) for alias, source in names.tied)]
    sources: dict[str, str] = {}
    missing: list[str] = []
    mismatched: list[Mismatch] = []
    fulls = _full_names_wanted(wanted, names)
    shapes = {full: tuple(wanted[name]) for name, full in fulls.items()}
    for name, full in fulls.items():
        if names.is_ignored(full):
            continue
        # Where a model has both tensors of a pair, one stands in for the other only if it can.
        choices = [full, *(b for a, b in partners if a == full and shapes.get(b, shapes[full]) == shapes[full])]
        source = next((held[choice] for choice in choices if choice in held), None)
        if source is None:
            missing.append(name)
            continue
        sources[name] = source
        if tuple(checkpoint.shape(source)) != tuple(wanted[name]):
            mismatched.append(Mismatch(name, source, tuple(checkpoint.shape(source)), tuple(wanted[name])))
    used = set(sources.values())
    unexpected = [
        source
        for full, source in held.items()
        if source not in used and not names.is_ignored(full) and not _repeats(full, held, used, partners, checkpoint)
    ]
    if not sources:
        raise CheckpointError(_nothing_matches(checkpoint, wanted))
    if mismatched and not ignore_mismatched_sizes:
        raise CheckpointError(
            "the checkpoint does not fit the model's config: "
            + "; ".join(map(str, mismatched))
            + ". Correct the config, or pass ignore_mismatched_sizes=True to initialise these anew."
        )
    for mismatch in mismatched:
        del sources[mismatch.name]
    largest_first = dict(sorted(sources.items(), key=lambda item: -prod(wanted[item[0]])))
    return LoadPlan(largest_first, LoadReport(tuple(missing), tuple(unexpected), tuple(mismatched)))


def _full_names_wanted(wanted: Mapping[str, tuple[int, ...]], names: FamilyNames) -> dict[str, str]:
    """Map each of the model's names to its name in a model with a head."""
    prefix = f"{names.base_prefix}."
    is_bare = not any(name.startswith(prefix) for name in wanted)
    return {name: prefix + name if is_bare else name for name in wanted}


def _full_names_held(
    checkpoint: HoldsTensors, names: FamilyNames, wanted: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
    """Map the checkpoint's names, brought up to date and into the form of a model with a head, to what they are."""
    prefix = f"{names.base_prefix}."
    modern = {name: names.modern(name) for name in checkpoint.names()}
    is_bare = not any(name.startswith(prefix) for name in modern.values())
    wants_heads = any(name.startswith(prefix) for name in wanted)
    held: dict[str, str] = {}
    for name, today in modern.items():
        # A head's own tensors may lie beside an encoder saved without its prefix.
        full = prefix + today if is_bare and not (wants_heads and today in wanted) else today
        if full in held:
            raise CheckpointError(f"the checkpoint's tensors {held[full]} and {name} are both {full}; remove one.")
        held[full] = name
    return held


def _repeats(
    full: str,
    held: Mapping[str, str],
    used: set[str],
    partners: Sequence[tuple[str, str]],
    checkpoint: HoldsTensors,
) -> bool:
    """Say whether a tensor that is not wanted only repeats a tied one that is used, bit for bit."""
    for first, second in partners:
        if first == full and held.get(second) in used:
            pair = held[full], held[second]
            if len({(tuple(checkpoint.shape(name)), checkpoint.dtype(name)) for name in pair}) > 1:
                return False  # found without reading them
            mine, other = (checkpoint.read(name).reshape(-1).view(np.uint8) for name in pair)
            return np.array_equal(mine, other)
    return False


def _nothing_matches(checkpoint: HoldsTensors, wanted: Mapping[str, tuple[int, ...]]) -> str:
    def some(names: Sequence[str]) -> str:
        return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")

    return (
        f"none of the checkpoint's {len(checkpoint.names())} tensors ({some(checkpoint.names())}) is one of the "
        f"model's {len(wanted)} ({some(list(wanted))}): it belongs to another family of models or is in another form."
    )
