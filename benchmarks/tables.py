"""The tables of `docs/benchmarks.md`, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from measured import PRODUCT_GFLOP, Case
from runner import Spread

# The sides of forward passes, in the order of the columns.
SIDES = {
    "pt": (
        *("ours", "ours optimized", "ours compiled", "ours optimized compiled", "ours bfloat16"),
        *("ours optimized bfloat16", "ours optimized products", "peer", "peer compiled", "peer bfloat16", "onnx"),
        "bert",
    ),
    "tf": (
        *("ours", "ours xla", "ours optimized", "ours optimized xla", "ours bfloat16", "ours products", "peer"),
        *("peer xla", "peer pt"),
    ),
}

# Of whom a case's ratios are told: the first of these that was measured.
YARDSTICKS = ("peer", "peer pt", "plain", "ours")


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; what is not the first column is aligned to the right where it is a number."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def seconds(value: float) -> str:
    """Return a time in a unit that suits it."""
    if value < 1e-3:
        return f"{value * 1e6:.0f} us"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


def size(value: int | None) -> str:
    return "" if value is None else f"{value / 1e6:,.0f} MB"


def spread(found: Spread) -> str:
    return f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"


def gflop_per_second(times: Sequence[float]) -> float:
    """Return the rate of the machine's own products, from their medians in several cases."""
    return PRODUCT_GFLOP / statistics.median(times)


def yardstick(case: Case) -> str:
    """Return the side that a case's ratios are told of."""
    return next(side for side in (*YARDSTICKS, *case.times) if side in case.times)


def title(case: Case) -> str:
    """Return what tells a case's row from others."""
    shape = f"{case.batch} x {case.length}" if case.length else f"{case.batch:,}" if case.batch else ""
    return ", ".join(filter(None, (case.subject, shape)))


def sides(cases: Sequence[Case], names: Sequence[str], cell: Callable[[Case, str], str]) -> str:
    """Return a table with a row for each case and a column for each side that any of them has."""
    kept = [name for name in names if any(name in case.times for case in cases)]
    rows = [[title(case), *(cell(case, name) if name in case.times else "" for name in kept)] for case in cases]
    return markdown(("", *kept), rows)


def time_cell(case: Case, side: str, other: str = "") -> str:
    """Return a side's time and how many times as long another takes: the yardstick, unless it is named."""
    timing = case.times[side]
    other = other if other in case.times else yardstick(case)
    ratio = "" if side == other else f"<br>{case.ratio(other, side).median:.2f}x"
    return seconds(timing.median) + ratio


def share_cell(case: Case, side: str) -> str:
    """Return a side's share of the machine's rate, and its memory."""
    share = case.share(side)
    return "<br>".join(filter(None, (f"{share.median:.0%}" if share else "", size(case.memory.get(side)))))


def rows(cases: Sequence[Case]) -> str:
    """Return a table with a row for each side of each case."""
    header = ("case", "side", "time", "yardstick's / this (quartiles)", "share of the rate", "memory")
    found = []
    for case in cases:
        other = yardstick(case)
        head = f"{case.case}, {title(case)}" + (f", {FRAMEWORKS[case.framework]}" if case.framework else "")
        for side, timing in case.times.items():
            share = case.share(side)
            time = seconds(timing.median)
            if case.units:
                time += f" ({case.units / timing.median:,.0f} a second)"
            found.append(
                [
                    head,
                    side,
                    time,
                    "" if side == other else spread(case.ratio(other, side)),
                    f"{share.median:.0%}" if share else "",
                    size(case.memory.get(side)),
                ]
            )
            head = ""
    return markdown(header, found)


FRAMEWORKS = {"pt": "PyTorch", "tf": "Keras"}


def refused(cases: Iterable[Case]) -> str:
    """Return what sides could not do."""
    found = [f"- {title(case)}, {side}: `{why}`" for case in cases for side, why in case.refused.items()]
    return "\n".join(["", "Could not be run:", *found, ""]) if found else ""


# Benchmarks with results of their own form.


def memory(content: Mapping[str, Any] | None) -> str:
    """Return the peaks of creating, saving and opening, in parts of the model's own size."""
    if content is None:
        return ""
    cases = content["cases"]
    heads = list(dict.fromkeys(case["head"] for case in cases))
    sizes = {case["head"]: case["size"] for case in cases}
    header = (" / ".join(f"{sizes[head] / 1e9:.1f} GB" for head in heads), "create", "save", "open")
    found = {(case["framework"], case["side"], case["action"], case["head"]): case for case in cases}
    table = []
    for framework, side in dict.fromkeys(key[:2] for key in found):
        libraries = content["versions"].get(f"{side} {framework}", {})
        name = f"{FRAMEWORKS[framework]}, ours" if side == "ours" else f"transformers {libraries.get('transformers')}"
        cells = []
        for action in header[1:]:
            measured = [found.get((framework, side, action, head)) for head in heads]
            text = " / ".join(f"{case['ratio']:.2f}" if case else "-" for case in measured)
            mapped = any(case and case["private"] < case["peak"] / 2 for case in measured)
            cells.append(text + (" (mapped)" if mapped else ""))
        table.append([name, *cells])
    return markdown(header, table)


def lm_head(content: Mapping[str, Any] | None) -> str:
    """Return how many times ours the other sides take."""
    if content is None:
        return ""
    from lm_head import FRAMEWORKS as NAMES
    from lm_head import gradient_bytes

    own = gradient_bytes(content["options"]["vocab"])
    header = ("", "time: plain, peer", "memory: plain, peer", "less the gradients: plain, peer")
    table = []
    for result in content["results"]:
        others = [side for side in ("plain", "peer") if side in result["seconds"]]
        took = {side: statistics.median(rounds) for side, rounds in result["seconds"].items()}
        cells = [", ".join(f"{took[side] / took['ours']:.1f}" for side in others)]
        for less in (0, own):
            parts = [(result["memory"][side] - less) / (result["memory"]["ours"] - less) for side in others]
            cells.append(", ".join(f"{part:.1f}" for part in parts))
        version = result["versions"].get("peer", {}).get("transformers")
        cells[0] += f" (transformers {version})" if version else ""
        table.append([NAMES[result["framework"]], *cells])
    return markdown(header, table)


def convert(content: Mapping[str, Any] | None) -> str:
    """Return each conversion's time and memory."""
    if content is None:
        return ""
    found = {(case["source_form"], case["to"], case["side"]): case for case in content["cases"]}
    header = ("from", "to", "ours", "a copy", "transformers 4.57.6", "ours, memory", "its memory")
    table = []
    for source, to in dict.fromkeys(key[:2] for key in found):
        ours, copy, peer = (found.get((source, to, side)) for side in ("ours", "copy", "peer"))
        cells = []
        for case in (ours, copy, peer):
            part = "" if case is ours or not (ours and case) else f" ({case['median'] / ours['median']:.2f})"
            cells.append(f"{case['median']:.1f} s{part}" if case else "")
        cells += [f"{case['peak'] / 1e6:,.0f} MB" if case else "" for case in (ours, peer)]
        table.append([f"`{source}`", f"`{to}`", *cells])
    return markdown(header, table)


def integers(cases: Sequence[Case]) -> str:
    """Return the times of 8-bit integers and of what stands beside them, how much faster than the first, and errors."""

    def cell(case: Case, side: str) -> str:
        first = next(iter(case.times))
        parts = [seconds(case.times[side].median)]
        if side != first:
            parts.append(f"{case.ratio(first, side).median:.2f}x")
        if side in case.errors:
            parts.append(f"error {case.errors[side]:.3f}")
        return "<br>".join(parts)

    return sides(cases, list(dict.fromkeys(side for case in cases for side in case.times)), cell)


def int8_accuracy(content: Mapping[str, Any] | None) -> str:
    """Return what fine-tuned models lose by 8-bit integers."""
    if content is None:
        return ""
    table = []
    for name, found in content.items():
        cells = [f"{found['sides'][side]['accuracy']:.2%}" for side in ("float32", "bfloat16", "int8")]
        cells += [str(found["changed"][side]) for side in ("bfloat16", "int8")]
        table.append([name, str(found["examples"]), *cells])
    header = ("accuracy", "examples", "float32", "bfloat16", "int8", "answers changed by bfloat16", "by int8")
    return markdown(header, table)
