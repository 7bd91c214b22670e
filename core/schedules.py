"""Learning rates: the rate of each step as one function of its number, the same in both frameworks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from ..errors import InputError


class ScheduleOptions(Protocol):
    """What of `TrainingOptions` says how the learning rate goes."""

    @property
    def learning_rate(self) -> float:
        """The highest rate."""

    @property
    def schedule(self) -> str:
        """One of `SCHEDULES`."""

    @property
    def warmup_ratio(self) -> float:
        """The share of steps in which the rate rises."""


SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "constant": lambda done: 1.0,
}
"""What share of the highest rate is left, by the share of the steps after the warm-up that are done."""


def learning_rate_at(step: int, total_steps: int, options: ScheduleOptions) -> float:
    """Return the learning rate of a step, in double precision.

    In the first `warmup_ratio` of the steps, rounded up to whole ones, the rate rises from 0 in equal parts; after
    them it falls to 0, which it would reach at the step after the last: in equal parts ("linear"), along half a cosine
    ("cosine"; Loshchilov and Hutter 2017, equation 5, without restarts), or not at all ("constant").

    Args:
        step: the step's number, from 0.
        total_steps: how many steps there are in all.
        options: what says how the rate goes.

    Raises:
        InputError: there is no such step, or no such schedule.

    Example:
        >>> from .training.options import TrainingOptions
        >>> options = TrainingOptions(learning_rate=1.0, schedule="linear", warmup_ratio=0.2)
        >>> [learning_rate_at(step, 10, options) for step in (0, 1, 2, 6, 9)]
        [0.0, 0.5, 1.0, 0.5, 0.125]
    """
    if not 0 <= step < total_steps:
        raise InputError(f"There is no step {step}: the steps are 0 to {total_steps - 1}.")
    if options.schedule not in SCHEDULES:
        raise InputError(f"There is no schedule {options.schedule!r}; the schedules are {', '.join(SCHEDULES)}.")
    # A ratio such as 0.1 is not exact in binary, and must not round up to a step more than is meant.
    warmup = math.ceil(round(options.warmup_ratio * total_steps, 9))
    if step < warmup:
        return options.learning_rate * step / warmup
    return options.learning_rate * SCHEDULES[options.schedule]((step - warmup) / (total_steps - warmup))
