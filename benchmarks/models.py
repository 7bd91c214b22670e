"""One side of a benchmark: a model that ours or the peer's library opens from a checkpoint, run and measured.

The script is the worker: `models.py ours|peer pt|tf|xla THREADS`. The peer's interpreter runs it without isobert: both
libraries call their classes `AutoModel` and `TFAutoModel`, and open the same weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from runner import peak_memory, serve, timed

# Where the weights are for a library whose reader of safetensors files fails, within the checkpoint's folder.
BIN_FOLDER = "bin"


def make_checkpoint(folder: str) -> None:
    """Write random weights beside a folder's `config.json`, once in each form."""
    import torch

    from isobert import AutoConfig
    from isobert.core.registry import model_class

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder)
    model = model_class(config.model_type, "Model", "pt")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _draw(name, parameter)
    model.save_pretrained(folder)
    (Path(folder) / BIN_FOLDER).mkdir()
    torch.save(model.state_dict(), Path(folder) / BIN_FOLDER / "pytorch_model.bin")
    config.save_pretrained(Path(folder) / BIN_FOLDER)


def _draw(name: str, parameter: Any) -> None:
    """Fill a parameter so that it shows in the output: new weights are so small that attention is nearly uniform."""
    if name.endswith("bias"):
        parameter.normal_(0.0, 0.1)
    elif parameter.dim() == 1:
        parameter.uniform_(0.8, 1.1)
    elif "embeddings" in name:
        parameter.normal_(0.0, 0.5)
    else:
        parameter.normal_(0.0, 0.6 / parameter[0].numel() ** 0.5)


class PyTorch:
    """A PyTorch model, called eagerly.

    Args:
        library: "isobert" or "transformers".
        threads: that it computes with.
    """

    def __init__(self, library: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch = torch
        self.library = library
        self.versions = {name: version(name) for name in (library, "torch")}

    def open(self, folder: str) -> None:
        self.model = import_module(self.library).AutoModel.from_pretrained(folder).eval()

    def call_on(self, inputs: dict[str, np.ndarray]) -> Callable[[], np.ndarray]:
        tensors = {name: self.torch.from_numpy(array) for name, array in inputs.items()}
        return lambda: self.model(**tensors)[0].numpy()

    def call_part(self, name: str, batch: int, length: int) -> Callable[[], Any]:
        """Return a call of one module alone, on a random stream `[batch, length, hidden]`."""
        module = self.model.get_submodule(name)
        stream = self.torch.randn(batch, length, self.model.config.hidden_size)
        return lambda: module(stream)

    def memory(self, call: Callable[[], Any]) -> int | None:
        return peak_memory(call)


class TensorFlow:
    """A Keras model, called in a `tf.function`.

    Args:
        library: "isobert" or "transformers".
        threads: that it computes with.
        jit_compile: whether XLA compiles the function.
    """

    def __init__(self, library: str, threads: int, *, jit_compile: bool) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        self.tf = tf
        self.library = library
        self.jit_compile = jit_compile
        keras = "keras" if library == "isobert" else "tf_keras"
        self.versions = {library: version(library), "tensorflow": tf.__version__, keras: version(keras)}

    def open(self, folder: str) -> None:
        auto_model = import_module(self.library).TFAutoModel
        if self.library == "transformers":
            self.model = auto_model.from_pretrained(Path(folder) / BIN_FOLDER, from_pt=True)
        else:
            self.model = auto_model.from_pretrained(folder)

    def call_on(self, inputs: dict[str, np.ndarray]) -> Callable[[], np.ndarray]:
        tensors = {name: self.tf.constant(array, "int32") for name, array in inputs.items()}

        # All outputs are returned, since TensorFlow would not compute what is not.
        @self.tf.function(jit_compile=self.jit_compile)
        def forward(tensors: dict[str, Any]) -> list[Any]:
            return [value for value in self.model(tensors, training=False).values() if value is not None]

        return lambda: forward(tensors)[0].numpy()

    def memory(self, call: Callable[[], Any]) -> int | None:
        """Return what a call allocates at its peak: TensorFlow never gives memory back, so its own count is asked."""
        call()
        try:
            self.tf.config.experimental.reset_memory_stats("CPU:0")
            before = self.tf.config.experimental.get_memory_info("CPU:0")["current"]
            call()
            return int(self.tf.config.experimental.get_memory_info("CPU:0")["peak"] - before)
        except ValueError:  # where it does not count
            return None


class Side:
    """What a worker does when it is asked: opens a model, chooses a call, and measures that call."""

    def __init__(self, model: PyTorch | TensorFlow) -> None:
        self.model = model
        self.call: Callable[[], Any] = lambda: None

    def open(self, folder: str) -> dict[str, str]:
        """Open a checkpoint and return the libraries' versions."""
        self.model.open(folder)
        return self.model.versions

    def choose(self, inputs: str, output: str) -> None:
        """Choose the model on an `.npz` file of inputs, and write its output to an `.npy` file."""
        with np.load(inputs) as arrays:
            self.call = self.model.call_on(dict(arrays))
        np.save(output, self.call())

    def choose_part(self, name: str, batch: int, length: int) -> None:
        """Choose one module of a PyTorch model."""
        assert isinstance(self.model, PyTorch)
        self.call = self.model.call_part(name, batch, length)

    def time(self, seconds: float) -> list[float]:
        return timed(self.call, seconds)

    def memory(self) -> int | None:
        return self.model.memory(self.call)


def main() -> None:
    if sys.argv[1:] == ["make"]:
        serve({"make": make_checkpoint})
        return
    side, framework, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    library = "isobert" if side == "ours" else "transformers"
    if framework == "pt":
        worker = Side(PyTorch(library, threads))
    else:
        worker = Side(TensorFlow(library, threads, jit_compile=framework == "xla"))
    names = ("open", "choose", "choose_part", "time", "memory")
    serve({name: getattr(worker, name) for name in names})


if __name__ == "__main__":
    main()
