"""Showing that two models are equal: every layer's output, the loss and every gradient, on the same inputs.

The models may be of either framework. They are asked for one thing, `trace(inputs, gradients=True)`, and this module
imports neither.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ..core.hub import write_text
from ..core.outputs import Trace
from ..core.registry import family_of
from ..errors import InputError
from .inputs import random_inputs

if TYPE_CHECKING:
    from rich.table import Table

Kind = Literal["output", "loss", "gradient"]
KINDS: tuple[Kind, ...] = ("output", "loss", "gradient")

TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}
"""The relative error that rounding alone may cause, by dtype: far above one operation's, far below any mistake's."""


class Traceable(Protocol):
    """A model of either framework."""

    config: Any

    def trace(self, inputs: Mapping[str, np.ndarray], gradients: bool = True) -> Trace:
        """Run forward, and backward when `gradients` and the inputs hold labels."""


@dataclass(frozen=True)
class Row:
    """One tensor of both models, compared.

    Attributes:
        name: an output's name ("logits", "hidden_states.3"), "loss", or a parameter's Hub name.
        kind: "output", "loss" or "gradient".
        shape: its shape in `a`; in `b` if `a` lacks it.
        difference: the largest |a - b|.
        relative: the difference relative to the size of `b`: for an output and the loss, the largest |b|; for a
            gradient, the largest |b| among the gradients of the same module. A key's bias has a gradient of exactly
            zero, since the softmax does not see a shift, and so have queries and keys where every position sees one key
            alone: what is computed for them is the rounding of a sum that cancels, and is measured by the gradients of
            the whole attention (query, key and value). A gradient is taken for zero if, beside those, it is within the
            tolerance.
        tolerance: what the relative error may be.
        note: why the two cannot be compared, when they cannot.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    difference: float
    relative: float
    tolerance: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the two are equal within the tolerance. Never true of a NaN."""
        return not self.note and self.relative <= self.tolerance

    @property
    def place(self) -> str:
        """Where in the model it belongs: "embeddings", "layer 1", ... or "head"."""
        return place_of(self.name)


@dataclass(frozen=True)
class Verification:
    """What a comparison found.

    Attributes:
        rows: every output in the order of the computation, the loss, every gradient in the order of the parameters.
        tolerance: what the relative errors were held to.
        dtype: the coarser dtype of the two models' outputs.
        a, b: what the two models are called.
    """

    rows: tuple[Row, ...]
    tolerance: float
    dtype: str
    a: str = "a"
    b: str = "b"

    @property
    def passed(self) -> bool:
        """Whether everything is equal within the tolerance."""
        return all(row.ok for row in self.rows)

    def of_kind(self, kind: Kind) -> tuple[Row, ...]:
        """Return the rows of one kind."""
        return tuple(row for row in self.rows if row.kind == kind)

    def worst(self, kind: Kind | None = None) -> Row | None:
        """Return the row with the largest relative error, of one kind or of all; None when there is none."""
        rows = self.rows if kind is None else self.of_kind(kind)
        return max(rows, key=_badness, default=None)

    def summary(self) -> str:
        """Say in one line what was found."""
        failed = sum(not row.ok for row in self.rows)
        verdict = "equal" if self.passed else f"NOT equal ({failed} of {len(self.rows)} tensors)"
        worst = [row for kind in KINDS if (row := self.worst(kind))]
        errors = ", ".join(f"{row.kind} {_number(row.relative)}" for row in worst)
        return f"{self.a} and {self.b} are {verdict} in {self.dtype}: worst relative error: {errors}; tolerance " + (
            f"{self.tolerance:.0e}."
        )

    @property
    def largest_error(self) -> float:
        """The worst relative error of all; NaN or infinite where something could not be compared."""
        worst = self.worst()
        return 0.0 if worst is None else worst.relative

    def table(self) -> Table:
        """Return a rich table of relative errors, layer by layer; of a place's gradients the worst is named."""
        from rich.table import Table

        table = Table(title=f"{self.a} against {self.b}, {self.dtype}", caption=self.summary(), caption_justify="left")
        for column in ("place", "output", "attention", "gradient", "worst gradient", "equal"):
            is_number = column in ("output", "attention", "gradient")
            table.add_column(column, justify="right" if is_number else "left", overflow="fold")
        for place in self.places():
            here = [row for row in self.rows if row.place == place]
            outputs = [row for row in here if row.kind != "gradient" and not row.name.startswith("attentions.")]
            attentions = [row for row in here if row.name.startswith("attentions.")]
            gradient = max((row for row in here if row.kind == "gradient"), key=_badness, default=None)
            # What the place already says is not repeated in the name.
            name = re.sub(r"^.*?(embeddings|layers?\.\d+)\.", "", gradient.name) if gradient else ""
            errors = (_error(rows) for rows in (outputs, attentions, [gradient] if gradient else []))
            table.add_row(place, *errors, name, _verdict(all(row.ok for row in here)))
        return table

    def worst_table(self, most: int = 15) -> Table:
        """Return a rich table of single tensors, those with the largest relative errors first."""
        from rich.markup import escape
        from rich.table import Table

        rows = sorted(self.rows, key=_badness, reverse=True)[:most]
        table = Table(title=f"the {len(rows)} worst of {len(self.rows)} tensors")
        for column in ("tensor", "shape", "difference", "relative", "equal"):
            table.add_column(
                column, justify="right" if column in ("difference", "relative") else "left", overflow="fold"
            )
        for row in rows:
            shape = "x".join(map(str, row.shape)) or "scalar"
            what = f"gradient of {row.name}" if row.kind == "gradient" else row.name
            note = f" [red]({escape(row.note)})[/red]" if row.note else ""
            numbers = _number(row.difference), _number(row.relative)
            table.add_row(escape(what) + note, shape, *numbers, _verdict(row.ok))
        return table

    def places(self) -> tuple[str, ...]:
        """Return the places that rows belong to, in the order of the computation."""
        return tuple(sorted({row.place for row in self.rows}, key=_depth))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values; what is not a finite number comes as a string."""
        return {
            "a": self.a,
            "b": self.b,
            "passed": self.passed,
            "dtype": self.dtype,
            "tolerance": self.tolerance,
            "rows": [_plain(asdict(row) | {"ok": row.ok}) for row in self.rows],
        }

    def to_json(self) -> str:
        """Return everything as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the relative errors layer by layer into a picture (.png, .svg, .pdf).

        Raises:
            InputError: the suffix is another one.
            MissingDependencyError: matplotlib is not installed.
        """
        from .picture import draw

        return draw(self, Path(path))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `verification.json` and `verification.png` into a folder, which is made if need be.

        Raises:
            MissingDependencyError: matplotlib is not installed; the JSON is then already written.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        write_text(target / "verification.json", self.to_json())
        self.plot(target / "verification.png")
        return target


def verify(
    a: Traceable,
    b: Traceable,
    inputs: Mapping[str, np.ndarray] | None = None,
    *,
    gradients: bool = True,
    tolerance: float | None = None,
    seed: int = 0,
    names: tuple[str, str] | None = None,
) -> Verification:
    """Run two loaded models on the same inputs and compare all they compute.

    Args:
        a: a model of either framework.
        b: the model to hold it to; sizes are measured by its tensors.
        inputs: what the models are called with, as NumPy arrays; labels among them bring in loss and gradients. None
            draws a padded batch with labels for the model's head.
        gradients: whether to run backward and compare the gradient of every parameter.
        tolerance: the relative error that counts as equal; None takes that of the coarser dtype: see `TOLERANCES`.
        seed: of the random inputs.
        names: what to call the two; None takes their classes' names where these differ.

    Raises:
        InputError: inputs were to be drawn, and the two models' heads differ; or one of the models computed nothing.
    """
    if names is None:
        classes = type(a).__name__, type(b).__name__
        names = classes if classes[0] != classes[1] else ("a", "b")
    if inputs is None:
        if head_of(a) != head_of(b):
            raise InputError(
                f"a has the head {head_of(a)!r} and b {head_of(b)!r}; models with one head can be compared."
            )
        inputs = random_inputs(b.config, head_of(b), seed=seed)
    # Each gets arrays of its own: a model that writes into its inputs must not spoil the other's.
    traces = [model.trace({key: np.array(value) for key, value in inputs.items()}, gradients) for model in (a, b)]
    for name, trace in zip(names, traces, strict=True):
        if not trace.outputs:
            raise InputError(f"model {name} computed no outputs from {', '.join(inputs)}.")
    return compare(*traces, tolerance=tolerance, names=names)


def compare(a: Trace, b: Trace, *, tolerance: float | None = None, names: tuple[str, str] = ("a", "b")) -> Verification:
    """Compare two traces of the same inputs; see `verify`."""
    dtype = _coarser_dtype([*a.outputs.values(), *b.outputs.values()])
    allowed = TOLERANCES[dtype] if tolerance is None else tolerance
    rows = [
        _row(name, "output", a.outputs.get(name), b.outputs.get(name), allowed, names)
        for name in _in_order([*a.outputs, *b.outputs])
    ]
    if a.loss is not None or b.loss is not None:
        losses = [None if trace.loss is None else np.asarray(trace.loss, dtype=np.float64) for trace in (a, b)]
        rows.append(_row("loss", "loss", losses[0], losses[1], allowed, names))
    sizes: dict[str, float] = {}
    for name, gradient in b.gradients.items():
        module = name.rpartition(".")[0]
        for holder in (module, module.rpartition(".")[0]):
            sizes[holder] = max(sizes.get(holder, 0.0), _largest(gradient))
    for name in dict.fromkeys([*b.gradients, *a.gradients]):
        module = name.rpartition(".")[0]
        size, whole = sizes.get(module), sizes.get(module.removesuffix(".query").removesuffix(".key"))
        is_zero = size is not None and whole is not None and size <= allowed * whole
        size = whole if is_zero or name.endswith(".key.bias") else size
        rows.append(_row(name, "gradient", a.gradients.get(name), b.gradients.get(name), allowed, names, size))
    return Verification(tuple(rows), allowed, dtype, *names)


def head_of(model: Traceable) -> str:
    """Return a model's head: its class's name without framework and family, such as "ForMaskedLM"."""
    prefix = family_of(model.config.model_type).prefix
    return type(model).__name__.removeprefix("TF").removeprefix(prefix)


def place_of(name: str) -> str:
    """Return where in a model an output or a parameter belongs.

    Example:
        >>> place_of("hidden_states.0"), place_of("attentions.0"), place_of("logits")
        ('embeddings', 'layer 1', 'head')
        >>> place_of("mobilebert.encoder.layer.4.output.dense.weight")
        'layer 5'
    """
    if found := re.search(r"(?:^|\.)layers?\.(\d+)\.|^attentions\.(\d+)$", name):
        return f"layer {int(found.group(1) or found.group(2) or 0) + 1}"
    if found := re.fullmatch(r"hidden_states\.(\d+)", name):
        return "embeddings" if found.group(1) == "0" else f"layer {found.group(1)}"
    return "embeddings" if re.search(r"(^|\.)embeddings(_project)?\.", name) else "head"


def _row(
    name: str,
    kind: Kind,
    a: np.ndarray | None,
    b: np.ndarray | None,
    tolerance: float,
    names: tuple[str, str],
    size: float | None = None,
) -> Row:
    """Compare one tensor; `size` is what its difference is measured by, None its own largest value."""
    if a is None or b is None:
        held = b if a is None else a
        shape = () if held is None else held.shape
        lacking, holding = names if a is None else names[::-1]
        return Row(name, kind, shape, math.inf, math.inf, tolerance, f"{lacking} has none, {holding} has")
    if a.shape != b.shape:
        return Row(name, kind, a.shape, math.inf, math.inf, tolerance, f"shape {list(b.shape)} in {names[1]}")
    wide = [np.asarray(array, dtype=np.float64) for array in (a, b)]
    if not np.array_equal(np.isfinite(wide[0]), np.isfinite(wide[1])) or np.isnan(wide[1]).any():
        return Row(name, kind, a.shape, math.nan, math.nan, tolerance, "not finite")
    with np.errstate(invalid="ignore"):
        # Infinities of one sign are equal, though their difference is not a number.
        gaps = np.where(wide[0] == wide[1], 0.0, np.abs(wide[0] - wide[1]))
    difference = float(gaps.max(initial=0.0))
    size = _largest(b) if size is None else size
    relative = difference / size if size else (math.inf if difference else 0.0)
    return Row(name, kind, a.shape, difference, relative, tolerance)


def _largest(array: np.ndarray) -> float:
    """Return the largest finite |value|."""
    wide = np.abs(np.asarray(array, dtype=np.float64))
    return float(wide[np.isfinite(wide)].max(initial=0.0))


def _coarser_dtype(arrays: Iterable[np.ndarray]) -> str:
    """Return the floating dtype with the widest tolerance among arrays."""
    found = {array.dtype.name for array in arrays} & set(TOLERANCES)
    return max(found, key=TOLERANCES.__getitem__, default="float64")


def _in_order(names: Iterable[str]) -> list[str]:
    """Sort outputs as they are computed: the embeddings, each layer's attention and output, then the head's."""
    return sorted(dict.fromkeys(names), key=lambda name: (_depth(place_of(name)), name.startswith("hidden_states")))


def _depth(place: str) -> float:
    """Return how deep in the model a place lies."""
    return 0 if place == "embeddings" else int(place[6:]) if place.startswith("layer ") else math.inf


def _badness(row: Row) -> float:
    return math.inf if row.note or math.isnan(row.relative) else row.relative


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}" if math.isfinite(value) else str(value)


def _error(rows: Iterable[Row]) -> str:
    """Return the worst relative error of some rows, marked when it is too large."""
    worst = max(rows, key=_badness, default=None)
    if worst is None:
        return ""
    return _number(worst.relative) if worst.ok else f"[red]{_number(worst.relative)}[/red]"


def _verdict(ok: bool) -> str:
    return "[green]yes[/green]" if ok else "[bold red]NO[/bold red]"


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN and no infinity."""
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
