"""Our forward pass beside the peers': time, share of the machine's rate, and memory, on the same weights and inputs.

    python benchmarks/forward.py --peer .peers-5/bin/python --tf-peer .peers/bin/python

`make bench` installs the peers and runs this; `docs/benchmarks.md` says how it measures.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import gemm
import isobert
from flops import FORMULAS, forward_flop
from isobert.core.hub import write_json
from isobert.core.registry import FAMILIES
from runner import BenchmarkError, Timing, Worker, alternate

HERE = Path(__file__).parent
FRAMEWORKS = {"pt": "PyTorch, eager", "tf": "Keras, tf.function", "xla": "Keras, tf.function with XLA"}

# Both sides have the same weights, so that anything above rounding is a mistake of one of them.
MOST_DIFFERENCE = 1e-3

# transformers has no TensorFlow class of these.
WITHOUT_TF_PEER = ("squeezebert",)

# A part to measure alone, where the whole model hides how much memory it needs: its name, and on how many tokens.
PARTS = {"convbert": ("encoder.layer.0.attention.self", 8, 512)}


@dataclass
class Case:
    """One family in one framework on one batch: what is measured of both sides.

    Attributes:
        family, framework: see `FAMILIES` and `FRAMEWORKS`.
        part: the module that is measured alone; "" is the whole model.
        batch, length: texts, and tokens of each.
        flop: operations of one pass; 0 where they are not counted.
        times: each side's times ("ours", "peer"), and those of each kind of product.
        memory: each side's bytes beyond what the model itself holds, or None where the system does not tell.
        difference: the largest of the sides' differences from the first output, relative to its largest number.
    """

    family: str
    framework: str
    part: str
    batch: int
    length: int
    flop: int = 0
    times: dict[str, Timing] = field(default_factory=dict)
    memory: dict[str, int | None] = field(default_factory=dict)
    difference: float = 0.0

    @property
    def rate(self) -> float:
        """The machine's float32 rate in these rounds, in operations a second: the fastest kind of product."""
        return gemm.GFLOP * 1e9 / min(timing.median for name, timing in self.times.items() if name in gemm_kinds())

    def share(self, side: str) -> float:
        """Return which share of the machine's rate a side reaches."""
        return self.flop / self.times[side].median / self.rate


def gemm_kinds(frameworks: Sequence[str] = ("pt", "tf")) -> dict[str, str]:
    """Return each kind of product with the framework that offers it."""
    return {kind: framework for framework, kinds in gemm.KINDS.items() for kind in kinds if framework in frameworks}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    known = [name for name, family in FAMILIES.items() if family.heads and name in FORMULAS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peer", default=".peers-5/bin/python", help="interpreter with PyTorch and transformers 5 (%(default)s)")
    add("--tf-peer", default=".peers/bin/python", help="one with TensorFlow and transformers 4.57.6 (%(default)s)")
    add("--families", nargs="+", choices=known, default=known, metavar="FAMILY", help=f"of {', '.join(known)}")
    add("--frameworks", nargs="+", choices=FRAMEWORKS, default=["pt", "tf"], help="by default pt tf")
    add("--batches", nargs="+", type=positive, default=[1, 8], metavar="N", help="texts of a batch (1 8)")
    add("--length", type=positive, default=128, metavar="N", help="tokens of each text (%(default)s)")
    add("--rounds", type=positive, default=15, metavar="N", help="turns that each side takes (%(default)s)")
    add("--seconds", type=float, default=0.5, metavar="S", help="length of a turn, of two calls at least (%(default)s)")
    add("--threads", type=positive, default=2, metavar="N", help="threads of each side (%(default)s)")
    add("--layers", type=positive, metavar="N", help="cut the models to so many layers, to try the benchmark out")
    add("--json", type=Path, metavar="FILE", help="also write everything that was measured to a file")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


class Benchmark:
    """A run: starts the workers, lets them take turns and gathers what they measure.

    Args:
        chosen: the options.
        console: what is being done is told there.
    """

    def __init__(self, chosen: argparse.Namespace, console: Console) -> None:
        self.chosen = chosen
        self.console = console
        self.versions: dict[str, dict[str, str]] = {}
        self.stack = ExitStack()
        self.products: dict[str, Callable[[], list[float]]] = {}

    def run(self) -> Iterator[Case]:
        """Yield each case once it is measured."""
        with self.stack:
            frameworks = {"pt" if name == "pt" else "tf" for name in self.chosen.frameworks} | {"pt"}
            workers = {name: self.stack.enter_context(self.worker("gemm.py", name)) for name in sorted(frameworks)}
            for kind, framework in gemm_kinds(list(frameworks)).items():
                self.products[kind] = partial(
                    workers[framework].ask, "time", kind=kind, seconds=self.chosen.seconds / len(gemm_kinds())
                )
            for family in self.chosen.families:
                with tempfile.TemporaryDirectory() as folder:
                    yield from self.family(family, Path(folder))

    def family(self, family: str, folder: Path) -> Iterator[Case]:
        """Measure one family in every framework, on one checkpoint."""
        config_class = getattr(isobert, FAMILIES[family].config_name or "")
        cut = {"num_hidden_layers": self.chosen.layers} if self.chosen.layers else {}
        config = config_class.from_size(next(iter(config_class.sizes)), **cut)
        config.save_pretrained(folder)
        with Worker(sys.executable, HERE / "models.py", "make") as worker:
            worker.ask("make", folder=str(folder))
        reference: dict[int, np.ndarray] = {}
        for batch in self.chosen.batches:
            write_inputs(folder / f"{batch}.npz", config.vocab_size, batch, self.chosen.length)
        for framework in self.chosen.frameworks:
            with self.sides(family, framework, folder) as sides:
                for batch in self.chosen.batches:
                    case = Case(family, framework, "", batch, self.chosen.length)
                    case.flop = forward_flop(config, batch, self.chosen.length)
                    for side, worker in sides.items():
                        output = folder / "output.npy"
                        worker.ask("choose", inputs=str(folder / f"{batch}.npz"), output=str(output))
                        found = np.load(output)
                        apart = checked(found, reference.setdefault(batch, found), f"{family}, {framework}, {side}")
                        case.difference = max(case.difference, apart)
                    yield self.measure(case, sides)
                if framework == "pt" and family in PARTS:
                    part, batch, length = PARTS[family]
                    for worker in sides.values():
                        worker.ask("choose_part", name=part, batch=batch, length=length)
                    yield self.measure(Case(family, framework, part, batch, length), sides)

    def measure(self, case: Case, sides: dict[str, Worker]) -> Case:
        """Measure memory first, one side after the other, then times, in turns."""
        what = case.part or FRAMEWORKS[case.framework]
        self.console.print(f"{case.family}, {what}, {case.batch} x {case.length} ...", highlight=False)
        case.memory = {side: worker.ask("memory") for side, worker in sides.items()}
        turns = {side: partial(worker.ask, "time", seconds=self.chosen.seconds) for side, worker in sides.items()}
        case.times = alternate({**turns, **self.products}, self.chosen.rounds)
        return case

    @contextmanager
    def sides(self, family: str, framework: str, folder: Path) -> Iterator[dict[str, Worker]]:
        """Start both sides, ours and the peer's if there is one, each in a new process."""
        peer = None if framework != "pt" and family in WITHOUT_TF_PEER else "peer"
        with ExitStack() as stack:
            sides = {}
            for side in filter(None, ("ours", peer)):
                sides[side] = stack.enter_context(self.worker("models.py", side, framework))
                self.versions[f"{side} {framework}"] = sides[side].ask("open", folder=str(folder))
            yield sides

    def worker(self, script: str, *arguments: str) -> Worker:
        """Return a worker of the interpreter that its arguments ask for, with as many threads as the options say."""
        interpreter: str = sys.executable
        if "peer" in arguments:
            interpreter = self.chosen.peer if "pt" in arguments else self.chosen.tf_peer
        environment = {
            "OMP_NUM_THREADS": str(self.chosen.threads),
            "CUDA_VISIBLE_DEVICES": "",
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # The peer's TensorFlow classes are Keras 2's.
            "TF_USE_LEGACY_KERAS": "1" if "peer" in arguments else "0",
            "HF_HUB_OFFLINE": "1",
        }
        return Worker(interpreter, HERE / script, *arguments, str(self.chosen.threads), environment=environment)


def write_inputs(path: Path, vocab_size: int, batch: int, length: int) -> None:
    """Write what a tokenizer would return for texts without padding."""
    ids = np.random.default_rng(batch).integers(vocab_size // 2, vocab_size, (batch, length))
    np.savez(path, input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=np.zeros_like(ids))


def checked(found: np.ndarray, expected: np.ndarray, where: str) -> float:
    """Return the largest difference of two outputs, relative to the largest number of the second.

    Raises:
        BenchmarkError: it is more than rounding, or not a number, or the shapes differ.
    """
    if found.shape != expected.shape:
        raise BenchmarkError(f"{where}: the output's shape is {found.shape}, the first side's {expected.shape}.")
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not difference <= MOST_DIFFERENCE:
        raise BenchmarkError(
            f"{where}: the output differs by {difference:.1g} from the first side's; they are not the same model."
        )
    return difference


def table_of(cases: Sequence[Case]) -> Table:
    """Return what was measured as a table; a side that is not there has dashes."""
    table = Table(title="A forward pass in float32: ours beside transformers'", show_lines=True)
    table.add_column("model")
    for title in ("batch", "ours", "peer", "peer / ours", "our memory", "peer's", "differ by"):
        table.add_column(title, justify="right")
    for case in cases:
        ratio = case.times["peer"].ratio_to(case.times["ours"]) if "peer" in case.times else None
        table.add_row(
            f"{case.family}\n{case.part or FRAMEWORKS[case.framework]}",
            f"{case.batch} x {case.length}" + (f"\n{case.flop / 1e9:.1f} GFLOP" if case.flop else ""),
            times_of(case, "ours"),
            times_of(case, "peer"),
            f"{ratio.median:.2f}\n{ratio.low:.2f} to {ratio.high:.2f}" if ratio else "-",
            megabytes(case.memory["ours"]),
            megabytes(case.memory.get("peer")),
            f"{case.difference:.0e}" if not case.part else "-",
        )
    return table


def times_of(case: Case, side: str) -> str:
    """Return a side's time, its fastest round, and its share of the machine's rate."""
    timing = case.times.get(side)
    if timing is None:
        return "-"
    lines = [f"{timing.median * 1e3:.1f} ms", f"least {timing.least * 1e3:.1f} ms"]
    return "\n".join(lines + ([f"{case.share(side):.0%} of the rate"] if case.flop else []))


def megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.0f} MB"


def rates(cases: Sequence[Case]) -> dict[str, float]:
    """Return each kind of product's rate over all cases, in GFLOP a second."""
    kinds = [kind for kind in gemm_kinds() if kind in cases[0].times]
    return {kind: gemm.GFLOP / statistics.median(case.times[kind].median for case in cases) for kind in kinds}


def report(cases: Sequence[Case], benchmark: Benchmark, load: float) -> dict[str, Any]:
    """Return everything that was measured, for JSON."""
    told = {name: str(value) if isinstance(value, Path) else value for name, value in vars(benchmark.chosen).items()}
    results = []
    for case in cases:
        ours, peer = case.times["ours"], case.times.get("peer")
        sides = [side for side in ("ours", "peer") if side in case.times]
        results.append(
            asdict(case)
            | {"seconds": {name: {"median": t.median, "least": t.least} for name, t in case.times.items()}}
            | {"peer_over_ours": asdict(peer.ratio_to(ours)) if peer else None}
            | {"rate": case.rate, "share": {side: case.share(side) for side in sides if case.flop}}
        )
    machine = {"processor": processor(), "processors": os.cpu_count(), "load_before": load}
    return {
        "machine": machine | {"system": platform.platform(), "python": platform.python_version()},
        "options": told,
        "versions": benchmark.versions,
        "gflop_per_second": rates(cases),
        "cases": results,
    }


def processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def main() -> None:
    chosen = options()
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a file has no width of its own
    load = os.getloadavg()[0]
    if load > 0.5:
        console.print(f"[yellow]The machine is busy (load {load:.1f}): times will be too long, and ratios unsure.")
    benchmark = Benchmark(chosen, console)
    try:
        cases = list(benchmark.run())
    except BenchmarkError as error:
        sys.exit(f"forward.py: error: {error}")
    console.print(table_of(cases))
    found = ", ".join(f"{kind} {rate:.0f}" for kind, rate in rates(cases).items())
    console.print(f"The machine's float32 products, {gemm.SIZE} cubed, in GFLOP/s: {found}.", highlight=False)
    for side, versions in benchmark.versions.items():
        console.print(f"{side}: " + ", ".join(map(" ".join, versions.items())), highlight=False)
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(chosen.json, report(cases, benchmark, load))


if __name__ == "__main__":
    main()
