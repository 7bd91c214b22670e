"""Every option of a training run, once: the fields of `TrainingOptions` are the command's options as well."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ...errors import InputError
from ..fields import Rule, flag, integer, number, one_of, optional, positive_number, probability
from ..hub import read_json, write_json
from ..schedules import SCHEDULES
from ..tasks.files import Source
from ..tasks.options import TaskOptions, option

OPTIONS_FILE = "training_options.json"

_AT_LEAST_0 = Rule(lambda v: number().accepts(v) and v >= 0, "a number of at least 0")


def _is_source(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return all(isinstance(part, str | int) and not isinstance(part, bool) for part in parts)


_COLUMNS = Rule(
    lambda v: isinstance(v, Mapping) and all(isinstance(k, str) and _is_source(s) for k, s in v.items()),
    "a mapping of the task's columns to columns of the file: names, numbers, or tuples of them",
)
_LENGTHS = Rule(
    lambda v: isinstance(v, tuple) and all(integer(1).accepts(length) for length in v), "a tuple of positive integers"
)
_NAME = Rule(lambda v: isinstance(v, str) and bool(v), "a name")

# What may differ when a run goes on: where and how fast it computes, and what it tells.
_FREE_AT_RESUME = frozenset(
    (
        *("resume", "device", "strategy", "compile", "gradient_checkpointing", "steps_per_execution"),
        *("log_every", "save_every", "columns", "skip_broken"),
    )
)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(TaskOptions):
    """The options of training, beside those of the task; each field's metadata says what it does and may be.

    Raises:
        InputError: an option is not legal, or two do not go together.

    Example:
        >>> TrainingOptions(epochs=2).batch_size
        32
        >>> TrainingOptions(batch_size=8, accumulation=3)
        Traceback (most recent call last):
        ...
        isobert.errors.InputError: batch_size is 8 and accumulation 3; make batch_size a multiple of accumulation.
    """

    epochs: int = option(3, integer(1), "passes over the training data")
    max_steps: int | None = option(None, optional(integer(1)), "steps to train, in the place of epochs")
    batch_size: int = option(32, integer(1), "rows of a step, over all devices")
    accumulation: int = option(
        1, integer(1), "parts that a step's rows are computed in, one after the other, to save memory"
    )
    learning_rate: float = option(5e-5, positive_number(), "the highest learning rate")
    schedule: str = option("linear", one_of(*SCHEDULES), "how the learning rate falls after the warm-up")
    warmup_ratio: float = option(0.1, probability(), "the share of steps in which the learning rate rises")
    weight_decay: float = option(0.01, _AT_LEAST_0, "AdamW's decay; norms and biases have none")
    beta_1: float = option(0.9, probability(), "how much AdamW's mean of gradients keeps at a step")
    beta_2: float = option(0.999, probability(), "how much AdamW's mean of squares keeps at a step")
    epsilon: float = option(1e-8, positive_number(), "what AdamW adds to the root of the mean of squares")
    max_grad_norm: float | None = option(
        1.0, optional(_AT_LEAST_0), "cut all gradients together to this norm; not at all if 0"
    )
    dropout: float | None = option(
        None, optional(probability()), "every dropout of the model; its config's if not given"
    )
    dtype: str = option(
        "float32",
        one_of("float32", "float64", "bfloat16", "float16"),
        "what to compute in; bfloat16 and float16 leave the parameters in float32 (mixed precision)",
    )
    gradient_checkpointing: bool = option(
        False, flag(), "compute layers again in the backward pass instead of keeping what they computed: less memory"
    )
    compile: bool = option(False, flag(), "compile the model: torch.compile, or XLA in Keras")
    pad_multiple: int = option(8, integer(1), "pad batches to a multiple of this length")
    buckets: tuple[int, ...] = option(
        (), _LENGTHS, "the only lengths to pad to, few for what compiles for each (a TPU)"
    )
    eval_every: int | None = option(None, optional(integer(1)), "steps between evaluations; an epoch if not given")
    save_every: int | None = option(None, optional(integer(1)), "steps between checkpoints; an epoch if not given")
    patience: int | None = option(
        None, optional(integer(1)), "stop after so many evaluations without a better one; never if not given"
    )
    keep_best: bool = option(True, flag(), "keep the weights of the best evaluation, not the last")
    log_every: int = option(10, integer(1), "steps between looks at the loss, each of which waits for the device")
    device: str | None = option(
        None, optional(one_of("cpu", "gpu", "tpu")), "where to compute; the fastest that there is, if not given"
    )
    strategy: str = option(
        "default",
        one_of("default", "mirrored", "multiworker", "tpu"),
        "Keras: how tf.distribute shares a step's rows; in PyTorch `accelerate launch` says it",
    )
    steps_per_execution: int = option(1, integer(1), "Keras: steps between two returns to Python")
    train_split: str = option("train", _NAME, "the part to learn of a data set that is given by name")
    eval_split: str = option("validation", _NAME, "the part to evaluate on of a data set that is given by name")
    skip_broken: bool = option(False, flag(), "leave broken lines out of the data, and report them")
    resume: bool = option(False, flag(), "go on from the last checkpoint in the output folder, if there is one")
    columns: Mapping[str, Source] | None = option(
        None, optional(_COLUMNS), "where the task's columns are, such as text=sentence,label=1"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_grad_norm == 0:
            object.__setattr__(self, "max_grad_norm", None)
        if self.batch_size % self.accumulation:
            raise InputError(
                f"batch_size is {self.batch_size} and accumulation {self.accumulation}; make batch_size a multiple of "
                "accumulation."
            )
        if self.buckets and self.max_length is not None and max(self.buckets) < self.max_length:
            raise InputError(
                f"The last of the buckets is {max(self.buckets)} and max_length {self.max_length}; rows above the last "
                "bucket fit nowhere. Make it as long as max_length."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return every option, ready for JSON."""
        found = {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self)}
        found["buckets"] = list(self.buckets)
        if self.columns is not None:
            found["columns"] = {name: list(s) if isinstance(s, tuple) else s for name, s in self.columns.items()}
        return found

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str = OPTIONS_FILE) -> Self:
        """Make options from what `to_dict` returned; what is absent has its default.

        Raises:
            InputError: a key is no option, or an option is not legal.
        """
        known = {spec.name for spec in dataclasses.fields(cls)}
        strange = sorted(content.keys() - known)
        if strange:
            raise InputError(f"{where}: {strange[0]!r} is no option; the options are {', '.join(sorted(known))}.")
        given = dict(content)
        if isinstance(given.get("buckets"), list):
            given["buckets"] = tuple(given["buckets"])
        if isinstance(given.get("columns"), Mapping):
            given["columns"] = {name: tuple(s) if isinstance(s, list) else s for name, s in given["columns"].items()}
        return cls(**given)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `training_options.json` into a folder, which is made if need be."""
        write_json(Path(folder) / OPTIONS_FILE, self.to_dict())

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read the `training_options.json` of a folder.

        Raises:
            CheckpointError: it is not JSON.
            InputError: an option is not legal.
        """
        path = Path(folder) / OPTIONS_FILE
        return cls.from_dict(read_json(path, "file of options"), str(path))

    def check_resumes(self, before: TrainingOptions, where: str) -> None:
        """Raise where going on with these options would not be the run that was begun.

        Raises:
            InputError: naming each option that differs, and both values.
        """
        mine, theirs = self.to_dict(), before.to_dict()
        changed = [name for name in mine if name not in _FREE_AT_RESUME and mine[name] != theirs[name]]
        if changed:
            listed = "; ".join(f"{name} is {mine[name]!r} and was {theirs[name]!r}" for name in changed)
            raise InputError(
                f"{where} was begun with other settings: {listed}. Give the same settings, or begin anew in another "
                "folder."
            )
