"""Predicting and evaluating with PyTorch models; what is not PyTorch's is in `core.inference`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.inference import BasePipeline
from ..core.tasks.base import Arrays
from ..errors import InputError
from .modeling import evaluation


def find_device(name: str | None) -> torch.device:
    """Return a device by its kind: "cpu", "gpu", or None for the GPU if there is one.

    Raises:
        InputError: there is no such device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "cpu" or (name is None and accelerator is None):
        return torch.device("cpu")
    if name not in ("gpu", None):
        raise InputError(f'device is {name!r}; it must be "cpu" or "gpu".')
    if accelerator is None:
        raise InputError('PyTorch sees no GPU here: compute on device="cpu", or install a PyTorch for this machine\'s.')
    return accelerator


@contextmanager
def on_device(device: torch.device | None) -> Iterator[None]:
    """Return a scope in which models are opened; a PyTorch model is moved afterwards."""
    yield


class Pipeline(BasePipeline):
    """A PyTorch model, its tokenizer and a task; see `BasePipeline`."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """See `BasePipeline.running`."""
        if self.device is not None:
            self.model.to(self.device)
        with torch.no_grad(), evaluation(self.model):
            yield

    def outputs(self, inputs: Arrays) -> Arrays:
        """See `BasePipeline.outputs`."""
        output = self.model(**self._tensors(inputs))
        return {name: _to_numpy(output[name]) for name in self.task.outputs}

    def encode(self, inputs: Arrays) -> tuple[Tensor, Arrays]:
        """See `BasePipeline.encode`."""
        cache = {"use_cache": False} if self.task.generates else {}
        output = self.model(**self._tensors(inputs), output_logits=False, output_hidden_states=True, **cache)
        return output.hidden_states[-1], {name: _to_numpy(output[name]) for name in self.task.outputs[1:]}

    def score_words(self, vectors: Tensor, places: np.ndarray) -> np.ndarray:
        """See `BasePipeline.score_words`."""
        chosen = vectors.flatten(0, 1)[torch.from_numpy(places).to(vectors.device)]
        return _to_numpy(self.model.get_lm_head()(chosen[None])[0])

    def write(self, inputs: Arrays, settings: Mapping[str, Any]) -> np.ndarray:
        """See `BasePipeline.write`."""
        return _to_numpy(self.model.generate(**self._tensors(inputs), **settings))

    def _tensors(self, arrays: Arrays) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array).to(self.model.device) for name, array in arrays.items()}


def _to_numpy(tensor: Tensor) -> np.ndarray:
    """Return a tensor's numbers; NumPy's own float32 where it has no such dtype."""
    tensor = tensor.cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
