"""The picture of a verification: relative errors layer by layer, on a logarithmic scale, against the tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.hub import atomic_write
from ..errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from .verify import Row, Verification

# Colours that stay apart for the colour-blind, and shapes besides.
_SERIES = {
    "hidden states": ("#0072b2", "o"),
    "attentions": ("#e69f00", "s"),
    "head's outputs": ("#009e73", "D"),
    "gradients": ("#0072b2", "o"),
}


_FORMS = (".png", ".svg", ".pdf")


def check_picture(path: Path) -> None:
    """Raise `InputError` unless the suffix names a form that pictures are drawn in."""
    if path.suffix.lower() not in _FORMS:
        raise InputError(f"{path} cannot be drawn: a picture's name ends in one of {', '.join(_FORMS)}.")


def draw(verification: Verification, path: Path) -> Path:
    """Draw a verification into `path`; the suffix decides the form.

    Raises:
        InputError: the suffix is of no form that is drawn.
        MissingDependencyError: matplotlib is not installed.
    """
    check_picture(path)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "a picture needs matplotlib, which is not installed: pip install 'isobert[plot]'."
        ) from error

    outputs = [row for row in verification.rows if row.kind != "gradient"]
    gradients = list(verification.of_kind("gradient"))
    panels = [rows for rows in (outputs, gradients) if rows]
    places = list(verification.places())
    floor = _floor(verification)
    figure = Figure(figsize=(max(8.0, 3.0 + 0.32 * len(places)), 1.2 + 3.0 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, rows in zip(axes, panels, strict=True):
        _panel(axis, rows, places, verification.tolerance, floor)
    axes[-1].set_xticks(range(len(places)), places, rotation=45 if len(places) > 8 else 0, ha="right")
    if len(places) <= 8:
        axes[-1].set_xticks(range(len(places)), places, ha="center")
    verdict = "equal within the tolerance" if verification.passed else "NOT equal"
    figure.suptitle(f"{verification.a} against {verification.b}\n{verification.dtype}: {verdict}", fontsize="medium")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return path


def _panel(axis: Any, rows: Sequence[Row], places: list[str], tolerance: float, floor: float) -> None:
    """Draw one panel: a line through the worst of each place, and every tensor as a dot."""
    is_gradients = rows[0].kind == "gradient"
    shown: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        shown.setdefault(_series(row), []).append((places.index(row.place), _height(row, floor, tolerance)))
    for name, points in shown.items():
        color, marker = _SERIES[name]
        worst: dict[int, float] = {}
        for position, height in points:
            worst[position] = max(worst.get(position, floor), height)
        line = sorted(worst.items())
        label = f"{name} (worst of each place; dots: every parameter)" if is_gradients else name
        axis.plot(*zip(*line, strict=True), color=color, marker=marker, markersize=5, linewidth=1.5, label=label)
        if is_gradients:
            axis.scatter(*zip(*points, strict=True), color=color, s=8, alpha=0.35, linewidths=0)
    broken = [(places.index(row.place), _height(row, floor, tolerance)) for row in rows if not row.ok]
    if broken:
        axis.scatter(*zip(*broken, strict=True), color="#d55e00", marker="x", s=60, zorder=3, label="not equal")
    axis.axhline(tolerance, color="#d55e00", linestyle="--", linewidth=1.2, label=f"tolerance {tolerance:.0e}")
    axis.set_yscale("log")
    # Room above for the legend.
    axis.set_ylim(floor / 2, 1e3 * max([tolerance, *(height for points in shown.values() for _, height in points)]))
    axis.set_ylabel("relative error")
    axis.set_title("gradients" if is_gradients else "outputs and loss", loc="left", fontsize="medium")
    axis.text(
        0.995, 0.02, f"exactly equal is drawn at {floor:.0e}", transform=axis.transAxes, ha="right", fontsize="x-small"
    )
    axis.grid(visible=True, which="major", alpha=0.3)
    axis.legend(fontsize="small", loc="upper left", ncols=2)


def _series(row: Row) -> str:
    if row.kind == "gradient":
        return "gradients"
    start = row.name.partition(".")[0]
    return {"hidden_states": "hidden states", "attentions": "attentions"}.get(start, "head's outputs")


def _floor(verification: Verification) -> float:
    """Return a height for zeros: a power of ten below every error, since zero has no logarithm."""
    errors = [row.relative for row in verification.rows if row.relative > 0 and math.isfinite(row.relative)]
    return float(10.0 ** (math.floor(math.log10(min([*errors, verification.tolerance * 1e-3]))) - 1))


def _height(row: Row, floor: float, tolerance: float) -> float:
    """Return where a row is drawn: what cannot be compared lies far above the tolerance."""
    if row.note or not math.isfinite(row.relative):
        return max(1.0, tolerance * 1e4)
    return max(row.relative, floor)
