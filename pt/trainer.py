"""Training PyTorch models: a plain loop on Accelerate, which carries processes, shards and mixed precision.

What is not PyTorch's (options, the order of the rows, the history, the report) is in `core.training`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..conversion.optimizer import OPTIMIZER_FILE
from ..core.schedules import learning_rate_at
from ..core.tasks.base import Arrays, Task
from ..core.training.history import History, ProgressBar
from ..core.training.options import TrainingOptions
from ..core.training.plan import Data, TrainingPlan, decays, prepare, read_data, source_of
from ..core.training.report import Outcome, write_report
from ..core.training.state import (
    NEW_CHECKPOINT,
    RunState,
    checkpoint_to_resume,
    last_checkpoint,
    new_checkpoint,
    publish_checkpoint,
)
from ..core.training.stopping import Stop, stops_politely
from ..errors import InputError
from .acceleration import accelerator_of, shared_loss
from .inference import Pipeline
from .modeling import PreTrainedModel
from .resuming import (
    RANDOM_FILE,
    load_content,
    optimizer_state,
    random_states,
    restore_optimizer,
    restore_random_states,
    save_content,
    whole_weights,
)

_SHAPES = 64  # how many a model is compiled for

# Devices on which AdamW makes the whole step in one kernel.
_FUSED = ("cuda", "cpu", "xpu", "mps")


@contextmanager
def model_scope(options: TrainingOptions) -> Iterator[None]:
    """Return the scope in which the model to be trained is made or opened: in its dtype, new weights by the seed."""
    before = torch.get_default_dtype()
    torch.manual_seed(options.seed)
    torch.set_default_dtype(torch.float64 if options.dtype == "float64" else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Trainer:
    """Trains a model for a task, and evaluates it.

    Under `accelerate launch` or `torchrun`, each process makes one, with the same arguments.

    Args:
        model: a model with the task's head, whose config `training_config` has made. It is trained in place.
        tokenizer: the model's.
        task: what to learn.
        options: how.
        base: what the model began as, for the model card.
        progress: whether to show how far training is.

    Attributes:
        history: what happened so far.

    Raises:
        InputError: there is no such device.
        MissingDependencyError: accelerate is not installed.
    """

    def __init__(
        self,
        model: PreTrainedModel,
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
        self.accelerator = accelerator_of(self.options)

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
            output: the folder; its `checkpoint` is what a run goes on from.

        Returns:
            What came of it.

        Raises:
            InputError: an example does not suit the model, a run that is to go on was begun with other settings or
                data or in Keras, the folder holds a run that is not to go on, or the loss is no finite number.
            CheckpointError: the checkpoint to go on from is damaged.
        """
        options, accelerator, output = self.options, self.accelerator, Path(output)
        examples = read_data(self.task, train_data, options, to_learn=True)
        plan = prepare(
            self.task,
            self.tokenizer,
            self.model.config,
            examples,
            options,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        held_out = None if eval_data is None else read_data(self.task, eval_data, options)
        checkpoint = self._begun(output)
        run = _Run(self, plan, output, held_out, checkpoint)
        self.history = run.history
        with stops_politely() as stop:
            finished = run.go(stop)
        outcome = Outcome(
            task=self.task,
            config=self.model.config,
            options=options,
            framework="pt",
            base=self.base,
            train_source=source_of(examples),
            train_examples=len(examples),
            eval_source=None if held_out is None else source_of(held_out),
            eval_examples=None if held_out is None else len(held_out),
            state=run.state,
            metrics=self.history.metrics_after(run.state.best_step if options.keep_best else run.state.evaluated),
            parameters=self.model.num_parameters(),
        )
        if finished and accelerator.is_main_process:
            write_report(output, outcome, self.history)
        return outcome

    def _begun(self, output: Path) -> Path | None:
        """Return the checkpoint to go on from, if there is one and that is asked for."""
        # One process alone may move folders, and all look when it is done.
        if self.accelerator.is_main_process:
            last_checkpoint(output)
        self.accelerator.wait_for_everyone()
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
            device=self.accelerator.device,
        )


class _Run:
    """One run of a trainer: the model and the optimizer as they are wrapped, and where it stands."""

    def __init__(
        self, trainer: Trainer, plan: TrainingPlan, output: Path, held_out: Any, checkpoint: Path | None
    ) -> None:
        self.options, self.accelerator, self.model = trainer.options, trainer.accelerator, trainer.model
        self.tokenizer, self.task = trainer.tokenizer, trainer.task
        self.plan, self.output, self.held_out, self.show = plan, output, held_out, trainer.progress
        self.is_main = self.accelerator.is_main_process
        self.is_sharded = self.accelerator.distributed_type == "FSDP"
        self.state = RunState(rows=len(plan.features), framework="pt")
        if checkpoint is not None:
            self.state = RunState.load(checkpoint)
            self.state.check_data(len(plan.features), output)
            if self.state.framework != "pt":
                raise InputError(
                    f"{output} was begun in Keras, whose checkpoint of a run PyTorch does not read: go on there "
                    "(--framework tf)."
                )
        self.pipeline = trainer._pipeline()
        if held_out is not None:
            self.held_out_features = self.task.encode(held_out, self.tokenizer, self.model.config, self.options)
        # Losses stay on the device until someone looks at them.
        self.pending: list[tuple[dict[str, Any], Tensor]] = []
        # Dropout differs between processes.
        torch.manual_seed(self.options.seed + self.accelerator.process_index)
        wide = torch.float64 if self.options.dtype == "float64" else torch.float32
        self.model.to(wide)
        if self.options.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        if self.options.compile:
            # Once for each shape: PyTorch 2.13 fails on sizes that it leaves open. Past the limit it would not compile.
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _SHAPES)
            self.model.compile(dynamic=False)
        if checkpoint is not None:
            saved = type(self.model).from_pretrained(checkpoint, dtype=wide)
            self.model.load_state_dict(saved.state_dict())
        self.had_forward = "forward" in vars(self.model)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.model, self._new_optimizer())
        if checkpoint is not None:
            self.restore(checkpoint)
        self.history = History(output if self.is_main else None, done=self.state.step)

    def _new_optimizer(self) -> torch.optim.AdamW:
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        groups = [
            {"params": [pair for pair in trained if decays(pair[0])], "weight_decay": self.options.weight_decay},
            {"params": [pair for pair in trained if not decays(pair[0])], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.options.learning_rate,
            betas=(self.options.beta_1, self.options.beta_2),
            eps=self.options.epsilon,
            fused=self.accelerator.device.type in _FUSED,
        )

    # The loop.

    def go(self, stop: Stop) -> bool:
        """Train to the end, and say whether that was reached; not if a signal asked to stop before."""
        state, plan = self.state, self.plan
        steps, saved = plan.steps(state.step), state.step
        started = time.monotonic() - state.seconds
        self.wrapped.train()
        with ProgressBar(plan.total_steps, state.step, shown=self.show and self.is_main) as bar:
            while True:
                state.seconds = time.monotonic() - started
                if self._is_to_stop(stop):
                    self.flush(bar)
                    self.save()
                    return False
                if state.step > state.evaluated and plan.evaluates_after(state.step) and self.held_out is not None:
                    self.flush(bar)
                    self.evaluate(bar)
                    state.seconds = time.monotonic() - started
                patience = self.options.patience
                is_over = state.step == plan.total_steps or (patience is not None and state.worse >= patience)
                if state.step > saved and (is_over or plan.saves_after(state.step)):
                    self.flush(bar)
                    self.save()
                    saved = state.step
                if is_over:
                    break
                step, batch = next(steps)
                self.step(step, list(plan.parts(batch)), batch.tokens, batch.padded_tokens)
                self.pending[-1][0]["seconds"] = time.monotonic() - started
                if len(self.pending) >= self.options.log_every:
                    self.flush(bar)
        self.finish()
        return True

    def step(self, step: int, parts: list[tuple[Arrays, dict[str, int]]], tokens: int, padded_tokens: int) -> None:
        """Make one step of the optimizer with the parts of a batch."""
        rate = learning_rate_at(step, self.plan.total_steps, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        totals = self._totals([counts for _, counts in parts])
        losses = []
        for number, (arrays, counts) in enumerate(parts, 1):
            # Processes add their gradients up once a step.
            is_last = number == len(parts)
            with nullcontext() if is_last else self.accelerator.no_sync(self.wrapped):
                inputs = self._tensors(arrays)
                # Accelerate's mean over the processes becomes a sum by their number.
                shares = {n: counts[n] * self.accelerator.num_processes / totals[n] for n in counts}
                loss = shared_loss(self.wrapped(**inputs), inputs, shares)
                self.accelerator.backward(loss)
                losses.append(loss.detach())
        if self.options.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.options.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        done = self.state.step = step + 1
        record = {"step": done, "epoch": self.plan.epoch_at(done), "learning_rate": rate}
        record |= {"tokens": tokens, "padded_tokens": padded_tokens}
        self.pending.append((record, sum(losses[1:], losses[0])))

    def _totals(self, counts: list[dict[str, int]]) -> dict[str, Any]:
        """Return how much counts in a step, over all parts and processes; at least 1, to divide by."""
        sums = {name: sum(part[name] for part in counts) for name in counts[0]}
        if self.accelerator.num_processes == 1:
            return {name: max(total, 1) for name, total in sums.items()}
        held = torch.tensor(list(sums.values()), dtype=torch.float64, device=self.accelerator.device)
        return dict(zip(sums, self.accelerator.reduce(held, "sum").clamp(min=1), strict=True))

    def _tensors(self, arrays: Arrays) -> dict[str, Tensor]:
        device = self.accelerator.device
        held = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if device.type == "cuda":
            # From pinned memory a copy need not be waited for.
            return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in held.items()}
        return {name: tensor.to(device) for name, tensor in held.items()}

    def flush(self, bar: ProgressBar) -> None:
        """Look at the losses of the steps since the last time, and note them."""
        if not self.pending:
            return
        figures = torch.stack([loss for _, loss in self.pending]).double()
        tokens = torch.tensor([[r["tokens"], r["padded_tokens"]] for r, _ in self.pending], device=figures.device)
        if self.accelerator.num_processes > 1:
            figures, tokens = self.accelerator.reduce(figures, "mean"), self.accelerator.reduce(tokens, "sum")
        before = self.history.steps[-1]["seconds"] if self.history.steps else 0.0
        records = [record for record, _ in self.pending]
        self.pending = []
        for record, loss, (real, padded) in zip(records, figures.tolist(), tokens.tolist(), strict=True):
            self.state.tokens += real
            self.state.padded_tokens += padded
            self.history.add_step(**{**record, "loss": loss, "tokens": real, "padded_tokens": padded})
        self.history.flush()
        last = self.history.steps[-1]
        speed = int(tokens[:, 0].sum()) / max(last["seconds"] - before, 1e-9)
        bar.show_steps(last["step"], last["loss"], last["learning_rate"], speed)

    def evaluate(self, bar: ProgressBar) -> None:
        """Measure the model, and keep its weights if there were none better."""
        metrics = self.pipeline.evaluate(self.held_out, features=self.held_out_features)
        self.wrapped.train()
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
        self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        if not self.had_forward:
            # Accelerate gives the model a forward of its own, and that of its class back as if it were one.
            for name in ("forward", "_original_forward"):
                vars(self.model).pop(name, None)
        self.accelerator.wait_for_everyone()
        if is_best_kept and self.state.best_step != self.state.step and not self.is_sharded:
            best = type(self.model).from_pretrained(self.output, dtype=self.model.dtype)
            self.model.load_state_dict(best.state_dict())
        self.model.eval()

    # Checkpoints.

    def save_model(self, folder: Path) -> None:
        """Write what `from_pretrained` opens, tokenizer included, and the options; all processes call this together."""
        whole = whole_weights(self.model, self.wrapped) if self.is_sharded else self.model
        if self.is_main:
            whole.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            self.options.save(folder)

    def save(self) -> None:
        """Write the checkpoint from which a run goes on to the same weights as if it had not been stopped."""
        folder = self.output / NEW_CHECKPOINT
        if self.is_main:
            new_checkpoint(self.output)
        self.save_model(folder)
        states = random_states(self.accelerator)
        optimizer = optimizer_state(self.wrapped, self.optimizer.optimizer, is_sharded=self.is_sharded)
        if self.is_main:
            save_content(states, folder / RANDOM_FILE)
            save_content(optimizer, folder / OPTIMIZER_FILE)
            self.state.save(folder)
            publish_checkpoint(self.output)
        self.accelerator.wait_for_everyone()

    def restore(self, folder: Path) -> None:
        """Go on with the optimizer and the generators of a checkpoint."""
        restore_optimizer(
            self.wrapped,
            self.optimizer.optimizer,
            load_content(folder / OPTIMIZER_FILE),
            fused=self.accelerator.device.type in _FUSED,
            is_sharded=self.is_sharded,
        )
        if (folder / RANDOM_FILE).exists():
            restore_random_states(self.accelerator, load_content(folder / RANDOM_FILE))

    def _is_to_stop(self, stop: Stop) -> bool:
        """Say whether a signal asked any of the processes to stop."""
        if self.accelerator.num_processes == 1:
            return stop.asked
        if self.state.step % self.options.log_every:
            # All must decide alike, and asking one another takes time.
            return False
        told = torch.tensor(float(stop.asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(told, "sum") > 0)
