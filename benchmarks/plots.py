"""The pictures of `docs/benchmarks.md`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measured import Case

DPI = 70
COLOURS = {"ours": "tab:blue", "peer": "tab:orange", "onnx": "tab:green", "bert": "tab:gray"}
STYLES = {"ours": "-o", "ours optimized": "-s", "peer": "--^"}


def _figure(rows: int, columns: int, width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def bars(path: Path, cases: Sequence[Case], sides: Sequence[str]) -> Path:
    """Draw the time of every side of every case: one panel a case, with the quartiles as whiskers."""
    columns = 2
    rows = -(-len(cases) // columns)
    figure, axes = _figure(rows, columns, 11, 0.5 + 2.4 * rows)
    for axis, case in zip(axes.flat, cases, strict=False):
        names = [side for side in sides if side in case.times]
        times = [case.times[side] for side in names]
        low, high = zip(*(timing.quartiles for timing in times), strict=True)
        medians = [timing.median * 1e3 for timing in times]
        reach = [
            [max(m - lo * 1e3, 0) for m, lo in zip(medians, low, strict=True)],
            [max(hi * 1e3 - m, 0) for m, hi in zip(medians, high, strict=True)],
        ]
        axis.barh(names, medians, xerr=reach, color=[COLOURS.get(name.split()[0]) for name in names])
        axis.invert_yaxis()
        axis.set_title(f"{case.subject}, {case.batch} x {case.length}, ms", fontsize=10)
        axis.tick_params(labelsize=8)
    for axis in axes.flat[len(cases) :]:
        axis.axis("off")
    return _save(figure, path)


def against(path: Path, cases: Sequence[Case], what: str) -> Path | None:
    """Draw the time of a text and a pass's memory against the length or the batch, one column a family.

    Returns:
        The picture's path; None where no family has two points.
    """
    found = {
        subject: sorted((c for c in cases if c.subject == subject), key=lambda c: getattr(c, what))
        for subject in dict.fromkeys(case.subject for case in cases)
    }
    found = {subject: points for subject, points in found.items() if len(points) > 2}
    if not found:
        return None
    figure, axes = _figure(2, len(found), 4 * len(found), 5.5)
    for column, (subject, points) in enumerate(found.items()):
        for side, style in STYLES.items():
            have = [case for case in points if side in case.times]
            places = [getattr(case, what) for case in have]
            colour = COLOURS[side.split()[0]]
            alpha = 0.5 if side == "ours" else 1.0
            times = [case.times[side].median * 1e3 / case.batch for case in have]
            axes[0, column].plot(places, times, style, label=side, color=colour, alpha=alpha)
            held = [(place, case.memory[side]) for place, case in zip(places, have, strict=True)]
            kept = [(place, size / 1e6) for place, size in held if size is not None]
            if kept:
                axes[1, column].plot(*zip(*kept, strict=True), style, label=side, color=colour, alpha=alpha)
        axes[0, column].set(title=f"{subject}, ms a text", yscale="log" if what == "length" else "linear")
        axes[1, column].set(title="MB of a pass", xlabel=what, yscale="log")
        for axis in axes[:, column]:
            axis.set_xscale("log", base=2)
            axis.set_xticks(sorted({getattr(case, what) for case in points}))
            axis.xaxis.set_major_formatter("{x:.0f}")
            axis.legend(fontsize=8)
    return _save(figure, path)


def sizes(path: Path, cases: Sequence[Case]) -> Path | None:
    """Draw time and memory against what a pass computes, one point a model.

    Returns:
        The picture's path; None where there is one model alone.
    """
    if len(cases) < 2:
        return None
    points = sorted(cases, key=lambda case: case.flop)
    figure, axes = _figure(1, 2, 10, 3.6)
    for side, style in STYLES.items():
        have = [case for case in points if side in case.times]
        colour, alpha = COLOURS[side.split()[0]], 0.5 if side == "ours" else 1.0
        places = [case.flop / 1e9 for case in have]
        times = [case.times[side].median for case in have]
        axes[0, 0].plot(places, times, style, label=side, color=colour, alpha=alpha)
        kept = [(case.flop / 1e9, size / 1e6) for case in have if (size := case.memory.get(side)) is not None]
        if kept:
            axes[0, 1].plot(*zip(*kept, strict=True), style, label=side, color=colour, alpha=alpha)
    for case in points:
        where = case.flop / 1e9, min(timing.median for timing in case.times.values())
        axes[0, 0].annotate(
            case.subject, where, fontsize=7, xytext=(2, -4), textcoords="offset points", rotation=-35, va="top"
        )
    axes[0, 0].set(title="seconds, 8 x 128", xlabel="GFLOP of a pass", xscale="log", yscale="log")
    axes[0, 1].set(title="MB of a pass, 8 x 128", xlabel="GFLOP of a pass", xscale="log", yscale="log")
    for axis in axes.flat:
        # The short form measures no memory.
        axis.set_visible(axis.has_data())
        if axis.has_data():
            axis.legend(fontsize=8)
    return _save(figure, path)
