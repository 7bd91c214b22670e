"""What happens between the steps of `fit`: notes, evaluations, checkpoints, and an end before the last step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import keras

from ..core.training.history import ProgressBar
from ..core.training.stopping import Stop
from .distribution import any_of, is_multiworker

if TYPE_CHECKING:
    from .trainer import _Run


class Watch(keras.callbacks.Callback):
    """Notes the steps that `fit` makes, and evaluates, saves and stops between them.

    Keras's own `BackupAndRestore` would begin an epoch anew that was broken off in its middle, and keeps neither where
    the data stand nor a whole checkpoint while it writes another.

    Args:
        run: the run.
        stop: whether a signal asked to stop.
        bar: where to show how far training is.
        started: when training began, on the monotonic clock.

    Attributes:
        stopped: whether training ended for a signal.
    """

    def __init__(self, run: _Run, stop: Stop, bar: ProgressBar, started: float) -> None:
        super().__init__()
        self.run, self.stop, self.bar, self.started = run, stop, bar, started
        self.steps = run.plan.steps(run.state.step)
        self.stopped = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the steps of an execution."""
        run = self.run
        before, seconds = run.state.step, time.monotonic() - self.started
        for _ in range(min(run.options.steps_per_execution, run.plan.total_steps - before)):
            run.note(next(self.steps)[1], seconds)
        if len(run.pending) >= run.options.log_every:
            run.flush(self.bar)
        self.model.stop_training = self.settle(before + 1)

    def settle(self, first: int) -> bool:
        """Do what is due after the steps from the one with the number `first` on, and say whether training is over."""
        run, state, plan, options = self.run, self.run.state, self.run.plan, self.run.options
        state.seconds = time.monotonic() - self.started
        made = range(first, state.step + 1)
        if self._is_to_stop(made):
            run.flush(self.bar)
            run.save()
            self.stopped = True
            return True
        if run.held_out is not None and state.step > state.evaluated and any(map(plan.evaluates_after, made)):
            run.flush(self.bar)
            run.evaluate(self.bar)
            state.seconds = time.monotonic() - self.started
        is_over = state.step == plan.total_steps or (options.patience is not None and state.worse >= options.patience)
        if state.step > run.saved and (is_over or any(map(plan.saves_after, made))):
            run.flush(self.bar)
            run.save()
            run.saved = state.step
        return is_over

    def _is_to_stop(self, made: range) -> bool:
        """Say whether a signal asked any of the processes to stop."""
        if not is_multiworker(self.run.strategy):
            return self.stop.asked
        # All must decide alike, and asking one another takes time.
        if not any(step % self.run.options.log_every == 0 for step in made):
            return False
        return any_of(self.run.strategy, self.stop.asked)


class Callbacks(keras.callbacks.CallbackList):
    """Callbacks that get a step's results as they are: Keras makes numbers of them, and waits for the device."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Call every callback."""
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)
