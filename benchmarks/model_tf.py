"""A library's TensorFlow models, in what a benchmark has them do. Peers' interpreters import this without isobert."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from measured import dtype_of

# Where the weights are for a library whose reader of safetensors files fails, within the checkpoint's folder.
BIN_FOLDER = "bin"

Call = Callable[[], Any]


class TensorFlow:
    """A library's Keras models, called in a `tf.function`.

    A side's words say how: "optimized" (`isobert.tf.optimize`), "xla" (XLA compiles the function), and a dtype; or that
    it is but a part of the forward pass: "products".

    Args:
        library: "isobert" or "transformers".
        threads: that it computes with.
        device: "cpu"; there is no other here.

    Attributes:
        versions: of the libraries.
    """

    def __init__(self, library: str, threads: int, device: str = "cpu") -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        self.tf = tf
        self.library = library
        self.keras = import_module("keras" if library == "isobert" else "tf_keras")
        self.versions = {library: version(library), "tensorflow": tf.__version__}
        self.versions[self.keras.__name__] = self.keras.__version__
        self.opened: dict[tuple[str, str], Any] = {}

    def open(self, folder: Path, head: str, words: Collection[str], *, own: bool = False) -> Any:
        """Return the model of a checkpoint for one side; what is not to change it is opened once."""
        dtype = dtype_of(words)
        if own or (head, dtype) not in self.opened:
            auto_model = getattr(import_module(self.library), f"TFAutoModel{head.removeprefix('Model')}")
            if self.library == "transformers":
                model = auto_model.from_pretrained(folder / BIN_FOLDER, from_pt=True)
            else:
                model = auto_model.from_pretrained(folder, dtype=dtype)
            if own:
                return model
            self.opened[head, dtype] = model
        model = self.opened[head, dtype]
        if "optimized" in words:
            from isobert.tf import optimize

            model = optimize(model)
        return model

    def tensors(self, inputs: dict[str, np.ndarray]) -> dict[str, Any]:
        return {name: self.tf.constant(array, "int32") for name, array in inputs.items()}

    def forward(self, folder: Path, words: Collection[str], inputs: dict[str, np.ndarray]) -> Call:
        """Return a call of the bare encoder, for inference."""
        model, tensors = self.open(folder, "Model", words), self.tensors(inputs)

        # All outputs are returned, since TensorFlow would not compute what is not.
        @self.tf.function(jit_compile="xla" in words)
        def forward(tensors: dict[str, Any]) -> list[Any]:
            return [value for value in model(tensors, training=False).values() if value is not None]

        return lambda: forward(tensors)[0]

    def products(self, folder: Path, words: Collection[str], inputs: dict[str, np.ndarray]) -> Call:
        """Return a call of the encoder's dense maps alone, one after the other: no forward pass can take less."""
        model, rows = self.open(folder, "Model", words), inputs["input_ids"].size
        weights = [one.value for one in model.weights if len(one.shape) == 2 and "embeddings/" not in one.path]
        values = {width: self.tf.random.normal([rows, width]) for width in {weight.shape[0] for weight in weights}}

        @self.tf.function
        def multiply(values: dict[int, Any]) -> list[Any]:
            found: list[Any] = []
            for weight in weights:
                with self.tf.control_dependencies(found[-1:]):
                    found.append(self.tf.matmul(values[weight.shape[0]], weight)[0, 0])
            return found

        return lambda: multiply(values)[-1]

    def training_step(self, folder: Path, words: Collection[str], inputs: dict[str, np.ndarray], head: str) -> Call:
        """Return a call of a whole step: forward, backward and AdamW, without clipping, in one `tf.function`.

        Its first result is the loss in evaluation mode, before any step: there all sides are equal.
        """
        model, tensors = self.open(folder, head, words, own=True), self.tensors(inputs)
        optimizer = self.keras.optimizers.AdamW(learning_rate=1e-5, weight_decay=0.01)
        first: list[Any] = [self.tf.reduce_mean(model(tensors, training=False).loss)]
        optimizer.build(model.trainable_variables)

        @self.tf.function(jit_compile="xla" in words)
        def step(tensors: dict[str, Any]) -> Any:
            with self.tf.GradientTape() as tape:
                loss = self.tf.reduce_mean(model(tensors, training=True).loss)
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return loss

        return lambda: first.pop() if first else step(tensors)

    def generating(self, folder: Path, words: Collection[str], inputs: dict[str, np.ndarray], new: int) -> Call:
        """Return a call that goes on from prompts by a number of words, the likeliest at each step."""
        model, tensors = self.open(folder, "ModelForCausalLM", words), self.tensors(inputs)
        return lambda: model.generate(**tensors, max_new_tokens=new, min_new_tokens=new, do_sample=False)

    def saving(self, folder: Path, words: Collection[str], target: Path) -> Call:
        """Return a call that writes a checkpoint over the last one."""
        model = self.open(folder, "Model", words)
        return lambda: model.save_pretrained(target)

    def finish(self, result: Any) -> None:
        """Wait until a call's result is there."""
        if result is not None:
            result.numpy()

    def numbers(self, result: Any) -> np.ndarray:
        """Return a call's result for NumPy."""
        found: np.ndarray = self.tf.cast(result, "float32").numpy() if result.dtype.is_floating else result.numpy()
        return found

    def memory(self, call: Call) -> int | None:
        """Return what a call allocates at its peak: TensorFlow never gives memory back, so its own count is asked."""
        call()
        try:
            self.tf.config.experimental.reset_memory_stats("CPU:0")
            before = self.tf.config.experimental.get_memory_info("CPU:0")["current"]
            call()
            return int(self.tf.config.experimental.get_memory_info("CPU:0")["peak"] - before)
        except ValueError:  # where it does not count
            return None
