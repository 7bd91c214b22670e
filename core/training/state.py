"""Where a run stands, and the folder that it goes on from."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ...errors import CheckpointError, InputError
from ..hub import make_folder, read_json, write_json
from ..tasks.base import larger_is_better
from .options import TrainingOptions

STATE_FILE = "trainer_state.json"
CHECKPOINT_FOLDER = "checkpoint"

# While a checkpoint takes the place of the one before, each has a name that is not the other's.
NEW_CHECKPOINT, _OLD = ".checkpoint.new", ".checkpoint.old"


@dataclass
class RunState:
    """How far a run is, and which of its evaluations was the best.

    Attributes:
        step: how many steps are done.
        rows: how many rows the training data has.
        framework: what it was written by, "pt" or "tf".
        seconds: how long training has taken.
        tokens, padded_tokens: how many tokens were computed, without and with padding, on all devices.
        metric: by what evaluations are judged.
        best, best_step: the best figure, and after how many steps it was reached.
        worse: how many evaluations came after that.
        evaluated: after how many steps the last evaluation was.
    """

    step: int = 0
    rows: int = 0
    framework: str = "pt"
    seconds: float = 0.0
    tokens: int = 0
    padded_tokens: int = 0
    metric: str = ""
    best: float | None = None
    best_step: int = 0
    worse: int = 0
    evaluated: int = 0

    def judge(self, metrics: Mapping[str, float], metric: str) -> bool:
        """Note an evaluation, and say whether it is the best so far."""
        value = metrics[metric]
        self.metric, self.evaluated = metric, self.step
        sign = 1 if larger_is_better(metric) else -1
        if math.isnan(value) or (self.best is not None and sign * value <= sign * self.best):
            self.worse += 1
            return False
        self.best, self.best_step, self.worse = value, self.step, 0
        return True

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `trainer_state.json`."""
        write_json(Path(folder) / STATE_FILE, dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read the `trainer_state.json` of a checkpoint.

        Raises:
            CheckpointError: there is none, or it is not what `save` writes.
        """
        path = Path(folder) / STATE_FILE
        if not path.is_file():
            raise CheckpointError(f"{path} is not there: {folder} is no checkpoint of a run that could go on.")
        content = read_json(path, "state of a run")
        _check_content(content, {spec.name: spec.type for spec in dataclasses.fields(cls)}, path)
        return cls(**content)

    def check_data(self, rows: int, folder: str | os.PathLike[str]) -> None:
        """Raise where the training data are not those that the run was begun with.

        Raises:
            InputError: the number of rows differs.
        """
        if self.rows != rows:
            raise InputError(
                f"{folder} was begun with training data of {self.rows} rows, and these have {rows}. Give the same "
                "data, or begin anew in another folder."
            )


def _check_content(content: Mapping[str, Any], types: Mapping[str, Any], path: Path) -> None:
    kinds = {"int": (int,), "float": (int, float), "str": (str,), "float | None": (int, float, type(None))}
    for name, kind in types.items():
        if not isinstance(content.get(name, ...), kinds[str(kind)]):
            raise CheckpointError(f"{path} is damaged: its {name} is {content.get(name)!r}.")
    strange = sorted(content.keys() - types.keys())
    if strange:
        raise CheckpointError(f"{path} is damaged, or of another version: it has {', '.join(strange)}.")


def new_checkpoint(output: Path) -> Path:
    """Make an empty folder to write the next checkpoint into; `publish_checkpoint` puts it in its place."""
    shutil.rmtree(output / NEW_CHECKPOINT, ignore_errors=True)
    make_folder(output / NEW_CHECKPOINT)
    return output / NEW_CHECKPOINT


def publish_checkpoint(output: Path) -> Path:
    """Put what was written in the place of the checkpoint before, and return that place.

    A folder cannot take another's place in one step. Whenever this is cut short, `last_checkpoint` finds a whole one.
    """
    target = output / CHECKPOINT_FOLDER
    shutil.rmtree(output / _OLD, ignore_errors=True)
    if target.exists():
        os.rename(target, output / _OLD)
    os.rename(output / NEW_CHECKPOINT, target)
    shutil.rmtree(output / _OLD, ignore_errors=True)
    return target


def last_checkpoint(output: Path) -> Path | None:
    """Return the folder of the last checkpoint of a run; None if it has none."""
    target = output / CHECKPOINT_FOLDER
    if not target.exists() and (output / _OLD).exists():
        os.rename(output / _OLD, target)
    return target if target.exists() else None


def checkpoint_to_resume(output: Path, options: TrainingOptions) -> Path | None:
    """Return the checkpoint that a run goes on from; None if it begins.

    Raises:
        InputError: the folder holds a run that is not to go on, or one with other settings.
    """
    checkpoint = last_checkpoint(output)
    if checkpoint is None:
        return None
    if not options.resume:
        raise InputError(
            f"{output} holds a run already ({checkpoint}). Go on with it (resume=True, --resume), or take another "
            "folder, or remove this one."
        )
    options.check_resumes(TrainingOptions.load(checkpoint), str(output))
    return checkpoint
