"""The memory that it takes to create, save and open a model of full size: ours beside the peers'.

    python benchmarks/memory.py --peer .peers-5/bin/python --tf-peer .peers/bin/python

`make bench` installs the peers and runs this; `docs/benchmarks.md` says how it measures. Linux only.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.table import Table

import isobert
from isobert.core.hub import write_json
from isobert.core.registry import FAMILIES
from runner import PEAK_RESET, BenchmarkError, Worker

HERE = Path(__file__).parent
FRAMEWORKS = {"pt": "PyTorch", "tf": "Keras"}
ACTIONS = ("create", "save", "open")

# What ours may take of memory, relative to the parameters' own size.
MOST = 1.3


@dataclass
class Case:
    """What one action took on one side.

    Attributes:
        family, head, framework, side, action: what was measured.
        size: bytes of the model's parameters.
        peak: the most bytes that were resident at once, beyond those of the process before.
        private: those of them that are no pages of mapped files, as far as samples tell.
    """

    family: str
    head: str
    framework: str
    side: str
    action: str
    size: int
    peak: int
    private: int

    @property
    def ratio(self) -> float:
        """The peak relative to the model's own size."""
        return self.peak / self.size

    @property
    def too_much(self) -> bool:
        """Whether ours takes more than it may."""
        return self.side == "ours" and self.ratio > MOST


class Watch:
    """Samples how much private memory a process has; a context manager.

    The kernel keeps no peak of it, so a need that is over within a few milliseconds may be missed.

    Args:
        process: its number.

    Attributes:
        peak: the most bytes that a sample found.
    """

    def __init__(self, process: int) -> None:
        self._status = Path(f"/proc/{process}/status")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak = 0

    def _sample(self) -> None:
        while not self._done.wait(0.002):
            for line in self._status.read_text(encoding="ascii", errors="replace").splitlines():
                if line.startswith("RssAnon:"):
                    self.peak = max(self.peak, int(line.split()[1]) * 1024)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()


class Benchmark:
    """A run: each side in each framework, one process at a time.

    Args:
        chosen: the options.
        console: what is being done is told there.
    """

    def __init__(self, chosen: argparse.Namespace, console: Console) -> None:
        self.chosen = chosen
        self.console = console
        self.versions: dict[str, dict[str, str]] = {}

    def run(self) -> Iterator[Case]:
        """Yield each case once it is measured."""
        config_class = getattr(isobert, FAMILIES[self.chosen.family].config_name or "")
        cut = {"num_hidden_layers": self.chosen.layers} if self.chosen.layers else {}
        config = config_class.from_size(next(iter(config_class.sizes)), **cut)
        for head in self.chosen.heads:
            for framework in self.chosen.frameworks:
                for side in self.chosen.sides:
                    with tempfile.TemporaryDirectory() as folder:
                        config.save_pretrained(folder)
                        yield from self.side(head, framework, side, Path(folder))

    def side(self, head: str, framework: str, side: str, folder: Path) -> Iterator[Case]:
        """Let one side create and save a model, and then open it in a new process."""
        saved = folder / "saved"
        for actions in (("create", "save"), ("open",)):
            with self.worker(side, framework) as worker:
                about = worker.ask("prepare", folder=str(folder), head=head)
                self.versions[f"{side} {framework}"] = about["versions"]
                for action in actions:
                    self.console.print(f"{head}, {FRAMEWORKS[framework]}, {side}: {action} ...", highlight=False)
                    where = {} if action == "create" else {"folder": str(saved)}
                    with Watch(about["process"]) as watch:
                        peak = worker.ask(action, **where)
                    private = watch.peak - about["private"]
                    size = worker.ask("size")
                    yield Case(self.chosen.family, head, framework, side, action, size, peak, private)
        shutil.rmtree(saved)

    def worker(self, side: str, framework: str) -> Worker:
        """Return a worker in the interpreter of a side."""
        peers = {"pt": self.chosen.peer, "tf": self.chosen.tf_peer}
        environment = {
            "OMP_NUM_THREADS": "2",
            "CUDA_VISIBLE_DEVICES": "",
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # The peer's TensorFlow classes are Keras 2's.
            "TF_USE_LEGACY_KERAS": "1" if side == "peer" else "0",
            "HF_HUB_OFFLINE": "1",
        }
        interpreter = sys.executable if side == "ours" else peers[framework]
        return Worker(interpreter, HERE / "memory_worker.py", side, framework, environment=environment)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peer", default=".peers-5/bin/python", help="interpreter with PyTorch and transformers 5 (%(default)s)")
    add("--tf-peer", default=".peers/bin/python", help="one with TensorFlow and transformers 4.57.6 (%(default)s)")
    add("--family", choices=[name for name, family in FAMILIES.items() if family.heads], default="rembert")
    add("--heads", nargs="+", default=["Model", "ForMaskedLM"], metavar="HEAD", help="by default Model ForMaskedLM")
    add("--frameworks", nargs="+", choices=FRAMEWORKS, default=["pt", "tf"], help="by default pt tf")
    add("--sides", nargs="+", choices=["ours", "peer"], default=["ours", "peer"], help="by default ours peer")
    add("--layers", type=int, metavar="N", help="cut the model to so many layers, to try the benchmark out")
    add("--json", type=Path, metavar="FILE", help="also write everything that was measured to a file")
    return parser.parse_args(arguments)


def table_of(cases: Sequence[Case]) -> Table:
    """Return what was measured as a table."""
    table = Table(title="Memory at its peak, in parts of the model's own size")
    for title in ("model", "framework", "action"):
        table.add_column(title)
    for title in ("size", "ours", "peer", "ours, private", "peer's, private"):
        table.add_column(title, justify="right")
    found = {(case.head, case.framework, case.action, case.side): case for case in cases}
    for head, framework, action in dict.fromkeys(key[:3] for key in found):
        sides = [found.get((head, framework, action, side)) for side in ("ours", "peer")]
        one = next(filter(None, sides))
        table.add_row(
            f"{one.family}, {head}",
            FRAMEWORKS[framework],
            action,
            f"{one.size / 1e9:.2f} GB",
            *(f"{case.ratio:.2f}" if case else "-" for case in sides),
            *(f"{case.private / case.size:.2f}" if case else "-" for case in sides),
            style="red" if one.too_much else None,
        )
    return table


def report(cases: Sequence[Case], benchmark: Benchmark) -> dict[str, Any]:
    """Return everything that was measured, for JSON."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": {"memory": memory, "system": platform.platform(), "python": platform.python_version()},
        "versions": benchmark.versions,
        "cases": [asdict(case) | {"ratio": case.ratio} for case in cases],
    }


def main() -> None:
    chosen = options()
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a file has no width of its own
    if not PEAK_RESET.exists():
        sys.exit("memory.py: error: this system does not tell a process's peak memory; run it on Linux.")
    benchmark = Benchmark(chosen, console)
    try:
        cases = list(benchmark.run())
    except BenchmarkError as error:
        sys.exit(f"memory.py: error: {error}")
    console.print(table_of(cases))
    for side, versions in benchmark.versions.items():
        console.print(f"{side}: " + ", ".join(map(" ".join, versions.items())), highlight=False)
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(chosen.json, report(cases, benchmark))
    if any(case.too_much for case in cases):
        sys.exit(f"memory.py: error: ours takes more than {MOST} times its own size.")


if __name__ == "__main__":
    main()
