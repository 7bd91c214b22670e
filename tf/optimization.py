"""Models for inference that compute the same with less work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from ..conversion.formats.base import aligned_empty
from ..errors import InputError, OptimizedModelError
from .layers import adopted
from .modeling import TFPreTrainedModel
from .optimized import bert, convbert, mobilebert

logger = logging.getLogger("isobert")

Model = TypeVar("Model", bound=TFPreTrainedModel)

# Exchange the parts of a bare encoder for ones made of another's weights, and tell what was done.
FAMILIES: dict[str, Callable[[Any, Any], tuple[str, ...]]] = {
    "convbert": convbert.optimize,
    "mobilebert": mobilebert.optimize,
    "rembert": bert.optimize_rembert,
    "squeezebert": bert.optimize_squeezebert,
}


def optimize(model: Model, *, dtype: Any = None) -> Model:
    """Return a model of the same class that computes the same with less work, for inference alone.

    Its encoder is exchanged for one whose products are fewer and larger; MobileBERT's NoNorms are folded into the
    weights (`core/folding.py`). It is called as the original is, and returns the same, hidden states and attentions
    included. `optimizations` tells what was done.

    The original is unchanged. What needs no change, such as the table of words, is in memory once for both; the layers'
    weights are copied. Training and saving are the original's. The model works in a `tf.function`, with
    `jit_compile=True` and in `export`.

    Args:
        model: any model of the library, bare or with a head.
        dtype: of the new model, or a policy; None is the original's. The layers' weights are held in the dtype that is
            computed in. In float16, MobileBERT's streams are scaled by powers of two so that they stay within its
            range.

    Raises:
        InputError: it is no model of the library, or no policy of Keras.
        OptimizedModelError: the model is optimized already, or parts of it have been exchanged (by an adapter or a
            quantised layer, say).

    Example:
        >>> import numpy as np
        >>> from isobert import MobileBertConfig, TFMobileBertModel
        >>> from isobert.tf import optimize
        >>> model = TFMobileBertModel(MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2))
        >>> fast = optimize(model)
        >>> print(*fast.optimizations, sep="\\n")
        folded 11 NoNorms into the weights
        joined products of the same numbers: 16 in the layers instead of 20
        >>> ids = np.array([[101, 7592, 102]])
        >>> np.allclose(fast(ids).last_hidden_state, model(ids).last_hidden_state, atol=1e-5)
        True
    """
    if not isinstance(model, TFPreTrainedModel):
        raise InputError(f"optimize takes a Keras model of isobert; it got a {type(model).__name__}.")
    if model.optimizations:
        raise OptimizedModelError(f"This {type(model).__name__} is optimized already.")
    policy = model.dtype_policy if dtype is None else _policy(dtype)
    optimized = _shared_copy(model, policy)
    done = FAMILIES[model.config.model_type](optimized.base_model, model.base_model)
    optimized.trainable = False
    optimized.optimizations = done
    logger.info("%s is optimized:\n%s", type(model).__name__, "\n".join(f"- {sentence}" for sentence in done))
    return optimized


def _policy(dtype: Any) -> Any:
    try:
        return keras.dtype_policies.get(dtype)
    except ValueError as error:
        raise InputError(f"dtype is {dtype!r}, which Keras does not know: {error}") from None


def _shared_copy(model: Model, policy: Any) -> Model:
    """Return a new model that holds the very values of a model where they have its dtype, else converted ones."""
    # In this scope variables are made without values; they get them when it ends, and those take up no memory.
    with keras.StatelessScope():
        copy = type(model).from_config({**model.get_config(), "dtype": keras.dtype_policies.serialize(policy)})
        for variable in copy.weights:
            variable._initializer = _unfilled
    held, wanted = _by_name(model), _by_name(copy)
    strange = sorted(name for name in held.keys() | wanted.keys() if _form(held, name) != _form(wanted, name))
    if strange:
        raise OptimizedModelError(
            f"{strange[0]} of this {type(model).__name__} is not as its config has it, so it cannot be optimized. "
            "Merge adapters first; optimize before parts are quantised or exchanged."
        )
    for name, variable in wanted.items():
        if variable.dtype == held[name].dtype:
            variable._value = held[name].value
        else:
            variable.assign(ops.cast(held[name], variable.dtype))
    return copy


def _by_name(model: TFPreTrainedModel) -> dict[str, Any]:
    return {variable.path.removeprefix(f"{model.path}/"): variable for variable in model.weights}


def _form(variables: dict[str, Any], name: str) -> tuple[int, ...] | None:
    return tuple(variables[name].shape) if name in variables else None


def _unfilled(shape: tuple[int, ...], dtype: Any = None) -> Any:
    return adopted(aligned_empty(shape, np.dtype(keras.backend.standardize_dtype(dtype))))
