"""The state of AdamW as Keras 3 keeps it: in variables that have numbers for names.

They are, in this order, the number of steps, the learning rate unless a schedule gives it, and for each parameter that
the model trains, in the model's order, the mean of its gradient and that of its gradient's square.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.registry import family_of
from ..errors import CheckpointError, InputError
from .expected import expected_tensors
from .formats.base import LazyTensor, TensorLike
from .keras_names import KERAS_OPTIMIZER, groups_of, variable_names
from .layouts import Layout, foreign_shape, from_hub, hub_shape, to_hub
from .names import KERAS_LEAVES
from .optimizer_state import Moments, OptimizerState, check_state
from .parameter_order import UNDECAYED_PARTS, keras_order

KERAS_VARIABLES_PLACE = "optimizer/vars/"
"""Where a Keras file of weights has the variables of the optimizer, by number."""

_LAYOUTS = {keras: layout for keras, _, layout in KERAS_LEAVES}


def keras_variables(
    state: OptimizerState, config: Any, head: str, *, names: Sequence[str] | None = None
) -> dict[str, TensorLike]:
    """Return a state as the variables of a Keras AdamW, by their numbers, as `load_own_variables` takes them.

    A parameter that was never updated has moments of zero. Tensors are computed when they are needed.

    Args:
        state: the state. Without a learning rate it is for an optimizer with a schedule.
        config: the config of the model.
        head: the model's name after its family's, such as "ForMaskedLM".
        names: the Hub's names of the variables that the model trains, in its order, where it is not a new model's.

    Raises:
        CheckpointError: a moment is not of its parameter's shape, or of a parameter that the model does not train.
    """
    shapes = expected_tensors(config, head)
    trained = keras_order(config, head) if names is None else tuple(names)
    model = f"the Keras optimizer of {family_of(config.model_type).model_name(head, 'tf')}"
    check_state(state, shapes, model)
    frozen = [name for name in state.moments if name not in trained]
    if frozen:
        raise CheckpointError(
            f"{model} has no place for the moments of {frozen[0]}, which that model does not train. Make it trainable "
            "before the optimizer is made, or leave these moments out of the state."
        )
    dtype = next((moments.mean.dtype for moments in state.moments.values()), np.dtype(np.float32))
    variables: list[TensorLike] = [np.array(state.step, np.int64)]
    if state.learning_rate is not None:
        variables.append(np.array(state.learning_rate, np.float64 if dtype == np.float64 else np.float32))
    layouts = _layouts(config, head)
    for name in trained:
        layout, shape = layouts[name]
        moments = state.moments.get(name)
        if moments is None:
            variables += [LazyTensor(shape, dtype, lambda shape=shape: np.zeros(shape, dtype))] * 2  # type: ignore[misc]
        else:
            variables += [_in_keras(moments.mean, layout, shape), _in_keras(moments.square, layout, shape)]
    return {str(number): variable for number, variable in enumerate(variables)}


def state_of_keras(
    variables: Mapping[str, TensorLike],
    config: Any,
    head: str,
    where: Path | str,
    *,
    names: Sequence[str] | None = None,
    optimizer: Mapping[str, Any] | None = None,
) -> OptimizerState:
    """Return the state that the variables of a Keras AdamW hold.

    Args:
        variables: by their numbers, as `save_own_variables` gives them.
        config: the config of the model.
        head: the model's name after its family's, such as "ForMaskedLM".
        where: what errors call them.
        names: the Hub's names of the variables that the model trains, in its order, where it is not a new model's.
        optimizer: what Keras wrote of the optimizer itself, its class and settings; without it the state lacks these.

    Raises:
        CheckpointError: they are not those of an AdamW of this model.
        InputError: `names` are not the model's.
    """
    shapes = expected_tensors(config, head)
    trained = keras_order(config, head) if names is None else tuple(names)
    unknown = [name for name in trained if name not in shapes]
    if unknown:
        raise InputError(f"{where}: the model has no parameter {unknown[0]}, of those given in `names`.")
    held = [variables[str(number)] for number in range(len(variables)) if str(number) in variables]
    scalars = len(held) - 2 * len(trained)
    if len(held) != len(variables) or scalars not in (1, 2) or any(tuple(v.shape) for v in held[:scalars]):
        raise CheckpointError(
            f"{where}: AdamW has 2 moments for each of the {len(trained)} variables that "
            f"{family_of(config.model_type).model_name(head, 'tf')} trains, a number of steps and at most one learning "
            f"rate; here are {len(variables)} variables. They are of another optimizer or another model; or only a "
            "part of the model was trained, and then give `names`, the Hub's names of what was, in the model's order."
        )
    layouts = _layouts(config, head)
    moments = {}
    for name, mean, square in zip(trained, held[scalars::2], held[scalars + 1 :: 2], strict=True):
        layout, shape = layouts[name]
        for tensor in (mean, square):
            if tuple(tensor.shape) != shape:
                raise CheckpointError(
                    f"{where}: the moments of {name} are {list(tensor.shape)}, where {list(shape)} was expected: the "
                    "state is of another optimizer or another model, or the config is not its own."
                )
        moments[name] = Moments(_on_hub(mean, layout), _on_hub(square, layout))
    settings = _settings(optimizer, where) if optimizer else {}
    parts = settings.pop("undecayed", ())
    undecayed = tuple(name for name in shapes if name in trained and any(part in name for part in parts))
    return OptimizerState(
        step=int(np.asarray(held[0])),
        moments=moments,
        # In one group PyTorch's optimizer has what is not trained too, as `model.parameters()` does.
        parameters=tuple(name for name in shapes if name in trained) if undecayed else tuple(shapes),
        undecayed=undecayed,
        learning_rate=float(np.asarray(held[1])) if scalars == 2 else None,
        **settings,
    )


# What Keras's optimizers of this form are called, and the settings with which they are no plain AdamW.
_CLASSES = ("Adam", "AdamW", "TFAdamW")
_ADDITIONS = ("amsgrad", "use_ema", "gradient_accumulation_steps")


def _settings(optimizer: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """Return the settings in what Keras wrote of an optimizer."""
    name, config = optimizer.get("class_name"), optimizer.get("config", {})
    if name not in _CLASSES:
        raise CheckpointError(f"{where}: the optimizer is {name!r}; only AdamW's state is carried.")
    for key in _ADDITIONS:
        if config.get(key):
            raise CheckpointError(f"{where}: the optimizer has {key}={config[key]}; only plain AdamW is carried.")
    return {
        "betas": (float(config["beta_1"]), float(config["beta_2"])),
        "epsilon": float(config["epsilon"]),
        "weight_decay": float(config["weight_decay"] or 0.0),
        "undecayed": tuple(config.get("undecayed", ())),
    }


def undecayed_parts(state: OptimizerState) -> tuple[str, ...]:
    """Return parts of names by which `TFAdamW` leaves out of weight decay what the state leaves out."""
    for parts in UNDECAYED_PARTS:
        if set(state.undecayed) == {name for name in state.parameters if any(part in name for part in parts)}:
            return parts
    return state.undecayed


def compile_config(state: OptimizerState) -> dict[str, Any]:
    """Return what Keras notes of a model that was compiled with `TFAdamW` and its own loss, in a `.keras` archive.

    Raises:
        InputError: the state lacks settings.
    """
    lacking = [name for name in ("learning_rate", "betas", "epsilon", "weight_decay") if getattr(state, name) is None]
    if lacking or state.betas is None:
        raise InputError(
            f"the state lacks {', '.join(lacking)}, which a compiled Keras model has. Put them in with "
            "dataclasses.replace(state, ...)."
        )
    settings = {
        "name": KERAS_OPTIMIZER,
        "learning_rate": state.learning_rate,
        "weight_decay": state.weight_decay,
        "clipnorm": None,
        "global_clipnorm": None,
        "clipvalue": None,
        "use_ema": False,
        "ema_momentum": 0.99,
        "ema_overwrite_frequency": None,
        "loss_scale_factor": None,
        "gradient_accumulation_steps": None,
        "beta_1": state.betas[0],
        "beta_2": state.betas[1],
        "epsilon": state.epsilon,
        "amsgrad": False,
        "undecayed": list(undecayed_parts(state)),
    }
    return {
        "optimizer": {
            "module": "isobert.tf.optimizers",
            "class_name": "TFAdamW",
            "config": settings,
            "registered_name": "isobert>TFAdamW",
        },
        "loss": None,
        "loss_weights": None,
        "metrics": None,
        "weighted_metrics": None,
        "run_eagerly": False,
        "steps_per_execution": 1,
        "jit_compile": False,
    }


def _layouts(config: Any, head: str) -> dict[str, tuple[Layout, tuple[int, ...]]]:
    """Return how each parameter lies in Keras, and its shape there."""
    shapes = expected_tensors(config, head)
    layers: dict[str, list[str]] = {}
    for name in shapes:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    found: dict[str, tuple[Layout, tuple[int, ...]]] = {}
    for layer, names in layers.items():
        variables = variable_names(layer, [len(shapes[name]) for name in names])
        assert variables is not None, layer
        for name, variable in zip(names, variables, strict=True):
            layout, shape = _LAYOUTS[variable], shapes[name]
            if layout == "grouped":
                groups = groups_of(layer, config)
                found[name] = layout, (groups, shape[1], shape[0] // groups)
            else:
                found[name] = layout, foreign_shape(shape, layout)
    return found


def _in_keras(tensor: TensorLike, layout: Layout, shape: tuple[int, ...]) -> LazyTensor:
    return LazyTensor(shape, tensor.dtype, lambda: from_hub(np.asarray(tensor), layout, shape))


def _on_hub(tensor: TensorLike, layout: Layout) -> LazyTensor:
    shape = hub_shape(tuple(tensor.shape), layout)
    return LazyTensor(shape, tensor.dtype, lambda: to_hub(np.asarray(tensor), layout))
