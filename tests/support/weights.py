"""Random weights by Hub name: the same in both frameworks, and large enough that every parameter shows in the output.

A model fresh from its initialiser would hide mistakes: its biases are zero, its norms the identity, and its weights so
small that attention is nearly uniform.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np


def random_value(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return a float64 value for the parameter of this Hub name, in the Hub's layout.

    It hangs on the name, the shape and the seed alone.

    The sizes keep a stack of residual layers near scale 1, with norms and without. Were they larger, scores would grow
    and the softmax saturate; gradients of queries and keys would then be differences of nearly equal numbers, and
    float32 would give them with few digits in either framework.
    """
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("bias"):
        return random.normal(0.0, 0.2, shape)
    if len(shape) == 1:
        return random.uniform(0.7, 1.2, shape)
    if name.endswith("_embeddings.weight"):
        return random.normal(0.0, 0.7, shape)
    fan_in = int(np.prod(shape[1:]))
    return random.normal(0.0, 0.7 / np.sqrt(max(fan_in, 1)), shape)


def randomise(model: Any, seed: int) -> Any:
    """Set every parameter of a PyTorch or Keras model to `random_value`; return the model."""
    if hasattr(model, "named_parameters"):
        import torch

        with torch.no_grad():
            # Parameters that are tied come once, under the name of the input embeddings.
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.from_numpy(random_value(name, tuple(parameter.shape), seed)))
    else:
        from isobert.conversion.layouts import from_hub, hub_shape

        for variable, name, layout in hub_variables(model):
            value = random_value(name, hub_shape(tuple(variable.shape), layout), seed)
            variable.assign(from_hub(value, layout, tuple(variable.shape)))
    return model


def hub_variables(model: Any) -> list[tuple[Any, str, Any]]:
    """Return each variable of a Keras model with its Hub name and its layout."""
    from isobert.conversion.names import keras_to_hub

    return [(variable, *keras_to_hub(variable.path)) for variable in model.weights]


def parameters(model: Any) -> dict[str, np.ndarray]:
    """Return every parameter of a PyTorch or Keras model under its Hub name, in the Hub's layout."""
    if hasattr(model, "named_parameters"):
        return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    import keras

    from isobert.conversion.layouts import to_hub

    arrays = [(name, keras.ops.convert_to_numpy(variable), layout) for variable, name, layout in hub_variables(model)]
    return {name: to_hub(array, layout) for name, array, layout in arrays}
