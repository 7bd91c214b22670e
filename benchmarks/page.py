"""Writes `docs/benchmarks.md` from the results: what lies between two marks of the page, and nothing else.

The page is written by hand but for its regions. A region begins with the line `<!-- results: NAME -->` and ends with
`<!-- end -->`; `REGIONS` has the function that writes it. A region without results stays as it is, so that a run of one
benchmark leaves the figures of the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import plots
import tables
from goals import GOALS, Key, Verdict, judge
from isobert.core.registry import FAMILIES
from measured import Case, dtype_of, read

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
REGION = re.compile(r"(<!-- results: (?P<name>[a-z-]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)

# Files that hold no cases, but what their benchmark wrote by itself.
OWN = ("memory", "lm_head", "convert", "int8_accuracy")


@dataclass(frozen=True)
class Results:
    """Everything that was measured.

    Attributes:
        goals: the cases of the short form, by key.
        cases: those of the full form, and of the short form where there is no other.
        gpu: those of a GPU.
        int8: those of 8-bit integers.
        own: the content of the files of `OWN`, by name.
    """

    goals: Mapping[Key, Case]
    cases: Mapping[Key, Case]
    gpu: Mapping[Key, Case]
    int8: Mapping[Key, Case]
    own: Mapping[str, Any]

    def of(self, case: str, framework: str | None = None) -> list[Case]:
        """Return the cases of one name, and of one framework: subject by subject, as they were first measured."""
        found = [c for c in self.cases.values() if c.case == case and framework in (None, c.framework)]
        subjects = list(dict.fromkeys(c.subject for c in found))
        return sorted(found, key=lambda c: (subjects.index(c.subject), c.framework, c.length, c.batch))


def results_of(folder: Path) -> Results:
    """Read the results of a folder."""
    goals = {case.key: case for case in read(folder / "goals.json")}
    cases = dict(goals)
    for path in sorted(folder.glob("*.json")):
        if path.stem not in ("goals", "gpu", "int8", *OWN):
            cases |= {case.key: case for case in read(path)}
    own = {name: json.loads(path.read_text()) for name in OWN if (path := folder / f"{name}.json").exists()}
    gpu, int8 = ({case.key: case for case in read(folder / f"{name}.json")} for name in ("gpu", "int8"))
    return Results(goals, cases, gpu, int8, own)


def write_page(results: Results, page: Path = PAGE) -> None:
    """Put the results into the page's regions, and draw its pictures beside it."""
    images = page.parent / "images"

    def written(found: re.Match[str]) -> str:
        body = REGIONS[found["name"]](results, images)
        return found[1] + (body.strip("\n") + "\n" if body else found["body"]) + found[4]

    page.write_text(REGION.sub(written, page.read_text(encoding="utf-8")), encoding="utf-8")


# The goals.


def goal_rows(results: Results) -> list[list[str]]:
    """Return a row for each goal: what it is, the figure to reach, the one measured, the share, whether it is met."""
    return [_goal_row(verdict) for verdict in judge(GOALS, {**results.cases, **results.goals})]


def _goal_row(verdict: Verdict) -> list[str]:
    goal, found = verdict.goal, verdict.found
    form: Callable[[float], str] = {
        "ratio": lambda v: f"{v:.2f}",
        "share": lambda v: f"{v:.0%}",
        "seconds": lambda v: f"{v:.3f} s",
    }[goal.of]
    least = f"under {goal.least} s" if goal.of == "seconds" else form(goal.least)
    if found is None:
        return [goal.title, least, "not measured", "", ""]
    share = f"{verdict.share.median:.0%}" if verdict.share else ""
    met = "yes" if verdict.met else "**no**"
    if verdict.met_by_share and found.median < goal.least:
        met = "yes, by its share of the rate"
    measured = f"{form(found.median)} ({form(found.low)} to {form(found.high)})"
    sides = " / ".join(filter(None, (verdict.peer, verdict.ours)))
    return [goal.title, least, measured, share, met, sides]


def goals(results: Results, images: Path) -> str:
    rows = goal_rows(results)
    if all(row[2] == "not measured" for row in rows):
        return ""
    header = ("goal", "at least", "measured (quartiles)", "share of the rate", "met", "sides compared")
    return tables.markdown(header, [[*row, *[""] * (len(header) - len(row))] for row in rows]) + rate(
        results.goals.values()
    )


def rate(cases: Iterable[Case]) -> str:
    """Return a sentence about the machine's own products, as measured beside the cases."""
    found: dict[tuple[str, str], list[float]] = {}
    for case in cases:
        for dtype, kinds in case.products.items():
            for kind, timing in kinds.items():
                found.setdefault((dtype, kind), []).append(timing.median)
    if not found:
        return ""
    told = ", ".join(
        f"{kind} in {dtype} {tables.gflop_per_second(times):.0f}" for (dtype, kind), times in sorted(found.items())
    )
    return f"\nThe machine's own products, in GFLOP/s: {told}.\n"


# The surroundings.


def surroundings(results: Results, images: Path) -> str:
    cases = [*results.cases.values(), *results.gpu.values(), *results.int8.values()]
    lines = []
    for name in ("processor", "processors", "system", "python", "threads"):
        values = dict.fromkeys(str(case.about[name]) for case in cases if name in case.about)
        if values:
            lines.append(f"- {name}: {', '.join(values)}")
    versions: dict[str, dict[str, None]] = {}
    for case in cases:
        for side, libraries in case.versions.items():
            versions.setdefault(side, {})[", ".join(f"{k} {v}" for k, v in libraries.items())] = None
    lines += [f"- {side}: {'; '.join(found)}" for side, found in sorted(versions.items())]
    commands: dict[str, set[str]] = {}
    for case in cases:
        if case.about:
            commands.setdefault(case.about["command"], set()).add(case.about["date"])
    lines += [f"- `{command}`: {', '.join(sorted(dates))}" for command, dates in sorted(commands.items())]
    return "\n".join(lines)


# The cases.


def forward(framework: str) -> Callable[[Results, Path], str]:
    """Return what writes a framework's forward passes."""

    def write(results: Results, images: Path) -> str:
        cases = [c for c in results.of("forward", framework) if c.length == 128 and c.batch in (1, 8)]
        if not cases:
            return ""
        drawn = [case for case in cases if case.subject in FAMILIES]
        bars = plots.bars(images / f"benchmark-forward-{framework}.png", drawn, tables.SIDES[framework])
        return "\n".join(
            [
                tables.sides(cases, tables.SIDES[framework], tables.time_cell),
                f"![Forward passes beside the peers](images/{bars.name})",
                "",
                "Share of the rate, and memory at the peak:",
                "",
                tables.sides(cases, tables.SIDES[framework], tables.share_cell),
                tables.refused(cases),
            ]
        )

    return write


def lines(results: Results, images: Path) -> str:
    """Write the pictures of time and memory against length, batch and model size."""
    cases = results.of("forward", "pt")
    drawn = [
        plots.against(images / "benchmark-length.png", [c for c in cases if c.batch == 1], "length"),
        plots.against(images / "benchmark-batch.png", [c for c in cases if c.length == 128], "batch"),
        plots.sizes(images / "benchmark-size.png", [c for c in cases if (c.batch, c.length) == (8, 128)]),
    ]
    return "\n\n".join(f"![{path.stem.replace('-', ' ')}](images/{path.name})" for path in drawn if path)


def table_of(*names: str, framework: str | None = None) -> Callable[[Results, Path], str]:
    """Return what writes a table of cases by their names: a row for each side."""

    def write(results: Results, images: Path) -> str:
        cases = [case for name in names for case in results.of(name, framework)]
        return tables.rows(cases) + tables.refused(cases) if cases else ""

    return write


def gpu(results: Results, images: Path) -> str:
    cases = list(results.gpu.values())
    if not cases:
        return ""
    device = {case.about.get("gpu", "") for case in cases}
    parts = [f"On {', '.join(sorted(device))}.", ""]
    for dtype in ("float32", "bfloat16", "float16"):
        kept = [side for side in dict.fromkeys(s for c in cases for s in c.times) if dtype_of(side.split()) == dtype]
        forwards = [case for case in cases if case.case == "forward" and set(kept) & set(case.times)]
        if forwards:
            cell = partial(tables.time_cell, other=" ".join(["peer", dtype]).removesuffix(" float32"))
            parts += [f"Forward passes in {dtype}:", "", tables.sides(forwards, kept, cell)]
    steps = [case for case in cases if case.case == "training step"]
    return "\n".join([*parts, *(["Training steps:", "", tables.rows(steps)] if steps else []), rate(cases)])


def integers(results: Results, images: Path) -> str:
    """Write what 8-bit integers gain, beside other ways to them, and what fine-tuned models lose by them."""
    cases = list(results.int8.values())
    parts = [tables.integers(cases), tables.refused(cases)] if cases else []
    return "\n".join(filter(None, (*parts, tables.int8_accuracy(results.own.get("int8_accuracy")))))


REGIONS: dict[str, Callable[[Results, Path], str]] = {
    "surroundings": surroundings,
    "goals": goals,
    "forward-pt": forward("pt"),
    "forward-tf": forward("tf"),
    "lines": lines,
    "training": table_of("training step", "masked-LM step"),
    "fine-tuning": table_of("fine-tuning"),
    "generating": table_of("generating"),
    "attention": table_of("attention"),
    "text": table_of("tokenizing"),
    "files": table_of("opening", "saving", "importing"),
    "gpu": gpu,
    "memory": lambda results, images: tables.memory(results.own.get("memory")),
    "lm-head": lambda results, images: tables.lm_head(results.own.get("lm_head")),
    "convert": lambda results, images: tables.convert(results.own.get("convert")),
    "integers": integers,
}


def names(text: str) -> Sequence[str]:
    """Return the regions of a page."""
    return [found["name"] for found in REGION.finditer(text)]
