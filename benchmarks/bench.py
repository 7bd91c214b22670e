"""The models beside their peers: what the goals need, everything (the default), on a GPU, or in 8-bit integers.

    python benchmarks/bench.py --short

`make bench`, `make bench-full`, `make bench-gpu` and `make bench-int8` install the peers and run this;
`docs/benchmarks.md` says how it measures, and is written anew at the end. Each case goes into the results as soon as it
is measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cases import CASES, Bench, Setting, family_of
from goals import GOALS, settings_of
from measured import Case, record
from page import goal_rows, results_of, write_page

RESULTS = Path(__file__).parent / "results"
FAMILIES = ("mobilebert", "squeezebert", "convbert", "rembert")
FRAMEWORKS = {"pt": "PyTorch", "tf": "Keras"}

# The lengths and the batches that pictures show, beside 1 and 8 texts of 128 tokens.
LENGTHS = (16, 32, 64, 256, 512)
BATCHES = (2, 4, 16, 32)
SIZES = ("mobilebert-tiny", "convbert-small", "convbert-medium-small")

FORWARD = {
    "pt": (
        *("ours", "ours optimized", "ours compiled", "ours optimized compiled", "ours bfloat16"),
        *("ours optimized bfloat16", "peer", "peer compiled", "peer bfloat16", "onnx", "bert"),
    ),
    "tf": ("ours", "ours xla", "ours optimized", "ours optimized xla", "ours bfloat16", "peer", "peer xla"),
}
TRAINING = {
    "pt": ("ours", "ours compiled", "ours bfloat16", "peer", "peer compiled", "peer bfloat16"),
    "tf": ("ours", "ours xla", "peer", "peer xla"),
}
SWEEP = ("ours", "ours optimized", "peer")
BOTH = ("ours", "peer")

INT8_SIDES = ("ours optimized", "ours optimized bfloat16", "ours int8", "onnx int8", "peer int8 compiled")

GPU_SIDES = tuple(
    " ".join(filter(None, (who, how, dtype)))
    for dtype in ("", "bfloat16", "float16")
    for who in ("ours", "ours optimized", "peer")
    for how in ("", "compiled", "graphs")
)
GPU_TRAINING = ("ours", "ours compiled", "ours bfloat16", "peer", "peer compiled", "peer bfloat16")


def full_settings() -> list[Setting]:
    """Return every case that the cases' page shows."""
    found = []
    for framework in FRAMEWORKS:
        for family in FAMILIES:
            # There is no TensorFlow SqueezeBERT but ours; its peer is the one in PyTorch.
            has_peer = framework == "pt" or family != "squeezebert"

            def of(sides: Sequence[str], has_peer: bool = has_peer) -> tuple[str, ...]:
                kept = tuple(side for side in sides if has_peer or not side.startswith("peer"))
                return kept if has_peer else (*kept, "peer pt")

            for batch in (1, 8):
                found.append(Setting("forward", family, framework, batch, 128, of(FORWARD[framework])))
            found.append(Setting("training step", family, framework, 8, 128, of(TRAINING[framework])))
            if family != "rembert":  # whose words are `lm_head.py`'s business
                found.append(Setting("masked-LM step", family, framework, 8, 128, of(TRAINING[framework])))
            found.append(Setting("saving", family, framework, 0, 0, of(BOTH)))
        for batch in (1, 8):
            found.append(Setting("generating", "rembert", framework, batch, 32, BOTH))
    for family in FAMILIES[:-1]:
        found += [Setting("forward", family, "pt", 1, length, SWEEP) for length in LENGTHS]
        found += [Setting("forward", family, "pt", batch, 128, SWEEP) for batch in BATCHES]
    found += [Setting("forward", size, "pt", batch, 128, SWEEP) for size in SIZES for batch in (1, 8)]
    found.append(Setting("attention", "convbert", "pt", 8, 512, BOTH))
    return found


def gpu_settings() -> list[Setting]:
    """Return the cases of a GPU: the time of one text, many texts at once, and training."""
    found = []
    for family in FAMILIES:
        found += [Setting("forward", family, "pt", batch, 128, GPU_SIDES) for batch in (1, 256)]
        found.append(Setting("training step", family, "pt", 32, 128, GPU_TRAINING))
    return found


def int8_settings() -> list[Setting]:
    """Return the cases of 8-bit integers, beside other ways to them."""
    found = []
    # RemBERT's others need more memory and time than such a machine has; torchao leaves SqueezeBERT's maps as they are.
    counts = {"rembert": 3, "squeezebert": 4}
    for family in FAMILIES:
        sides = INT8_SIDES[: counts.get(family)]
        found += [Setting("forward", family, "pt", batch, 128, sides) for batch in (1, 8)]
    return found


SETTINGS = {
    "goals": lambda: settings_of(GOALS),
    "full": full_settings,
    "gpu": gpu_settings,
    "int8": int8_settings,
}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group()
    which.set_defaults(form="full")
    for name, form, what in (
        ("--short", "goals", "measure what the goals name, and nothing else"),
        ("--gpu", "gpu", "measure on a GPU"),
        ("--int8", "int8", "measure 8-bit integers"),
        ("--page", "page", "measure nothing, and write the page anew"),
    ):
        which.add_argument(name, dest="form", action="store_const", const=form, help=what)
    add("--peer", default=".peers-5/bin/python", help="interpreter with PyTorch and transformers 5 (%(default)s)")
    add("--tf-peer", default=".peers/bin/python", help="one with TensorFlow and transformers 4.57.6 (%(default)s)")
    add("--cases", nargs="+", choices=CASES, metavar="CASE", help=f"of {', '.join(CASES)}")
    add("--subjects", nargs="+", metavar="NAME", help="families or sizes of them")
    add("--frameworks", nargs="+", choices=FRAMEWORKS, help="pt, tf")
    add("--batches", nargs="+", type=positive, metavar="N", help="batches of so many texts alone")
    add("--lengths", nargs="+", type=positive, metavar="N", help="texts of so many tokens alone")
    add("--sides", nargs="+", metavar="SIDE", help="so much of the sides alone, such as ours 'ours optimized' peer")
    add("--rounds", type=positive, metavar="N", help="turns of each side (7; 5 in short); fewer where a call is slow")
    add("--seconds", type=float, default=0.4, metavar="S", help="length of a turn, of two calls at least (%(default)s)")
    add("--threads", type=positive, default=2, metavar="N", help="threads of each side (%(default)s)")
    add("--layers", type=positive, metavar="N", help="cut the models to so many layers, to try the benchmark out")
    add("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the results go (benchmarks/results)")
    add("--no-page", action="store_true", help="leave the page as it is")
    chosen = parser.parse_args(arguments)
    for subject in chosen.subjects or ():
        try:
            family_of(subject)
        except StopIteration:
            parser.error(f"argument --subjects: {subject!r} is no family and no size of one")
    chosen.device = "cuda" if chosen.form == "gpu" else "cpu"
    chosen.memory = chosen.form in ("full", "gpu")
    chosen.rounds = chosen.rounds or (7 if chosen.memory else 5)
    return chosen


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def settings(chosen: argparse.Namespace) -> list[Setting]:
    """Return what the options ask for."""
    kept = []
    for one in SETTINGS[chosen.form]():
        wanted = (
            (chosen.cases, one.case),
            (chosen.subjects, one.subject),
            (chosen.frameworks, one.framework),
            (chosen.batches, one.batch),
            (chosen.lengths, one.length),
        )
        sides = tuple(side for side in one.sides if chosen.sides is None or side in chosen.sides)
        if sides and all(names is None or value in names for names, value in wanted):
            kept.append(Setting(*one.key, sides))
    return kept


def results_file(chosen: argparse.Namespace, case: Case) -> Path:
    """Return where a case is recorded: those of the full form by what they do, the others together."""
    name = case.case.replace(" ", "-") if chosen.form == "full" else chosen.form
    return Path(chosen.results) / f"{name}.json"


def table_of(cases: Sequence[Case]) -> Table:
    """Return what was measured as a table."""
    table = Table(title="Each side beside the first one of ours", show_lines=True)
    for title in ("case", "side"):
        table.add_column(title)
    for title in ("time", "quartiles", "ours is faster by", "share of the rate", "memory"):
        table.add_column(title, justify="right")
    for case in cases:
        first = next((side for side in case.times if side.startswith("ours")), None)
        head = f"{case.case}, {case.subject}, {case.framework}, {case.batch} x {case.length}"
        for side, timing in case.times.items():
            ratio = case.ratio(side, first) if first else None
            share, memory = case.share(side), case.memory.get(side)
            low, high = timing.quartiles
            table.add_row(
                head,
                side,
                f"{timing.median * 1e3:.1f} ms",
                f"{low * 1e3:.1f} to {high * 1e3:.1f}",
                f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "-",
                f"{share.median:.0%}" if share else "-",
                "-" if memory is None else f"{memory / 1e6:.0f} MB",
            )
            head = ""
    return table


def name_of_gpu() -> str:
    """Return the GPU's name; end the run where PyTorch sees none."""
    if importlib.util.find_spec("torch") is None:
        sys.exit("bench.py: error: --gpu needs PyTorch, which is not installed.")
    import torch

    if not torch.cuda.is_available():
        sys.exit(
            f"bench.py: error: --gpu: PyTorch {torch.__version__} sees no GPU on this machine. Where there is one, "
            "install PyTorch's build for it into .venv and .peers-5 (https://pytorch.org/get-started)."
        )
    return torch.cuda.get_device_name()


def main() -> None:
    chosen = options()
    console = Console() if Console().is_terminal else Console(width=140)  # a file has no width of its own
    failures: list[str] = []
    if chosen.form != "page":
        machine = {"threads": chosen.threads} | ({"gpu": name_of_gpu()} if chosen.form == "gpu" else {})
        load = os.getloadavg()[0]
        if load > 0.5:
            console.print(f"[yellow]The machine is busy (load {load:.1f}): times will be too long, and ratios unsure.")
        bench, cases = Bench(chosen, console), []
        for case in bench.run(settings(chosen)):
            case.about |= machine
            record(results_file(chosen, case), case)
            cases.append(case)
        console.print(table_of(cases))
        failures = bench.failures
    results = results_of(chosen.results)
    if chosen.form == "goals":
        goals = Table(title="What is to be reached")
        for title in ("goal", "at least", "measured", "share of the rate", "met"):
            goals.add_column(title)
        for cells in goal_rows(results):
            goals.add_row(*cells)
        console.print(goals)
    if not chosen.no_page:
        write_page(results)
    if failures:
        sys.exit("bench.py: error: " + "; ".join(failures))


if __name__ == "__main__":
    main()
