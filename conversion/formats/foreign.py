"""Checkpoints whose tensors have other names and other layouts than the Hub's: how these are told as the Hub's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError
from ..layouts import Layout, hub_shape, to_hub
from ..rules import ForeignNames
from .base import LazyTensor, aligned


@dataclass(frozen=True)
class Account:
    """Where each tensor of a foreign file goes.

    Attributes:
        mapped: by the Hub's name, the foreign name and the layout.
        left_out: by the foreign name, why it has no place on the Hub.
    """

    mapped: dict[str, tuple[str, Layout]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def account_for(names: Iterable[str], table: ForeignNames, where: Path) -> Account:
    """Account for every tensor of a foreign file.

    Raises:
        CheckpointError: a tensor is in no rule, or two are the same tensor of the Hub.
    """
    account = Account()
    unknown = []
    for name in names:
        reason = table.reason_to_leave_out(name)
        if reason is not None:
            account.left_out[name] = reason
            continue
        found = table.to_hub(name)
        if found is None:
            unknown.append(name)
            continue
        hub, layout = found
        if hub in account.mapped:
            raise CheckpointError(f"{where}: tensors {account.mapped[hub][0]} and {name} are both {hub}.")
        account.mapped[hub] = name, layout
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise CheckpointError(
            f"{where} holds tensors that are none of this family's: {', '.join(unknown[:5])}{more}. It belongs to "
            "another model, or to a changed one; remove them, or load it with the code that wrote it."
        )
    return account


class ForeignFile:
    """One open file, or set of files, of a foreign form, with its tensors told as the Hub's.

    Where all tensors are an encoder's, they are named as in a checkpoint of the bare encoder: without its prefix.

    Attributes:
        path: the file.
        config: the model's config in the Hub's keys, where the form carries one.
        left_out: by the foreign name, why a tensor has no place on the Hub.
        foreign_names: the foreign name of each tensor, by the Hub's.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, LazyTensor],
        table: ForeignNames,
        base_prefix: str,
        close: Callable[[], None] = lambda: None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.config = config
        account = account_for(tensors, table, path)
        self.left_out = account.left_out
        is_bare = all(name.startswith(f"{base_prefix}.") for name in account.mapped)
        mapped = {
            name.removeprefix(f"{base_prefix}.") if is_bare else name: found for name, found in account.mapped.items()
        }
        self.foreign_names = {name: foreign for name, (foreign, _) in mapped.items()}
        self._tensors = {name: (tensors[foreign], layout) for name, (foreign, layout) in mapped.items()}
        self._close = close

    def names(self) -> tuple[str, ...]:
        """Return the tensors' names on the Hub, in the file's order."""
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape on the Hub."""
        tensor, layout = self._tensors[name]
        return hub_shape(tensor.shape, layout)

    def dtype(self, name: str) -> str:
        """Return a tensor's dtype as NumPy calls it."""
        return self._tensors[name][0].dtype.name

    def read(self, name: str) -> np.ndarray:
        """Read one tensor, laid out as on the Hub."""
        tensor, layout = self._tensors[name]
        return aligned(to_hub(tensor.load(), layout), tensor.dtype)

    def check(self, digest: Callable[[str], str]) -> None:
        """Do nothing: the form keeps no checksums but those that reading checks."""

    def close(self) -> None:
        """Let go of the file."""
        self._close()
