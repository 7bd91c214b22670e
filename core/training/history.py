"""What happened in a run, record by record: in memory, in `history.jsonl`, on the terminal, and for TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...errors import CheckpointError, InputError
from ..hub import make_folder, write_text

HISTORY_FILE = "history.jsonl"
TENSORBOARD_FOLDER = "tensorboard"

_WITHOUT_TENSORFLOW = "tensorboard.compat.notf"

Record = dict[str, Any]


class History:
    """The records of a run's steps and evaluations, in order.

    A step's record has `step` (how many are done), `epoch` (passes over the data, with a fraction), `loss`,
    `learning_rate`, `tokens` and `padded_tokens` (of this step, on all devices) and `seconds` (since training began,
    evaluations included). Where several steps are made at once, one record stands for them, with their mean loss and
    all their tokens. An evaluation's record has `step`, `epoch`, `seconds` and `metrics`.

    Args:
        folder: where to write `history.jsonl` and what TensorBoard reads, if it is installed; None writes nothing.
        done: how many steps of an earlier part of the run count; later records are of steps that are made again, and
            are dropped from the file. 0 begins a new file.

    Attributes:
        steps: the records of steps.
        evaluations: the records of evaluations.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, done: int = 0) -> None:
        self.steps: list[Record] = []
        self.evaluations: list[Record] = []
        self._path = None if folder is None else Path(folder) / HISTORY_FILE
        self._unwritten: list[Record] = []
        self._board = None if folder is None else _board(Path(folder) / TENSORBOARD_FOLDER)
        if self._path is not None:
            make_folder(self._path.parent)
            before = read_history(self._path.parent) if done and self._path.exists() else History()
            self.steps = [record for record in before.steps if record["step"] <= done]
            self.evaluations = [record for record in before.evaluations if record["step"] <= done]
            kept = sorted([*self.steps, *self.evaluations], key=lambda record: (record["step"], "metrics" in record))
            write_text(self._path, "".join(map(_line, kept)))

    def add_step(
        self,
        *,
        step: int,
        epoch: float,
        loss: float,
        learning_rate: float,
        tokens: int,
        padded_tokens: int,
        seconds: float,
    ) -> None:
        """Note a step.

        Raises:
            InputError: the loss is no finite number, so that nothing can be learnt any more.
        """
        if not math.isfinite(loss):
            raise InputError(
                f"The loss of step {step} is {loss}: training has diverged. Take a lower learning rate (now "
                f"{learning_rate:.3g}), a longer warm-up, or another dtype than float16."
            )
        record = {"step": step, "epoch": round(epoch, 6), "loss": loss, "learning_rate": learning_rate}
        record |= {"tokens": tokens, "padded_tokens": padded_tokens, "seconds": round(seconds, 3)}
        self.steps.append(record)
        self._note(record, {"train/loss": loss, "train/learning_rate": learning_rate})

    def add_evaluation(self, *, step: int, epoch: float, metrics: Mapping[str, float], seconds: float) -> None:
        """Note an evaluation."""
        record = {"step": step, "epoch": round(epoch, 6), "seconds": round(seconds, 3), "metrics": dict(metrics)}
        self.evaluations.append(record)
        self._note(record, {f"eval/{name}": value for name, value in metrics.items()})

    def metrics_after(self, step: int) -> Mapping[str, float]:
        """Return the figures of the last evaluation after so many steps; none if there was none."""
        return next((record["metrics"] for record in reversed(self.evaluations) if record["step"] == step), {})

    def flush(self) -> None:
        """Write what was noted to the file's end."""
        if self._path is not None and self._unwritten:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write("".join(map(_line, self._unwritten)))
        self._unwritten.clear()
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Write what was noted, and end TensorBoard's file."""
        self.flush()
        if self._board is not None:
            self._board.close()
            self._board = None

    def _note(self, record: Record, scalars: Mapping[str, float]) -> None:
        self._unwritten.append(record)
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step=record["step"])


def read_history(folder: str | os.PathLike[str]) -> History:
    """Read the `history.jsonl` of a folder; a last line that was cut short by a kill does not count.

    Raises:
        CheckpointError: it is not readable.
    """
    path = Path(folder) / HISTORY_FILE
    history = History()
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            (history.evaluations if "metrics" in record else history.steps).append({**record, "step": record["step"]})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise CheckpointError(f"{path}:{number}: this line is no record of a run; remove the file.") from error
    return history


def _line(record: Record) -> str:
    # NaN, which a metric may be, is no JSON.
    return json.dumps(_without_nan(record), ensure_ascii=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(member) for name, member in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _board(folder: Path) -> Any:
    """Return what writes TensorBoard's files, if that is installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    with_tensorflow = "tensorflow" in sys.modules
    if not with_tensorflow:
        # TensorBoard writes without TensorFlow if it finds this module, and otherwise takes seconds to load it.
        sys.modules[_WITHOUT_TENSORFLOW] = ModuleType(_WITHOUT_TENSORFLOW)
    try:
        from tensorboard.summary import Writer

        return Writer(str(folder))
    finally:
        if not with_tensorflow:
            del sys.modules[_WITHOUT_TENSORFLOW]


class ProgressBar:
    """A line on the terminal with the steps, the loss, the tokens a second, the last evaluation, and the time left.

    Where stderr is no terminal, an evaluation is a line of its own and the rest is not shown.

    Args:
        total: how many steps there are.
        done: how many are done already.
        shown: whether to show anything.
    """

    def __init__(self, total: int, done: int = 0, *, shown: bool = True) -> None:
        console = Console(stderr=True)
        self._is_live = shown and console.is_terminal
        self._is_plain = shown and not console.is_terminal
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._bar = Progress(*columns, console=console, disable=not self._is_live)
        self._task = self._bar.add_task("", total=total, completed=done)
        self._parts = {"loss": "", "rate": "", "speed": "", "metric": ""}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show_steps(self, step: int, loss: float, learning_rate: float, tokens_per_second: float) -> None:
        """Show how far training is."""
        self._parts |= {
            "loss": f"loss {loss:.4f}",
            "rate": f"rate {learning_rate:.2e}",
            "speed": f"{tokens_per_second:,.0f} tokens/s",
        }
        self._bar.update(self._task, completed=step, description=self._text())

    def show_evaluation(self, step: int, metrics: Mapping[str, float], metric: str) -> None:
        """Show what an evaluation found."""
        self._parts["metric"] = f"{metric} {metrics[metric]:.4f}"
        self._bar.update(self._task, completed=step, description=self._text())
        if self._is_plain:
            found = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            print(f"step {step}: {self._parts['loss'] or 'no loss yet'}; {found}", file=sys.stderr, flush=True)

    def _text(self) -> str:
        return "  ".join(part for part in self._parts.values() if part)
