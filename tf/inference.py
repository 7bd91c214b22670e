"""Predicting and evaluating with Keras models; what is not Keras's is in `core.inference`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops

from ..core.inference import INPUTS, BasePipeline
from ..core.tasks.base import Arrays
from ..errors import InputError

# Where XLA compiles, it does so for each number of positions: there are few if they are a multiple of this.
_PLACES = 64


def find_device(name: str | None) -> str | None:
    """Return a device by its kind: "cpu", "gpu", "tpu", or None, which leaves the choice to Keras.

    Raises:
        InputError: there is no such device.
    """
    if name is None:
        return None
    if name not in ("cpu", "gpu", "tpu"):
        raise InputError(f'device is {name!r}; it must be "cpu", "gpu" or "tpu".')
    found = keras.distribution.list_devices(name)
    if not found:
        raise InputError(f'Keras sees no {name.upper()} here: compute on device="cpu".')
    return str(found[0])


@contextmanager
def on_device(device: str | None) -> Iterator[None]:
    """Return a scope in which models are opened and run on a device; None leaves the choice to Keras."""
    if device is None:
        yield
    else:
        with keras.device(device):
            yield


class Pipeline(BasePipeline):
    """A Keras model, its tokenizer and a task; see `BasePipeline`.

    It holds the model's graph, which sees the weights as they are; after `resize_token_embeddings`, make another.
    """

    @contextmanager
    def running(self) -> Iterator[None]:
        """See `BasePipeline.running`."""
        with on_device(self.device):
            yield

    def outputs(self, inputs: Arrays) -> Arrays:
        """See `BasePipeline.outputs`."""
        return {name: _to_numpy(values) for name, values in self._outputs(inputs).items()}

    def encode(self, inputs: Arrays) -> tuple[Any, Arrays]:
        """See `BasePipeline.encode`."""
        vectors, others = self._encode(inputs)
        return vectors, {name: _to_numpy(values) for name, values in others.items()}

    def score_words(self, vectors: Any, places: np.ndarray) -> np.ndarray:
        """See `BasePipeline.score_words`."""
        filled = np.pad(places, (0, -len(places) % _PLACES))
        return _to_numpy(self._score_words(vectors, filled))[: len(places)]

    def write(self, inputs: Arrays, settings: Mapping[str, Any]) -> np.ndarray:
        """See `BasePipeline.write`."""
        return _to_numpy(self.model.generate(**inputs, **settings))

    @cached_property
    def _outputs(self) -> Callable[..., Any]:
        def outputs(inputs: dict[str, Any]) -> dict[str, Any]:
            output = self.model(inputs, training=False)
            return {name: output[name] for name in self.task.outputs}

        return self._compiled(outputs, self._inputs())

    @cached_property
    def _encode(self) -> Callable[..., Any]:
        cache = {"use_cache": False} if self.task.generates else {}

        def encode(inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            output = self.model(inputs, output_logits=False, output_hidden_states=True, training=False, **cache)
            return output.hidden_states[-1], {name: output[name] for name in self.task.outputs[1:]}

        return self._compiled(encode, self._inputs())

    @cached_property
    def _score_words(self) -> Callable[..., Any]:
        def score_words(vectors: Any, places: Any) -> Any:
            chosen = ops.take(ops.reshape(vectors, (-1, vectors.shape[-1])), places, axis=0)
            return self.model.get_lm_head()(chosen[None])[0]

        vectors = keras.KerasTensor((None, None, self.model.config.hidden_size), self.model.compute_dtype)
        return self._compiled(score_words, vectors, keras.KerasTensor((None,), "int32"))

    def _inputs(self) -> dict[str, keras.KerasTensor]:
        """Return what a batch is, of any size and length."""
        shape = (None,) * self.model.input_rank
        names = [name for name in INPUTS if name in self.tokenizer.model_input_names]
        return {name: keras.KerasTensor(shape, "int32") for name in dict.fromkeys([*names, "attention_mask"])}

    def _compiled(self, function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
        """Return a function as one graph for all shapes that its arguments say; XLA, where it is used, knows each."""
        if self.model.run_eagerly or keras.backend.backend() != "tensorflow":
            return function
        import tensorflow as tf

        specs = keras.tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), arguments)
        compiled: Callable[..., Any] = tf.function(
            function, input_signature=specs, jit_compile=self.model.jit_compile, autograph=False
        )
        return compiled


def _to_numpy(tensor: Any) -> np.ndarray:
    """Return a tensor's numbers; NumPy's own float32 where it has no such dtype."""
    array = ops.convert_to_numpy(tensor)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
