"""What a conversion did, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class ConversionReport:
    """What a conversion did.

    Attributes:
        source_form, form: the forms it led from and to.
        files: the files that hold the tensors now.
        model: the model class whose tensors they are; empty if there was no config to tell.
        tensors: how many were written.
        parameters: how many numbers they hold.
        digest: SHA-256 of the names, dtypes, shapes and elements written, the same in every form: see `digest`.
        dtype: what floating tensors were cast to; None if they kept theirs.
        rounding: the largest |new - old| relative to its tensor's largest |old|, when casting lost anything.
        rounded_most: the tensor where that was.
        renamed: what the source called a tensor, by its name on the Hub today, where the two differ.
        left_out: the source's tensors that were not written, each with the reason.
        missing: tensors of the model that the source lacks, and so the result.
        optimizer: what became of the optimizer's state; empty if there was none.
        copied: the files that went along.
    """

    source_form: str
    form: str
    files: tuple[Path, ...] = ()
    model: str = ""
    tensors: int = 0
    parameters: int = 0
    digest: str = ""
    dtype: str | None = None
    rounding: float = 0.0
    rounded_most: str = ""
    renamed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    optimizer: str = ""
    copied: tuple[str, ...] = ()

    def __str__(self) -> str:
        of_model = f" of {self.model}" if self.model else ""
        lines = [
            f"{self.source_form} to {self.form}: {self.tensors:,} tensors{of_model}, {self.parameters:,} numbers, "
            f"{len(self.files)} file{'s' * (len(self.files) > 1)}",
            f"digest of the tensors, read back: {self.digest}",
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
            lines.append(f"{len(self.renamed)} tensors have other names on the Hub today ({old} is {new})")
        for reason in dict.fromkeys(self.left_out.values()):
            names = [name for name, why in self.left_out.items() if why == reason]
            lines.append(f"left out, {reason}: {_listed(names)}")
        if self.missing:
            lines.append(f"not in the source, and so not here: {_listed(self.missing)}")
        if self.optimizer:
            lines.append(f"the optimizer's state: {self.optimizer}")
        lines.append(f"copied along: {', '.join(self.copied) or 'nothing'}")
        if "config.json" not in self.copied:
            lines.append("there was no config.json, without which no model can be opened: add one")
        return "\n".join(lines)


def _listed(names: list[str] | tuple[str, ...], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
