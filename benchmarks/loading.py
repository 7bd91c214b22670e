"""How long it takes to import the library, to run its command, and to open a checkpoint: beside transformers.

    python benchmarks/loading.py --peer .peers-5/bin/python --tf-peer .peers/bin/python

Every turn is a new process, as for a user who opens one model. It imports the model's class first, which is not
counted, and then opens a checkpoint of full size that lies in the system's cache of files. All sides open one
`model.safetensors`, but for transformers 4.57.6's Keras, which opens a `tf_model.h5` of the same numbers. Opening may
leave numbers in the file until they are used, so there is a case in which every number is read once. Each side is this
script again, as a worker: `loading.py ours|peer pt|tf`. The results are `measured.Case`s in `results/loading.json`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measured import Case, record, surroundings
from runner import BenchmarkError, Worker, alternate, environment, serve

RESULTS = Path(__file__).parent / "results" / "loading.json"
FRAMEWORKS = {"pt": "PyTorch", "tf": "Keras"}
FAMILIES = ("rembert", "convbert", "mobilebert", "squeezebert")
CLASSES = {"mobilebert": "MobileBert", "convbert": "ConvBert", "squeezebert": "SqueezeBert", "rembert": "RemBert"}
OPENED, READ = "opening", ", every number read"


# In the worker.


class Side:
    """What opens models.

    Args:
        library: "isobert" or "transformers".
        framework: "pt" or "tf".
    """

    def __init__(self, library: str, framework: str) -> None:
        self.library = library
        self.framework = framework
        self.model: Any = None

    def prepare(self, family: str) -> dict[str, str]:
        """Import the framework and the family's class, and return versions."""
        names = {"pt": ["torch"], "tf": ["tensorflow", "keras" if self.library == "isobert" else "tf_keras"]}
        self.modules = [import_module(name) for name in names[self.framework]]
        name = f"{'TF' if self.framework == 'tf' else ''}{CLASSES[family]}Model"
        self.model_class = getattr(import_module(self.library), name)
        return {name: version(name) for name in (self.library, *names[self.framework])}

    def open(self, folder: str, read: bool) -> list[float]:
        """Open a folder's checkpoint, read its numbers if asked to, and return the seconds it took."""
        start = time.perf_counter()
        self.model = self.model_class.from_pretrained(folder)
        if read:
            self.total()
        return [time.perf_counter() - start]

    def total(self) -> float:
        """Return the sum of all parameters, by which it shows whether the sides have opened the same."""
        if self.framework == "pt":
            return sum(float(parameter.detach().double().sum()) for parameter in self.model.parameters())
        tensorflow = self.modules[0]
        return sum(float(tensorflow.reduce_sum(weight)) for weight in self.model.weights)


# In the parent.


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peer", default=".peers-5/bin/python", help="interpreter with PyTorch and transformers 5 (%(default)s)")
    add("--tf-peer", default=".peers/bin/python", help="one with TensorFlow and transformers 4.57.6 (%(default)s)")
    add(
        "--families",
        nargs="*",
        choices=FAMILIES,
        default=["rembert", "mobilebert"],
        help="by default rembert mobilebert",
    )
    add("--frameworks", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS), help="by default pt tf")
    add("--rounds", type=int, default=7, metavar="N", help="processes of each side (%(default)s)")
    add("--threads", type=int, default=2, metavar="N", help="threads of each side (%(default)s)")
    add("--layers", type=int, metavar="N", help="cut the models to so many layers, to try the benchmark out")
    add("--no-peer", action="store_true", help="measure ours alone")
    add("--json", type=Path, default=RESULTS, metavar="FILE", help="where the results go (benchmarks/results)")
    return parser.parse_args(arguments)


class Benchmark:
    """A run of the cases that the options choose."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.sides = ("ours",) if chosen.no_peer else ("ours", "peer")

    def interpreter(self, side: str, framework: str) -> str:
        """Return the Python of a side."""
        if side == "ours":
            return sys.executable
        return str(self.chosen.peer if framework != "tf" else self.chosen.tf_peer)

    def worker(self, side: str, framework: str) -> Worker:
        """Return a new process of a side."""
        variables = environment(self.chosen.threads, legacy_keras=side == "peer")
        return Worker(self.interpreter(side, framework), Path(__file__), side, framework, environment=variables)

    def case(self, name: str, subject: str, framework: str) -> Case:
        """Return a case that is yet to be measured."""
        return Case(name, subject, framework, about=surroundings() | {"threads": self.chosen.threads})

    def run(self) -> Iterator[Case]:
        """Yield each case once it is measured."""
        yield from self.importing()
        for family in self.chosen.families:
            with tempfile.TemporaryDirectory() as folder:
                yield from self.opening(family, Path(folder))

    def importing(self) -> Iterator[Case]:
        """Measure imports of the library, of a model's class, and the command's list of what it can do."""
        case = self.case("importing", "isobert", "")
        names = {"ours": "isobert", "peer": "transformers"}
        turns = {side: partial(self.import_seconds, side, "pt", f"import {names[side]}") for side in self.sides}
        case.times = alternate(turns, self.chosen.rounds)
        yield case
        for framework in self.chosen.frameworks:
            case = self.case("importing", "a model's class", framework)
            name = f"{'TF' if framework == 'tf' else ''}MobileBertModel"
            code = {side: f"from {names[side]} import {name}" for side in self.sides}
            turns = {side: partial(self.import_seconds, side, framework, code[side]) for side in self.sides}
            case.times = alternate(turns, self.chosen.rounds)
            yield case
        case = self.case("importing", "isobert --help, the whole process", "")
        case.times = alternate({"ours": self.help_seconds}, self.chosen.rounds)
        yield case

    def import_seconds(self, side: str, framework: str, code: str) -> list[float]:
        """Return the seconds that an import takes in a new process."""
        timed = f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
        variables = {**os.environ, **environment(self.chosen.threads, legacy_keras=side == "peer")}
        command = [self.interpreter(side, framework), "-c", timed]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
        if done.returncode:
            raise BenchmarkError(f"{code} failed:\n{done.stderr[-2000:]}")
        return [float(done.stdout.split()[-1])]

    def help_seconds(self) -> list[float]:
        """Return the seconds of a process that writes the command's help."""
        start = time.perf_counter()
        command = [sys.executable, "-c", "from isobert.cli.main import main; main()", "--help"]
        subprocess.run(command, capture_output=True, check=True)
        return [time.perf_counter() - start]

    def opening(self, family: str, folder: Path) -> Iterator[Case]:
        """Measure one family's checkpoint in every framework."""
        self.make(family, folder)
        for framework in self.chosen.frameworks:
            # transformers has no TensorFlow class of it.
            sides = ("ours",) if framework == "tf" and family == "squeezebert" else self.sides
            folders = dict.fromkeys(sides, str(folder))
            if framework == "tf" and "peer" in sides:
                from isobert.conversion.convert import convert

                folders["peer"] = str(folder / "h5")
                convert(folder, folder / "h5", to="transformers-h5")
            opened, read = self.case(OPENED, family, framework), self.case(OPENED, family + READ, framework)
            totals = {}
            for side in sides:
                with self.worker(side, framework) as worker:  # which also brings the files into the cache
                    opened.versions[side] = read.versions[side] = worker.ask("prepare", family=family)
                    worker.ask("open", folder=folders[side], read=True)
                    totals[side] = worker.ask("total")
            apart = max(totals.values()) - min(totals.values())
            if apart > 1e-3 * abs(totals["ours"]):
                raise BenchmarkError(f"{family}, {framework}: the sides open different numbers, of the sums {totals}.")
            for case in (opened, read):
                turns = {
                    side: partial(self.open_seconds, side, framework, family, folders[side], case is read)
                    for side in sides
                }
                case.times = alternate(turns, self.chosen.rounds)
                yield case

    def open_seconds(self, side: str, framework: str, family: str, folder: str, read: bool) -> list[float]:
        """Return the seconds that a new process takes to open a checkpoint."""
        with self.worker(side, framework) as worker:
            worker.ask("prepare", family=family)
            found: list[float] = worker.ask("open", folder=folder, read=read)
            return found

    def make(self, family: str, folder: Path) -> None:
        """Write a checkpoint of the family's paper's size with new weights."""
        code = (
            "import sys, torch, isobert; torch.manual_seed(0); name, folder, layers = sys.argv[1:]; "
            "config_class = getattr(isobert, name + 'Config'); "
            "cut = {'num_hidden_layers': int(layers)} if int(layers) else {}; "
            "config = config_class.from_size(next(iter(config_class.sizes)), **cut); "
            "getattr(isobert, name + 'Model')(config).save_pretrained(folder)"
        )
        arguments = [CLASSES[family], str(folder), str(self.chosen.layers or 0)]
        subprocess.run([sys.executable, "-c", code, *arguments], check=True)


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] in ("ours", "peer"):
        side = Side("isobert" if sys.argv[1] == "ours" else "transformers", sys.argv[2])
        serve({name: getattr(side, name) for name in ("prepare", "open", "total")})
        return
    chosen = options()
    if os.getloadavg()[0] > 0.5:
        print(f"The machine is busy (load {os.getloadavg()[0]:.1f}): times will be too long, and ratios unsure.")
    try:
        for case in Benchmark(chosen).run():
            record(chosen.json, case)
            times = ", ".join(f"{side} {timing.median:.3f} s" for side, timing in case.times.items())
            ratio = case.ratio("peer", "ours") if "peer" in case.times else None
            told = f"; ours is {ratio.median:.2f} times as fast ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else ""
            print(f"{case.case}, {case.subject}, {FRAMEWORKS.get(case.framework, '-')}: {times}{told}", flush=True)
    except BenchmarkError as error:
        sys.exit(f"loading.py: error: {error}")


if __name__ == "__main__":
    main()
