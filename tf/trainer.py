"""Training Keras models: `compile` and `fit`, on one device or on several by `tf.distribute`.

What is not Keras's (options, the order of the rows, the history, the report) is in `core.training`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..conversion.checkpoint import open_checkpoint
from ..core.schedules import learning_rate_at
from ..core.tasks.base import Task
from ..core.training.history import History, ProgressBar
from ..core.training.options import TrainingOptions
from ..core.training.plan import Data, TrainingPlan, prepare, read_data, source_of
from ..core.training.report import Outcome, write_report
from ..core.training.state import (
    RunState,
    checkpoint_to_resume,
    last_checkpoint,
    new_checkpoint,
    publish_checkpoint,
)
from ..core.training.stopping import Stop, stops_politely
from ..errors import InputError
from .callbacks import Callbacks, Watch
from .data import rows_computed, training_data
from .distribution import any_of, check_strategy, is_multiworker, process_of, strategy_of
from .inference import Pipeline, find_device, on_device
from .modeling import TFPreTrainedModel
from .step import TrainingStep

# Policies of Keras for what the options call by PyTorch's names.
_POLICIES = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


@contextmanager
def model_scope(options: TrainingOptions) -> Iterator[None]:
    """Return the scope in which the model to be trained is made or opened: in its dtype, new weights by the seed.

    Where several devices share a step's rows, each of them gets the variables that are made here.

    Raises:
        InputError: there is no such device.
    """
    strategy = strategy_of(options)
    before = keras.config.dtype_policy()
    keras.utils.set_random_seed(options.seed)
    keras.config.set_dtype_policy(_policy(options))
    try:
        with strategy.scope(), _device_scope(options):
            yield
    finally:
        keras.config.set_dtype_policy(before)


class TFTrainer:
    """Trains a model for a task, and evaluates it.

    With the strategy "multiworker", each process makes one, with the same arguments.

    Args:
        model: a model with the task's head, whose config `training_config` has made, in the dtype of the options. It is
            trained in place. For a strategy it must have been made in `model_scope`.
        tokenizer: the model's.
        task: what to learn.
        options: how.
        base: what the model began as, for the model card.
        progress: whether to show how far training is.

    Attributes:
        history: what happened so far.

    Raises:
        InputError: there is no such device, the model is not in the dtype or the strategy of the options, or options do
            not go together.
    """

    def __init__(
        self,
        model: TFPreTrainedModel,
        tokenizer: Any,
        task: Task,
        options: TrainingOptions | None = None,
        *,
        base: str | None = None,
        progress: bool = True,
    ) -> None:
        self.model, self.tokenizer, self.task, self.base = model, tokenizer, task, base
        self.options = TrainingOptions() if options is None else options
        self.progress = progress
        self.history = History()
        self.strategy = _checked_strategy(model, self.options)

    def evaluate(self, data: Data) -> dict[str, float]:
        """Return the task's metrics on examples with labels, or on a file of them.

        Raises:
            InputError: the file is not readable, or an example does not suit the model.
        """
        return self._pipeline().evaluate(read_data(self.task, data, self.options))

    def train(self, train_data: Data, eval_data: Data | None = None, *, output: str | os.PathLike[str]) -> Outcome:
        """Train, and leave in a folder the checkpoint, the tokenizer, the options, the history, and a report.

        With `keep_best` and evaluations the weights are those of the best one, in the folder and in the model. SIGTERM
        writes a checkpoint, and is then handled as it would be without.

        Args:
            train_data: the examples to learn, or a file or data set of them.
            eval_data: the examples to evaluate on.
            output: the folder; its `checkpoint` is what a run goes on from. Several processes share it.

        Returns:
            What came of it.

        Raises:
            InputError: an example does not suit the model, a run that is to go on was begun with other settings or
                data, the folder holds a run that is not to go on, or the loss is no finite number.
            CheckpointError: the checkpoint to go on from is damaged.
        """
        options, output = self.options, Path(output)
        examples = read_data(self.task, train_data, options, to_learn=True)
        # What is compiled, or shared by several devices, is of one shape.
        fill = options.compile or self.strategy.num_replicas_in_sync > 1 or options.device == "tpu"
        plan = prepare(self.task, self.tokenizer, self.model.config, examples, options, fill=fill)
        held_out = None if eval_data is None else read_data(self.task, eval_data, options)
        run = _Run(self, plan, output, held_out, self._begun(output))
        self.history = run.history
        with stops_politely() as stop:
            finished = run.go(stop)
        outcome = Outcome(
            task=self.task,
            config=self.model.config,
            options=options,
            framework="tf",
            base=self.base,
            train_source=source_of(examples),
            train_examples=len(examples),
            eval_source=None if held_out is None else source_of(held_out),
            eval_examples=None if held_out is None else len(held_out),
            state=run.state,
            metrics=self.history.metrics_after(run.state.best_step if options.keep_best else run.state.evaluated),
            parameters=self.model.num_parameters(),
        )
        if finished and run.is_main:
            write_report(output, outcome, self.history)
        if is_multiworker(self.strategy):
            # The first process leads the others, and what it writes is there when any of them returns.
            any_of(self.strategy, False)
        return outcome

    def _begun(self, output: Path) -> Path | None:
        """Return the checkpoint to go on from, if there is one and that is asked for."""
        # One process alone may move folders, and all look when it is done.
        if process_of(self.strategy) == 0:
            last_checkpoint(output)
        if is_multiworker(self.strategy):
            any_of(self.strategy, False)
        return checkpoint_to_resume(output, self.options)

    def _pipeline(self) -> Pipeline:
        return Pipeline(
            self.model,
            self.tokenizer,
            self.task,
            self.options,
            batch_size=self.options.batch_size,
            pad_multiple=self.options.pad_multiple,
            buckets=self.options.buckets,
            device=None if self.options.device == "tpu" else find_device(self.options.device),
        )


class _Run:
    """One run of a trainer: what `fit` runs, and where it stands."""

    def __init__(
        self, trainer: TFTrainer, plan: TrainingPlan, output: Path, held_out: Any, checkpoint: Path | None
    ) -> None:
        self.options, self.strategy, self.model = trainer.options, trainer.strategy, trainer.model
        self.tokenizer, self.task = trainer.tokenizer, trainer.task
        self.plan, self.output, self.held_out, self.show = plan, output, held_out, trainer.progress
        self.is_main = process_of(self.strategy) == 0
        self.state = RunState(rows=len(plan.features))
        if checkpoint is not None:
            self.state = RunState.load(checkpoint)
            self.state.check_data(len(plan.features), output)
        self.state.framework = "tf"
        self.pipeline = trainer._pipeline()
        if held_out is not None:
            self.held_out_features = self.task.encode(held_out, self.tokenizer, self.model.config, self.options)
        # Steps whose losses nobody has looked at; to look waits for the device.
        self.pending: list[dict[str, Any]] = []
        self.saved = 0
        # Predictions are compiled as training is.
        self.model.jit_compile = self.options.compile
        if self.options.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        with self.strategy.scope(), _device_scope(self.options):
            window = self.options.log_every + self.options.steps_per_execution
            self.step = TrainingStep(self.model, self.options, plan.total_steps, window)
        self.step.seed(self.options.seed)
        if checkpoint is not None:
            self.load_model(checkpoint)
            self.step.restore(checkpoint, self.state.step)
        # What a folder holds of a run is cut off where this one begins, and not before that is known to be possible.
        self.history = History(output if self.is_main else None, done=self.state.step)

    # The loop.

    def go(self, stop: Stop) -> bool:
        """Train to the end, and say whether that was reached; not if a signal asked to stop before."""
        state, plan = self.state, self.plan
        self.saved = state.step
        started = time.monotonic() - state.seconds
        with ProgressBar(plan.total_steps, state.step, shown=self.show and self.is_main) as bar:
            watch = Watch(self, stop, bar, started)
            if not watch.settle(state.step):
                callbacks = Callbacks([watch], add_history=True, model=self.step)
                with _device_scope(self.options):
                    data = training_data(plan, state.step, self.strategy)
                    steps = plan.total_steps - state.step
                    self.step.fit(data, steps_per_epoch=steps, callbacks=callbacks, shuffle=False, verbose=0)
        if watch.stopped:
            return False
        self.finish()
        return True

    def note(self, batch: Any, seconds: float) -> None:
        """Note that a step was made; its loss is looked at later."""
        step = self.state.step
        self.state.step = step + 1
        counted = batch.rows[batch.counted]
        self.pending.append(
            {
                "step": step + 1,
                "epoch": self.plan.epoch_at(step + 1),
                "learning_rate": learning_rate_at(step, self.plan.total_steps, self.options),
                "tokens": int(self.plan.batches.lengths[counted].sum()),
                "padded_tokens": rows_computed(self.plan, batch, self.strategy.num_replicas_in_sync) * batch.length,
                "seconds": seconds,
            }
        )

    def flush(self, bar: ProgressBar) -> None:
        """Look at the losses of the steps since the last time, and note them."""
        if not self.pending:
            return
        losses = np.asarray(keras.ops.convert_to_tensor(self.step.losses_kept))
        before = self.history.steps[-1]["seconds"] if self.history.steps else 0.0
        tokens = 0
        for record in self.pending:
            self.state.tokens += record["tokens"]
            self.state.padded_tokens += record["padded_tokens"]
            tokens += record["tokens"]
            self.history.add_step(**record, loss=float(losses[(record["step"] - 1) % len(losses)]))
        self.pending = []
        self.history.flush()
        last = self.history.steps[-1]
        bar.show_steps(last["step"], last["loss"], last["learning_rate"], tokens / max(last["seconds"] - before, 1e-9))

    def evaluate(self, bar: ProgressBar) -> None:
        """Measure the model, and keep its weights if there were none better."""
        metrics = self.pipeline.evaluate(self.held_out, features=self.held_out_features)
        metric = self.task.best_metric(self.model.config)
        is_best = self.state.judge(metrics, metric)
        step = self.state.step
        epoch = self.plan.epoch_at(step)
        self.history.add_evaluation(step=step, epoch=epoch, metrics=metrics, seconds=self.state.seconds)
        self.history.flush()
        bar.show_evaluation(step, metrics, metric)
        if is_best and self.options.keep_best:
            self.save_model(self.output)

    def finish(self) -> None:
        """Leave the weights that are to be kept, in the folder and in the model."""
        is_best_kept = self.options.keep_best and self.state.best is not None
        if not is_best_kept:
            self.save_model(self.output)
        self.history.close()
        if is_best_kept and self.state.best_step != self.state.step:
            self.load_model(self.output)

    # Checkpoints.

    def save_model(self, folder: Path) -> None:
        """Write what `from_pretrained` opens, tokenizer included, and the options."""
        if self.is_main:
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            self.options.save(folder)

    def load_model(self, folder: Path) -> None:
        """Give the model the weights of a folder."""
        with open_checkpoint(folder) as checkpoint:
            self.model._load(checkpoint, self.model._plan(checkpoint, ignore_mismatched_sizes=False))

    def save(self) -> None:
        """Write the checkpoint from which a run goes on to the same weights as if it had not been stopped."""
        if self.is_main:
            folder = new_checkpoint(self.output)
            self.save_model(folder)
            self.step.save(folder)
            self.state.save(folder)
            publish_checkpoint(self.output)


def _policy(options: TrainingOptions) -> str:
    return _POLICIES.get(options.dtype, options.dtype)


def _device_scope(options: TrainingOptions) -> Any:
    """Return the scope of the options' device; a strategy has its own."""
    is_placed = options.strategy != "default" or options.device == "tpu"
    return on_device(None if is_placed else find_device(options.device))


def _checked_strategy(model: TFPreTrainedModel, options: TrainingOptions) -> Any:
    """Return the strategy that a model is to be trained by.

    Raises:
        InputError: there is no such device, or the model or the options do not suit it.
    """
    strategy = strategy_of(options)
    policy = _policy(options)
    if model.dtype_policy.name != policy:
        raise InputError(
            f"The model is in {model.dtype_policy.name}, and dtype={options.dtype!r} wants {policy}: open it with "
            f"dtype={policy!r}, or in `with model_scope(options):`."
        )
    if model.distribute_strategy is not strategy:
        raise InputError(
            f"The model was made outside of the strategy {options.strategy!r}: make or open it in "
            "`with model_scope(options):`."
        )
    check_strategy(strategy, options)
    return strategy
