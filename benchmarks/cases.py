"""The cases that models are run for: what each asks of which sides, and how their turns are taken.

`bench.py` chooses settings and hands them to `Bench`. Another case is one more row in `CASES`, and, if it asks what no
other does, one more method of `model_pt.PyTorch` and `model_tf.TensorFlow`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import gemm
import isobert
from flops import forward_flop
from isobert.core.registry import FAMILIES
from measured import PART, YARDSTICK, Case, dtype_of, surroundings
from runner import KEEP_FREED, BenchmarkError, Worker, alternate, environment

HERE = Path(__file__).parent

# All sides have the same weights and inputs, so that anything above rounding is a mistake of one of them.
MOST_DIFFERENCE = 1e-3

# A case whose calls take longer than this has a third of the rounds.
SLOW_SECONDS = 2.0
FEWEST_ROUNDS = 3

MASKED = 0.15
NEW_WORDS = 16


@dataclass(frozen=True)
class What:
    """What a case has a model do.

    Attributes:
        action: the method of the workers' models.
        head: the class of the checkpoint.
        arguments: of the method, beyond the folder.
        passes: how many times a forward pass's operations it computes; 0 where they are not counted.
        is_alike: whether all sides return the same numbers.
    """

    action: str
    head: str = "Model"
    arguments: dict[str, Any] = field(default_factory=dict)
    passes: int = 0
    is_alike: bool = True


CLASSIFIES = "ForSequenceClassification"
CASES = {
    "forward": What("forward", passes=1),
    # The gradients of a product are two more of its size.
    "training step": What("training_step", CLASSIFIES, {"head": "ModelForSequenceClassification"}, passes=3),
    "masked-LM step": What("training_step", "ForMaskedLM", {"head": "ModelForMaskedLM"}),
    "generating": What("generating", "ForCausalLM", {"new": NEW_WORDS}),
    "saving": What("saving", is_alike=False),
    # Alone, since in the whole model a feed-forward network can hide how much memory it needs.
    "attention": What("part", arguments={"name": "encoder.layer.0.attention.self"}),
}

# A model is cut where both sides with their optimizers' states would need more memory than such a machine has.
CUTS: dict[tuple[str, str], dict[str, Any]] = {
    ("training step", "rembert"): {"num_hidden_layers": 8},
    ("generating", "rembert"): {"is_decoder": True},
}


@dataclass(frozen=True)
class Setting:
    """One case to be measured.

    Attributes:
        case: of `CASES`.
        subject: a family, which is its first size, or the name of another size.
        framework: "pt" or "tf"; of a side that has "pt" among its words, PyTorch in any case.
        batch, length: texts, and tokens of each.
        sides: their names (see `measured`).
    """

    case: str
    subject: str
    framework: str
    batch: int
    length: int
    sides: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """That of the `Case` it becomes."""
        return self.case, self.subject, self.framework, self.batch, self.length


def family_of(subject: str) -> str:
    """Return the family of a subject."""
    return next(name for name in FAMILIES if subject == name or subject in _config_class(name).sizes)


def _config_class(family: str) -> Any:
    return getattr(isobert, FAMILIES[family].config_name or "")


def config_of(case: str, subject: str, layers: int | None = None) -> Any:
    """Return the config of a case's model, cut to so many layers if it is to be tried out."""
    config_class = _config_class(family_of(subject))
    size = next(iter(config_class.sizes)) if subject in FAMILIES else subject
    cut = CUTS.get((case, subject), {}) | ({"num_hidden_layers": layers} if layers else {})
    return config_class.from_size(size, **cut)


class Bench:
    """A run: starts the workers, lets the sides take turns and gathers what is measured.

    Args:
        chosen: the options of `bench.py`.
        console: what is being done is told there.

    Attributes:
        failures: what could not be measured and should be.
    """

    def __init__(self, chosen: argparse.Namespace, console: Console) -> None:
        self.chosen = chosen
        self.console = console
        self.failures: list[str] = []

    def run(self, settings: Iterable[Setting]) -> Iterator[Case]:
        """Yield each case once it is measured; one that fails is told, and kept in `failures`."""
        ordered = sorted(settings, key=lambda s: (s.case, s.subject, s.framework, s.length, s.batch))
        with ExitStack() as stack:
            self.products = self.started_products(stack, ordered)
            for (case, subject), together in groupby(ordered, key=lambda s: (s.case, s.subject)):
                try:
                    yield from self.subject(case, subject, list(together))
                except BenchmarkError as error:
                    self.fail(f"{case}, {subject}: {error}")

    def subject(self, case: str, subject: str, settings: list[Setting]) -> Iterator[Case]:
        """Measure one case with one model, on one checkpoint, in every framework and on every batch."""
        as_bin = any(who(side) == "peer" and s.framework == "tf" for s in settings for side in s.sides)
        with tempfile.TemporaryDirectory() as folder:
            model = Model(case, config_of(case, subject, self.chosen.layers), Path(folder), as_bin=as_bin)
            for _, together in groupby(settings, key=lambda s: s.framework):
                with ExitStack() as stack:
                    sides = Sides(self, model, stack)
                    for setting in together:
                        yield sides.measure(setting)

    def started_products(
        self, stack: ExitStack, settings: Sequence[Setting]
    ) -> dict[tuple[str, str], Callable[..., Sequence[float]]]:
        """Start what multiplies matrices, and return a turn for each dtype and kind of product.

        Whichever framework's models are measured, all kinds are, so that shares in all runs are of the same rate.
        """
        turns = {}
        frameworks = ("pt",) if self.chosen.device != "cpu" else tuple(gemm.KINDS)
        for framework in frameworks if any(CASES[setting.case].passes for setting in settings) else ():
            worker = stack.enter_context(self.worker(sys.executable, "gemm.py", framework))
            for dtype, kinds in gemm.KINDS[framework].items():
                for kind in kinds:
                    seconds = self.chosen.seconds / 4
                    turns[dtype, kind] = partial(worker.ask, "time", kind=kind, dtype=dtype, seconds=seconds)
        return turns

    def worker(
        self, interpreter: str, script: str, *arguments: str, legacy_keras: bool = False, keep_freed: bool = False
    ) -> Worker:
        """Return a script's worker, with as many threads as the options say and on their device."""
        threads, device = self.chosen.threads, self.chosen.device
        variables = environment(threads, legacy_keras=legacy_keras, device=device)
        if keep_freed:
            variables |= KEEP_FREED
        return Worker(interpreter, HERE / script, *arguments, str(threads), device, environment=variables)

    def fail(self, what: str) -> None:
        """Keep what should have been measured, and tell it."""
        self.failures.append(what)
        self.console.print(what, style="red", markup=False)


class Model:
    """A checkpoint with random weights, and what its sides computed first.

    Args:
        case: what it is for.
        config: the model's.
        folder: where it is written.
        as_bin: whether also in the form that the peer's TensorFlow classes read.
    """

    def __init__(self, case: str, config: Any, folder: Path, *, as_bin: bool) -> None:
        self.case, self.config, self.folder = case, config, folder
        self.expected: dict[tuple[int, int], np.ndarray] = {}
        config.save_pretrained(folder)
        with Worker(sys.executable, HERE / "models.py", "make") as maker:
            maker.ask("make", folder=str(folder), head=CASES[case].head, as_bin=as_bin)

    def arguments(self, setting: Setting, library: str) -> dict[str, Any]:
        """Return what a worker needs to prepare a side."""
        what = CASES[self.case]
        found: dict[str, Any] = {"does": what.action, "folder": str(self.folder), "inputs": "", **what.arguments}
        if what.action == "part":
            return found | {"batch": setting.batch, "length": setting.length}
        if what.action == "saving":
            return found | {"target": str(self.folder / f"saved by {library}")}
        inputs = write_inputs(self.folder / "inputs.npz", self.case, self.config, setting.batch, setting.length)
        return found | {"inputs": str(inputs)}

    def compare(self, output: Path, setting: Setting, where: str) -> float:
        """Return how far a side's output is from the first one's on this batch, in whichever framework."""
        numbers = np.load(output)
        return checked(numbers, self.expected.setdefault((setting.batch, setting.length), numbers), where)

    def error(self, output: Path, setting: Setting) -> float:
        """Return how far an output in another dtype is from the first one's on this batch, by norm."""
        expected = self.expected[setting.batch, setting.length]
        return float(np.linalg.norm(np.load(output) - expected) / np.linalg.norm(expected))


class Sides:
    """The workers of one framework's cases with one model.

    Args:
        bench: the run.
        model: the checkpoint.
        stack: what ends the workers.
    """

    def __init__(self, bench: Bench, model: Model, stack: ExitStack) -> None:
        self.bench, self.model, self.stack = bench, model, stack
        self.workers: dict[tuple[str, str], Worker] = {}

    def measure(self, setting: Setting) -> Case:
        """Prepare every side and compare them, then measure memory, one after the other, then times, in turns."""
        chosen = self.bench.chosen
        found = Case(*setting.key)
        found.flop = CASES[setting.case].passes * forward_flop(self.model.config, setting.batch, setting.length)
        found.about = surroundings()
        for worker in self.workers.values():
            worker.ask("forget")
        self.say(setting, "the sides make themselves ready")
        for side in setting.sides:
            self.prepare(found, setting, side)
        turns: dict[tuple[str, str], Callable[..., Sequence[float]]] = {}
        for side in found.memory:
            worker = self.workers[who(side), framework_of(side, setting.framework)]
            turns["", side] = partial(worker.ask, "time", side=side, seconds=chosen.seconds)
            if chosen.memory:
                self.say(setting, f"memory, {side}")
                found.memory[side] = worker.ask("memory", side=side)
        rounds = chosen.rounds
        if max((turn(seconds=0.0)[0] for turn in turns.values()), default=0.0) > SLOW_SECONDS:
            rounds = min(rounds, max(FEWEST_ROUNDS, rounds // 3))
        self.say(setting, f"{rounds} rounds of {len(turns)} sides")
        if found.flop:
            dtypes = {dtype_of(side.split()) for side in found.memory}
            turns |= {name: turn for name, turn in self.bench.products.items() if name[0] in dtypes}
        for (dtype, name), timing in alternate(turns, rounds).items():
            (found.products.setdefault(dtype, {}) if dtype else found.times)[name] = timing
        return found

    def prepare(self, found: Case, setting: Setting, side: str) -> None:
        """Have one side make itself ready, and compare what it computes with the first."""
        which = who(side), framework_of(side, setting.framework)
        if which not in self.workers:
            self.workers[which] = self.stack.enter_context(self.worker(*which))
        output = self.model.folder / "output.npy"
        output.unlink(missing_ok=True)
        arguments = self.model.arguments(setting, which[0])
        answer = self.workers[which].ask("prepare", side=side, output=str(output), **arguments)
        where = f"{setting.case}, {setting.subject}, {setting.framework}, {side}"
        if "refused" in answer:
            found.refused[side] = answer["refused"]
            if which[0] == "ours":
                self.bench.fail(f"{where}: {answer['refused']}")
            else:
                self.bench.console.print(f"{where}: {answer['refused']}", style="yellow", markup=False)
            return
        found.versions[" ".join(which)] = answer["versions"]
        found.memory[side] = None
        is_alike = CASES[setting.case].is_alike and which[0] != YARDSTICK and PART not in side.split()
        if is_alike and dtype_of(side.split()) == "float32":
            found.difference = max(found.difference or 0.0, self.model.compare(output, setting, where))
        elif is_alike and (setting.batch, setting.length) in self.model.expected:
            found.errors[side] = self.model.error(output, setting)

    def worker(self, name: str, framework: str) -> Worker:
        """Return the worker of the sides whose first word is `name`, in the interpreter that has its libraries."""
        peers = {"pt": self.bench.chosen.peer, "tf": self.bench.chosen.tf_peer}
        interpreter = sys.executable if name == "ours" else peers[framework]
        legacy = name == "peer" and framework == "tf"
        # Peaks of memory would not show.
        keep = self.model.case.endswith("step") and not self.bench.chosen.memory
        return self.bench.worker(interpreter, "models.py", name, framework, legacy_keras=legacy, keep_freed=keep)

    def say(self, setting: Setting, what: str) -> None:
        where = f"{setting.case}, {setting.subject}, {setting.framework}, {setting.batch} x {setting.length}"
        self.bench.console.print(f"{where}: {what} ...", highlight=False)


def who(side: str) -> str:
    """Return the first word of a side's name."""
    return side.split()[0]


def framework_of(side: str, framework: str) -> str:
    """Return the framework that a side computes in."""
    return "pt" if "pt" in side.split() else framework


def write_inputs(path: Path, case: str, config: Any, batch: int, length: int) -> Path:
    """Write what a tokenizer would return for texts without padding, and the labels that a case needs."""
    random = np.random.default_rng(batch)
    ids = random.integers(config.vocab_size // 2, config.vocab_size, (batch, length))
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    if case == "generating":
        del arrays["token_type_ids"]
    if case == "training step":
        arrays["labels"] = random.integers(0, 2, batch)
    if case == "masked-LM step":
        arrays["labels"] = np.where(random.random(ids.shape) < MASKED, ids, -100)
    np.savez(path, **arrays)
    return path


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
