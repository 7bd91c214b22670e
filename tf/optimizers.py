"""AdamW with PyTorch's arithmetic, so that training goes on in Keras where it stopped in PyTorch, and the reverse."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from keras import ops

from ..conversion.names import keras_to_hub
from ..conversion.optimizer import OPTIMIZER_FILE, read_optimizer, write_optimizer
from ..conversion.optimizer_keras import keras_variables, state_of_keras, undecayed_parts
from ..core.hub import resolve_file
from ..core.registry import family_of
from ..errors import UnknownNameError

if TYPE_CHECKING:
    from .modeling import TFPreTrainedModel


@keras.saving.register_keras_serializable("isobert")
class TFAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter, 2019, algorithm 2) that makes the very steps of `torch.optim.AdamW`.

    Its variables are those of `keras.optimizers.AdamW`; it parts from that in what PyTorch does otherwise:

    - epsilon is added to the root of the corrected mean of squares (`v` over `1 - beta_2 ** t`), not to that of `v`, so
      that it counts for the same in every step;
    - betas and weight decay are as exact as the parameters, where Keras has them in float32;
    - rows of a table that a batch uses more than once add their gradients up before these are squared;
    - epsilon and weight decay are by default PyTorch's.

    Keras holds a learning rate in `keras.config.floatx()`: for exact float64, set that to "float64" first.

    Args:
        learning_rate: a number, or a schedule of Keras.
        weight_decay: how much of a parameter decays at a step, times the learning rate.
        beta_1, beta_2: how much of the running mean of gradients and of squares stays at a step.
        epsilon: what is added to the root.
        undecayed: parts of names on the Hub, such as `("bias", "LayerNorm")`; a parameter with one of them in its name
            does not decay. Unlike what `exclude_from_weight_decay` is told, they are saved with the model.
        kwargs: as in `keras.optimizers.AdamW`.

    Example:
        >>> TFAdamW(1e-3, undecayed=("bias", "LayerNorm")).undecayed
        ('bias', 'LayerNorm')
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        weight_decay: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        undecayed: Iterable[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate, weight_decay=weight_decay, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, **kwargs
        )
        self.undecayed = tuple(undecayed)

    def build(self, variables: list[Any]) -> None:
        """Make the variables for a model's."""
        if self.undecayed and not self.built:
            left_out = [v for v in variables if any(part in _hub_name(v) for part in self.undecayed)]
            self.exclude_from_weight_decay(var_list=left_out)
        super().build(variables)

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        """Work out once what all variables share; for a thousand variables it would be most of a graph."""
        dtypes = {keras.backend.standardize_dtype(variable.dtype) for variable in trainable_variables}
        # Half precision, which a variable may have, would round it.
        wide = "float64" if "float64" in dtypes else "float32"
        step, rate = ops.cast(self.iterations + 1, wide), ops.cast(learning_rate, wide)
        root = ops.sqrt(_correction(self.beta_2, step))
        shared = _Shared(rate / _correction(self.beta_1, step), root, rate * (self.weight_decay or 0.0))
        super()._backend_update_step(grads, trainable_variables, shared)

    def update_step(self, gradient: Any, variable: Any, learning_rate: _Shared) -> None:
        """Make one variable's step, its decay included."""
        index = self._get_variable_index(variable)
        own = keras.backend.standardize_dtype(variable.dtype)
        rate, root, decay = (ops.cast(number, own) for number in learning_rate)
        if hasattr(gradient, "indices"):
            # TensorFlow has a table's gradient as rows, twice that of a word that is used twice: a sum makes it one.
            gradient = ops.add(gradient, ops.zeros((), gradient.dtype))
        gradient = ops.cast(gradient, own)
        mean, square = self._momentums[index], self._velocities[index]
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(square, (gradient * gradient - square) * (1 - self.beta_2))
        change = rate * mean / (ops.sqrt(square) / root + self.epsilon)
        if self._use_weight_decay(variable):
            change = change + decay * variable
        self.assign_sub(variable, change)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Leave the decay to `update_step`, since here Keras would take it to float32."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, ready for JSON."""
        return {**super().get_config(), "undecayed": list(self.undecayed)}

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], model: TFPreTrainedModel, *, learning_rate: Any = None
    ) -> TFAdamW:
        """Make the optimizer that goes on where PyTorch's stopped.

        Args:
            folder: a folder or Hub repository with `optimizer.pt`, as PyTorch's own or a Trainer's was written.
            model: the model that is to be trained on, opened from the same checkpoint.
            learning_rate: a schedule or number to use in place of the state's.

        Returns:
            The optimizer, to be given to `model.compile`.

        Raises:
            CheckpointNotFoundError: there is no `optimizer.pt`.
            CheckpointError: it is damaged, another optimizer's or another model's.
            MissingDependencyError: torch, which reads it, is not installed.
        """
        path = resolve_file(folder, OPTIMIZER_FILE)
        assert path is not None
        head, names = _head_of(model), _trained_names(model)
        state = read_optimizer(path, model.config, head)
        # PyTorch's file has all settings.
        assert state.betas is not None
        assert state.weight_decay is not None
        assert state.epsilon is not None
        optimizer = cls(
            state.learning_rate if learning_rate is None else learning_rate,
            weight_decay=state.weight_decay,
            beta_1=state.betas[0],
            beta_2=state.betas[1],
            epsilon=state.epsilon,
            undecayed=undecayed_parts(state),
        )
        optimizer.build(model.trainable_variables)
        _, *moments = keras_variables(replace(state, learning_rate=None), model.config, head, names=names).values()
        optimizer.iterations.assign(state.step)
        for variable, moment in zip(optimizer.variables[-len(moments) :], moments, strict=True):
            variable.assign(np.asarray(moment))
        return optimizer

    def save_pretrained(self, folder: str | os.PathLike[str], model: TFPreTrainedModel) -> None:
        """Write `optimizer.pt`, so that PyTorch goes on: `optimizer.load_state_dict(torch.load(path))` takes it over.

        Args:
            folder: made if need be.
            model: the model that was trained with this optimizer.

        Raises:
            CheckpointError: the optimizer is not this model's.
            MissingDependencyError: torch, which writes it, is not installed.
        """
        head = _head_of(model)
        variables = {str(number): ops.convert_to_numpy(variable) for number, variable in enumerate(self.variables)}
        state = state_of_keras(
            variables,
            model.config,
            head,
            f"the optimizer of {type(model).__name__}",
            names=_trained_names(model),
            optimizer={"class_name": "TFAdamW", "config": self.get_config()},
        )
        state = replace(state, learning_rate=float(ops.convert_to_numpy(self.learning_rate)))
        write_optimizer(Path(folder) / OPTIMIZER_FILE, state, model.config, head)


class _Shared(NamedTuple):
    """What all variables have in common at a step: scalars.

    Attributes:
        rate: the learning rate, corrected for the running mean's beginning at 0.
        root: of the correction of the mean of squares.
        decay: what share of a variable decays.
    """

    rate: Any
    root: Any
    decay: Any


def _correction(beta: float, step: Any) -> Any:
    """Return `1 - beta ** step`, without the rounding that comes of a beta near 1."""
    return -ops.expm1(step * math.log(beta)) if beta else ops.ones_like(step)


def _hub_name(variable: Any) -> str:
    """Return a variable's name on the Hub, or its path where it has none there."""
    try:
        return keras_to_hub(variable.path)[0]
    except UnknownNameError:
        return str(variable.path)


def _trained_names(model: TFPreTrainedModel) -> list[str]:
    names = {id(variable): name for name, (variable, _) in model._hub_variables().items()}
    return [names[id(variable)] for variable in model.trainable_variables]


def _head_of(model: TFPreTrainedModel) -> str:
    """Return a model's name after its family's."""
    return type(model).__name__.removeprefix(f"TF{family_of(model.config.model_type).prefix}")
