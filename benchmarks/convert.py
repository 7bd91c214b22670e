"""Converting a checkpoint of full size: time and memory, beside a plain copy of the file and beside the peer's way.

    python benchmarks/convert.py --tf-peer .peers/bin/python

The peer converts by loading a model in one framework and saving it from the other. Each conversion is a process of its
own: this script again, as a worker: `convert.py ours|copy|peer`. `docs/benchmarks.md` says what is measured. Linux
only.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from runner import PEAK_RESET, BenchmarkError, Worker, resident, serve

SIDES = {"ours": "isobert", "copy": "a plain copy", "peer": "transformers 4.57.6"}

CASES = (
    # (from, to): the peer has no way to the Keras forms.
    ("safetensors", "transformers-h5"),
    ("transformers-h5", "safetensors"),
    ("safetensors", "torch-bin"),
    ("torch-bin", "safetensors"),
    ("safetensors", "keras"),
    ("keras", "safetensors"),
)

# Beyond the interpreter, ours may take so many of the largest tensor: it, and a copy of it in another layout.
MOST_TENSORS = 2.5


# In the worker.


class Side:
    """One conversion. Memory is counted from what the process has once all is imported."""

    def __init__(self, side: str) -> None:
        self.side = side

    def prepare(self, to: str, source_form: str) -> dict[str, str]:
        """Import what the conversion needs, and return the versions of it."""
        names = {
            "copy": [],
            "ours": ["isobert", "h5py", "safetensors", *["torch"] * ("torch-bin" in (to, source_form))],
            "peer": ["transformers", "torch", *["tensorflow"] * ("transformers-h5" in (to, source_form))],
        }[self.side]
        for name in names:
            import_module(name)
        if self.side == "ours":
            import_module("isobert.conversion.convert")
        if self.side == "peer":
            import_module("transformers.models.rembert.modeling_rembert")
            if "tensorflow" in names:
                import_module("transformers.models.rembert.modeling_tf_rembert")
        return {name: version(name) for name in names if name != "tensorflow"}

    def convert(self, source: str, source_form: str, target: str, to: str) -> dict[str, float]:
        """Convert, have everything on the disk, and return seconds and the most bytes that were resident."""
        before = resident("VmRSS")
        PEAK_RESET.write_text("5")
        start = time.perf_counter()
        getattr(self, f"_{self.side}")(Path(source), source_form, Path(target), to)
        for file in Path(target).iterdir():
            with open(file, "rb+") as written:
                os.fsync(written.fileno())
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "peak": resident("VmHWM") - before}

    def _ours(self, source: Path, source_form: str, target: Path, to: str) -> None:
        from isobert.conversion.convert import convert

        convert(source, target, to=to)

    def _copy(self, source: Path, source_form: str, target: Path, to: str) -> None:
        target.mkdir()
        for file in source.iterdir():
            shutil.copyfile(file, target / file.name)

    def _peer(self, source: Path, source_form: str, target: Path, to: str) -> None:
        import transformers

        if to == "transformers-h5":
            model = transformers.TFRemBertModel.from_pretrained(source, from_pt=True)
        elif source_form == "transformers-h5":
            # Its `from_pretrained(from_tf=True)` leaves tensors without data; this is the function behind it.
            from transformers.modeling_tf_pytorch_utils import load_tf2_checkpoint_in_pytorch_model

            model = transformers.RemBertModel(transformers.RemBertConfig.from_pretrained(source))
            load_tf2_checkpoint_in_pytorch_model(model, str(source / "tf_model.h5"), allow_missing_keys=True)
        else:
            model = transformers.RemBertModel.from_pretrained(source)
        model.save_pretrained(target, safe_serialization=to == "safetensors", max_shard_size="100GB")


# In the parent.


@dataclass
class Case:
    """One conversion by one side.

    Attributes:
        source_form, to, side: what was measured.
        seconds: of each round.
        peak: the most bytes that were resident at once, beyond those of the process before; of the worst round.
        size: bytes of the tensors.
        largest: bytes of the largest.
    """

    source_form: str
    to: str
    side: str
    size: int
    largest: int
    seconds: list[float] = field(default_factory=list)
    peak: int = 0

    @property
    def median(self) -> float:
        """The middle of the rounds' seconds."""
        return statistics.median(self.seconds)

    @property
    def too_much(self) -> bool:
        """Whether ours takes more memory than a few tensors."""
        return self.side == "ours" and self.peak > MOST_TENSORS * self.largest


class Benchmark:
    """A run: every conversion by every side that can do it, one process at a time.

    Args:
        chosen: the options.
        folder: where the checkpoints lie.
    """

    def __init__(self, chosen: argparse.Namespace, folder: Path) -> None:
        self.chosen = chosen
        self.folder = folder
        self.versions: dict[str, dict[str, str]] = {}

    def run(self) -> Iterator[Case]:
        """Yield each case once it is measured."""
        from isobert.conversion.convert import convert

        native = self.folder / "safetensors"
        size, largest = make_checkpoint(native, self.chosen.layers)
        for source_form, to in CASES:
            source = self.folder / source_form
            if not source.exists():
                convert(native, source, to=source_form)
            sides = [side for side in self.chosen.sides if side != "peer" or "keras" not in (source_form, to)]
            cases = {side: Case(source_form, to, side, size, largest) for side in sides}
            for number in range(self.chosen.rounds):
                for side in sides[:: 1 if number % 2 == 0 else -1]:
                    found = self.once(side, source, source_form, to)
                    cases[side].seconds.append(found["seconds"])
                    cases[side].peak = max(cases[side].peak, int(found["peak"]))
            yield from cases.values()
            if source != native:
                shutil.rmtree(source)

    def once(self, side: str, source: Path, source_form: str, to: str) -> dict[str, float]:
        """Have one side convert once, from the disk and not from the system's cache of it."""
        target = self.folder / "target"
        for file in source.iterdir():
            forget(file)
        environment = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}
        interpreter = self.chosen.tf_peer if side == "peer" else sys.executable
        with Worker(interpreter, Path(__file__), side, environment=environment) as worker:
            self.versions[side] = self.versions.get(side, {}) | worker.ask("prepare", to=to, source_form=source_form)
            found: dict[str, float] = worker.ask(
                "convert", source=str(source), source_form=source_form, target=str(target), to=to
            )
        shutil.rmtree(target)
        return found


def forget(file: Path) -> None:
    """Have the system's cache forget a file."""
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_checkpoint(folder: Path, layers: int | None) -> tuple[int, int]:
    """Write a RemBERT of full size with random weights; return the bytes of its tensors and of the largest."""
    import numpy as np

    import isobert
    from isobert.conversion.checkpoint import LazyTensor, write_checkpoint
    from isobert.conversion.expected import expected_tensors
    from isobert.conversion.formats.base import byte_size

    config = isobert.RemBertConfig.from_size("rembert", **({"num_hidden_layers": layers} if layers else {}))
    random = np.random.default_rng(0)

    def drawn(shape: tuple[int, ...]) -> LazyTensor:
        return LazyTensor(shape, np.dtype(np.float32), lambda: random.standard_normal(shape, np.float32))

    tensors = {name: drawn(shape) for name, shape in expected_tensors(config, "Model").items()}
    write_checkpoint(folder, tensors)
    config.replace(architectures=["RemBertModel"]).save_pretrained(folder)
    sizes = [byte_size(tensor) for tensor in tensors.values()]
    return sum(sizes), max(sizes)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--tf-peer", default=".peers/bin/python", help="interpreter with transformers 4.57.6 (%(default)s)")
    add("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="by default all")
    add("--rounds", type=int, default=3, metavar="N", help="how often each side converts (%(default)s)")
    add("--layers", type=int, metavar="N", help="cut the model to so many layers, to try the benchmark out")
    add("--json", type=Path, metavar="FILE", help="also write everything that was measured to a file")
    return parser.parse_args(arguments)


def show(cases: Sequence[Case]) -> None:
    """Print what was measured as a table."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a file has no width of its own
    table = Table(
        title=f"Converting {cases[0].size / 1e9:.2f} GB; the largest tensor is {cases[0].largest / 1e6:.0f} MB"
    )
    for title in ("from", "to"):
        table.add_column(title)
    for title in ("ours", "a copy", "peer", "ours, memory", "peer's, memory"):
        table.add_column(title, justify="right")
    found = {(case.source_form, case.to, case.side): case for case in cases}
    for source_form, to in dict.fromkeys(key[:2] for key in found):
        ours, copy, peer = (found.get((source_form, to, side)) for side in SIDES)
        table.add_row(
            source_form,
            to,
            *(f"{case.median:.1f} s{_beside(case, ours)}" if case else "-" for case in (ours, copy, peer)),
            *(f"{case.peak / 1e6:,.0f} MB" if case else "-" for case in (ours, peer)),
            style="red" if ours and ours.too_much else None,
        )
    console.print(table)


def _beside(case: Case, ours: Case | None) -> str:
    return "" if ours is None or case is ours else f" ({case.median / ours.median:.2f})"


def main() -> None:
    if sys.argv[1:] and sys.argv[1] in SIDES:
        side = Side(sys.argv[1])
        serve({"prepare": side.prepare, "convert": side.convert})
        return
    chosen = options()
    if not PEAK_RESET.exists():
        sys.exit("convert.py: error: this system does not tell a process's peak memory; run it on Linux.")
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(chosen, Path(folder))
        try:
            cases = list(benchmark.run())
        except BenchmarkError as error:
            sys.exit(f"convert.py: error: {error}")
    show(cases)
    for side, versions in benchmark.versions.items():
        print(f"{side}: {', '.join(map(' '.join, versions.items())) or 'shutil.copyfile'}")
    if chosen.json:
        from isobert.core.hub import write_json

        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        machine = {"system": platform.platform(), "python": platform.python_version()}
        write_json(
            chosen.json,
            {
                "machine": machine,
                "versions": benchmark.versions,
                "cases": [asdict(case) | {"median": case.median} for case in cases],
            },
        )
    if any(case.too_much for case in cases):
        sys.exit(f"convert.py: error: ours takes more than {MOST_TENSORS} times its largest tensor.")


if __name__ == "__main__":
    main()
