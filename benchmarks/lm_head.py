"""A training step of RemBERT's masked-language-model head: time and memory, beside the plain way and the peer's.

    python benchmarks/lm_head.py --peer .peers-5/bin/python --tf-peer .peers/bin/python

Each side is this script again, as a worker: `lm_head.py ours|plain|peer pt|tf|xla THREADS`. A peer's interpreter runs
it without isobert. `docs/benchmarks.md` says what is measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from runner import BenchmarkError, Timing, Worker, alternate, peak_memory, serve, timed

SIDES = {
    "ours": "the loss from the positions that count",
    "plain": "our scores of all positions, and their cross entropy",
    "peer": "transformers' head and loss",
}
FRAMEWORKS = {"pt": "PyTorch, eager", "tf": "Keras, tf.function", "xla": "Keras, tf.function with XLA"}
MASKED = 0.15

# All sides have the same weights and inputs, so that anything above rounding is a mistake of one of them.
MOST_DIFFERENCE = 1e-3


# In the worker.


def draw(name: str, shape: Sequence[int]) -> np.ndarray:
    """Return numbers that depend on a parameter's name and shape alone; dense weights are `[out, in]`."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape), np.float32)
    if len(shape) == 1:
        values *= np.float32(0.1)
        return values + np.float32(1.0) if name == "LayerNorm.weight" else values
    values *= np.float32(0.6 / shape[1] ** 0.5)
    return values


def hub_name(name: str) -> str:
    """Return a parameter's name within the head, as the Hub has it, from any side's."""
    name = name.partition(":")[0].rpartition("predictions/")[2].replace("/", ".").rpartition("predictions.")[2]
    for other, ours in (("kernel", "weight"), ("gamma", "weight"), ("beta", "bias")):
        name = name.removesuffix(other) + ours if name.endswith(other) else name
    return name


class PyTorch:
    """A head and its loss in PyTorch, called eagerly."""

    def __init__(self, side: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch = torch
        self.side = side
        self.versions = {name: version(name) for name in ("transformers" if side == "peer" else "isobert", "torch")}

    def open(self, config: dict[str, int]) -> None:
        """Make the head with the weights that all sides have."""
        torch = self.torch
        if self.side == "peer":
            from transformers import RemBertConfig
            from transformers.models.rembert.modeling_rembert import RemBertOnlyMLMHead

            self.head = RemBertOnlyMLMHead(RemBertConfig(**config))
        else:
            from isobert import RemBertConfig
            from isobert.pt.rembert import RemBertLMPredictionHead

            self.head = RemBertLMPredictionHead(RemBertConfig(**config, tie_word_embeddings=False))
        with torch.no_grad():
            for name, parameter in self.head.named_parameters():
                # The peer's bias has a second name, which can come first.
                known = "decoder.bias" if hub_name(name) == "bias" else hub_name(name)
                parameter.copy_(torch.from_numpy(draw(known, parameter.shape)))

    def step_on(self, hidden: np.ndarray, labels: np.ndarray) -> Callable[[], tuple[float, np.ndarray]]:
        """Return a step: loss and gradients, of which the vectors' come back and the parameters' are let go."""
        torch, vectors, numbers = self.torch, self.torch.from_numpy(hidden), self.torch.from_numpy(labels)

        def loss_of(vectors: Any) -> Any:
            if self.side == "ours":
                return self.head(vectors, numbers)
            if self.side == "plain":
                from isobert.pt.losses import cross_entropy

                return cross_entropy(self.head(vectors), numbers)
            scores = self.head(vectors)
            return torch.nn.CrossEntropyLoss()(scores.view(-1, scores.shape[-1]), numbers.view(-1))

        def step() -> tuple[float, np.ndarray]:
            given = vectors.detach().requires_grad_()
            loss = loss_of(given)
            loss.backward()
            self.head.zero_grad(set_to_none=True)
            return float(loss.detach()), given.grad.numpy()

        return step

    def memory(self, step: Callable[[], Any]) -> int | None:
        return peak_memory(step, times=1)


class TensorFlow:
    """A head and its loss in Keras, called in a `tf.function`."""

    def __init__(self, side: str, threads: int, *, jit_compile: bool) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        self.tf = tf
        self.side = side
        self.jit_compile = jit_compile
        library, keras = ("transformers", "tf_keras") if side == "peer" else ("isobert", "keras")
        self.versions = {library: version(library), "tensorflow": tf.__version__, keras: version(keras)}

    def open(self, config: dict[str, int]) -> None:
        """Make the head with the weights that all sides have."""
        self.config = config
        if self.side == "peer":
            from transformers import RemBertConfig
            from transformers.models.rembert.modeling_tf_rembert import TFRemBertMLMHead

            self.head = TFRemBertMLMHead(RemBertConfig(**config), None, name="cls")
            self.head.predictions.build(None)
            self.head.built = True
        else:
            from isobert import RemBertConfig
            from isobert.tf.rembert import RemBertLMPredictionHead

            self.head = RemBertLMPredictionHead(
                RemBertConfig(**config, tie_word_embeddings=False), dtype="float32", name="predictions"
            )
            self.head.build()
        for variable in self.head.trainable_variables:
            name = hub_name(variable.name if self.side == "peer" else variable.path)
            is_dense = name == "dense.weight"
            values = draw(name, variable.shape[::-1] if is_dense else variable.shape)
            variable.assign(values.T if is_dense else values)

    def step_on(self, hidden: np.ndarray, labels: np.ndarray) -> Callable[[], tuple[float, np.ndarray]]:
        """Return a step: loss and gradients, of which the vectors' come back and the parameters' are let go."""
        tf, vectors, numbers = self.tf, self.tf.constant(hidden), self.tf.constant(labels, "int32")

        def loss_of(vectors: Any) -> Any:
            if self.side == "ours":
                return self.head(vectors, labels=numbers)
            if self.side == "plain":
                from isobert.tf.losses import cross_entropy

                return cross_entropy(self.head(vectors), numbers)
            from transformers.modeling_tf_utils import TFMaskedLanguageModelingLoss

            task = TFMaskedLanguageModelingLoss()
            task.config = argparse.Namespace(tf_legacy_loss=False)
            return tf.reduce_sum(task.hf_compute_loss(numbers, self.head(vectors)))

        @tf.function(jit_compile=self.jit_compile)
        def differentiate(vectors: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(vectors)
                loss = loss_of(vectors)
            return loss, tape.gradient(loss, [vectors, *self.head.trainable_variables])

        def step() -> tuple[float, np.ndarray]:
            loss, slopes = differentiate(vectors)
            return float(loss), slopes[0].numpy()

        return step

    def memory(self, step: Callable[[], Any]) -> int | None:
        """Return what a step allocates at its peak, by TensorFlow's own count."""
        step()
        self.tf.config.experimental.reset_memory_stats("CPU:0")
        before = self.tf.config.experimental.get_memory_info("CPU:0")["current"]
        step()
        return int(self.tf.config.experimental.get_memory_info("CPU:0")["peak"] - before)


class Side:
    """What a worker does when it is asked."""

    def __init__(self, framework: PyTorch | TensorFlow) -> None:
        self.framework = framework

    def open(self, config: dict[str, int], inputs: str, output: str) -> dict[str, str]:
        """Make head and inputs, write what one step computes, and return the libraries' versions."""
        self.framework.open(config)
        with np.load(inputs) as arrays:
            self.step = self.framework.step_on(arrays["hidden"], arrays["labels"])
        loss, of_hidden = self.step()
        np.savez(output, loss=loss, hidden=of_hidden)
        return self.framework.versions

    def time(self, seconds: float) -> list[float]:
        return timed(self.step, seconds, least=1)

    def memory(self) -> int | None:
        return self.framework.memory(self.step)


def work(side: str, framework: str, threads: str) -> None:
    kind = PyTorch if framework == "pt" else partial(TensorFlow, jit_compile=framework == "xla")
    worker = Side(kind(side, int(threads)))
    serve({name: getattr(worker, name) for name in ("open", "time", "memory")})


# In the parent.


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peer", default=".peers-5/bin/python", help="interpreter with PyTorch and transformers 5 (%(default)s)")
    add("--tf-peer", default=".peers/bin/python", help="one with TensorFlow and transformers 4.57.6 (%(default)s)")
    add("--frameworks", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS), help="by default all")
    add("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="by default all")
    add("--batch", type=int, default=8, metavar="N", help="texts (%(default)s)")
    add("--length", type=int, default=128, metavar="N", help="tokens of each text (%(default)s)")
    add("--vocab", type=int, default=250300, metavar="N", help="words; fewer to try the benchmark out (%(default)s)")
    add("--rounds", type=int, default=5, metavar="N", help="turns that each side takes (%(default)s)")
    add("--seconds", type=float, default=0.0, metavar="S", help="length of a turn, of a step at least (%(default)s)")
    add("--threads", type=int, default=2, metavar="N", help="threads of each side (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="also write everything that was measured to a file")
    return parser.parse_args(arguments)


def write_inputs(path: Path, batch: int, length: int, width: int, vocab: int) -> None:
    """Write vectors as an encoder's layer norm makes them, and labels of 15% of the positions."""
    random = np.random.default_rng(0)
    labels = random.integers(0, vocab, batch * length)
    labels[random.permutation(labels.size)[round(MASKED * labels.size) :]] = -100
    hidden = random.standard_normal((batch, length, width), np.float32)
    np.savez(path, hidden=hidden, labels=labels.reshape(batch, length))


def difference(found: Path, expected: Path) -> float:
    """Return how far two sides' losses and gradients are apart, relative to the largest number of the second's.

    Raises:
        BenchmarkError: by more than rounding.
    """
    with np.load(found) as mine, np.load(expected) as other:
        apart = max(float(np.abs(mine[k] - other[k]).max() / np.abs(other[k]).max()) for k in ("loss", "hidden"))
    if not apart <= MOST_DIFFERENCE:
        raise BenchmarkError(f"{found.stem} differs from {expected.stem} by {apart:.1g}: they compute something else.")
    return apart


def measure(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure each framework in turn, memory first, and return a result for each."""
    config = {"vocab_size": chosen.vocab}
    environment = {
        "OMP_NUM_THREADS": str(chosen.threads),
        "CUDA_VISIBLE_DEVICES": "",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "HF_HUB_OFFLINE": "1",
    }
    results = []
    for framework in chosen.frameworks:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_inputs(folder / "inputs.npz", chosen.batch, chosen.length, 1152, chosen.vocab)
            workers, versions = {}, {}
            for side in chosen.sides:
                peer = chosen.peer if framework == "pt" else chosen.tf_peer
                workers[side] = stack.enter_context(
                    Worker(
                        peer if side == "peer" else sys.executable,
                        Path(__file__),
                        side,
                        framework,
                        str(chosen.threads),
                        # The peer's TensorFlow classes are Keras 2's.
                        environment=environment | {"TF_USE_LEGACY_KERAS": "1" if side == "peer" else "0"},
                    )
                )
                output = folder / f"{side}.npz"
                versions[side] = workers[side].ask(
                    "open", config=config, inputs=str(folder / "inputs.npz"), output=str(output)
                )
            apart = max(difference(folder / f"{side}.npz", folder / f"{chosen.sides[0]}.npz") for side in chosen.sides)
            memory = {side: worker.ask("memory") for side, worker in workers.items()}
            turns = {side: partial(worker.ask, "time", seconds=chosen.seconds) for side, worker in workers.items()}
            times = alternate(turns, chosen.rounds)
        results.append(
            {"framework": framework, "versions": versions, "memory": memory, "times": times, "difference": apart}
        )
    return results


def gradient_bytes(vocab: int) -> int:
    """Return what the parameters' gradients take, which every side has to return: 1152 -> 1664 -> vocab, in float32."""
    return 4 * (1152 * 1664 + 3 * 1664 + vocab * (1664 + 1))


def rows(results: Sequence[dict[str, Any]], vocab: int) -> list[list[str]]:
    """Return a table's rows: each side's time and memory, and how many times ours they are."""
    found = []
    own = gradient_bytes(vocab)
    for result in results:
        times: dict[str, Timing] = result["times"]
        memory: dict[str, int | None] = result["memory"]
        ours = next(iter(times))
        for side, timing in times.items():
            ratio = timing.ratio_to(times[ours])
            cells = [f"{FRAMEWORKS[result['framework']]}\n{SIDES[side]}", f"{timing.median:.2f} s"]
            cells.append(f"{ratio.median:.2f}\n{ratio.low:.2f} to {ratio.high:.2f}")
            for less in (0, own):
                mine, first = memory[side], memory[ours]
                if mine is None or first is None:
                    cells += ["-", "-"]
                else:
                    cells += [f"{(mine - less) / 1e6:.0f} MB", f"{(mine - less) / max(first - less, 1):.1f}"]
            found.append(cells)
    return found


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] in SIDES:
        work(*sys.argv[1:])
        return
    # A peer's interpreter has neither.
    from rich.console import Console
    from rich.table import Table

    from isobert.core.hub import write_json

    chosen = options()
    console = Console() if Console().is_terminal else Console(width=130)
    load = os.getloadavg()[0]
    if load > 0.5:
        console.print(f"[yellow]The machine is busy (load {load:.1f}): times will be too long, and ratios unsure.")
    try:
        results = measure(chosen)
    except BenchmarkError as error:
        sys.exit(f"lm_head.py: error: {error}")
    table = Table(
        title=f"A training step of RemBERT's head, {chosen.batch} x {chosen.length}, float32", show_lines=True
    )
    table.add_column("side")
    for title in ("time", "times ours", "memory", "times ours", "less the gradients", "times ours"):
        table.add_column(title, justify="right")
    for cells in rows(results, chosen.vocab):
        table.add_row(*cells)
    console.print(table)
    console.print(f"Sides differ by at most {max(result['difference'] for result in results):.0e}.", highlight=False)
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        told = {name: str(value) if isinstance(value, Path) else value for name, value in vars(chosen).items()}
        measured = [
            result | {"seconds": {side: timing.rounds for side, timing in result.pop("times").items()}}
            for result in results
        ]
        write_json(chosen.json, {"options": told, "load_before": load, "results": measured})


if __name__ == "__main__":
    main()
