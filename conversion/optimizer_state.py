"""The state of AdamW, apart from any framework and any file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from .formats.base import TensorLike


@dataclass(frozen=True)
class Moments:
    """What AdamW keeps of one parameter, in the parameter's shape on the Hub.

    Attributes:
        mean: the running mean of its gradient.
        square: the running mean of its gradient's square.
    """

    mean: TensorLike
    square: TensorLike


@dataclass(frozen=True)
class OptimizerState:
    """The state of AdamW. Its tensors are read when they are needed.

    A file may not hold all of the settings: `.weights.h5` has the learning rate at most. What it lacks is None, and
    `dataclasses.replace` puts it in.

    Attributes:
        step: how many steps were made.
        moments: by the parameter's Hub name; a parameter that was never updated has none.
        parameters: the Hub names of all parameters that the optimizer was given.
        undecayed: those of them that are left out of weight decay, in a group of their own.
        learning_rate: the rate of the next step; None also where a schedule gives it.
        betas: how much of either mean stays at a step.
        epsilon: what is added to the square root of the mean of squares.
        weight_decay: how much of a parameter decays at a step, times the learning rate.
    """

    step: int
    moments: Mapping[str, Moments]
    parameters: tuple[str, ...]
    undecayed: tuple[str, ...] = ()
    learning_rate: float | None = None
    betas: tuple[float, float] | None = None
    epsilon: float | None = None
    weight_decay: float | None = None


def check_state(state: OptimizerState, shapes: Mapping[str, tuple[int, ...]], where: Path | str) -> None:
    """Raise where a state is not that of a model with parameters of these shapes.

    Raises:
        CheckpointError: a moment is not of its parameter's shape, or the model has no such parameter.
    """
    unknown = [name for name in (*state.parameters, *state.moments) if name not in shapes]
    if unknown:
        raise CheckpointError(f"{where}: the model has no parameter {unknown[0]}; the state is of another model.")
    for name, moments in state.moments.items():
        for tensor in (moments.mean, moments.square):
            if tuple(tensor.shape) != shapes[name]:
                raise CheckpointError(
                    f"{where}: a moment of {name} is {list(tensor.shape)}, and the parameter {list(shapes[name])}."
                )
