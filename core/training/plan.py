"""What a run computes, step by step: its rows, its batches, and after which steps it evaluates and saves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ...errors import InputError
from ..batches import Batch, Batches
from ..config import IGNORED_LABEL, PretrainedConfig
from ..tasks.base import Arrays, Encoded, Task, length_of, most_tokens
from ..tasks.files import Example, Examples
from .options import TrainingOptions

NEXT_SENTENCE = "next_sentence_label"

_Config = TypeVar("_Config", bound=PretrainedConfig)

Data = str | os.PathLike[str] | Sequence[Example]
"""Examples, or the file or data set that they are read from."""


def read_data(task: Task, data: Data, options: TrainingOptions, *, to_learn: bool = False) -> Sequence[Example]:
    """Return labelled examples, to learn or to evaluate on: read from a file or data set, or as they are.

    Raises:
        InputError: see `Task.read`; or there are none.
    """
    if isinstance(data, str | os.PathLike):
        split = options.train_split if to_learn else options.eval_split
        return task.read(data, options.columns, skip_broken=options.skip_broken, split=split)
    if not data:
        raise InputError("There are no examples: the list of them is empty.")
    return data


def training_config(
    config: _Config, task: Task, examples: Sequence[Example], tokenizer: Any, options: TrainingOptions
) -> _Config:
    """Return the config of the model to be trained: with the labels of the data, and the dropout that is asked for.

    Raises:
        InputError: nothing can be learnt for this task, or from these examples.
    """
    if not task.trains:
        raise InputError(f"The task {task.name} only predicts; there is nothing to train.")
    changes = dict(task.config_fields(examples, tokenizer, config, options))
    if options.dropout is not None:
        changes |= {name: options.dropout for name in type(config).__dataclass_fields__ if "dropout" in name}
    return config.replace(**changes)


@dataclass(frozen=True)
class TrainingPlan:
    """The steps of a run, as one process sees them.

    Attributes:
        task, tokenizer, options: what is trained, with what, how.
        features: the rows.
        batches: their order.
        total_steps: how many steps there are.
    """

    task: Task
    tokenizer: Any
    options: TrainingOptions
    features: Encoded
    batches: Batches
    total_steps: int

    @property
    def steps_per_epoch(self) -> int:
        """How many steps a pass over the data takes."""
        return len(self.batches)

    def epoch_at(self, step: int) -> float:
        """Return how many passes over the data are done after so many steps."""
        return step / self.steps_per_epoch

    def steps(self, start: int = 0) -> Iterator[tuple[int, Batch]]:
        """Yield each step's number, from `start`, and its batch."""
        epoch, index = divmod(start, self.steps_per_epoch)
        step = start
        while step < self.total_steps:
            for batch in self.batches.epoch(epoch, index):
                if step == self.total_steps:
                    return
                yield step, batch
                step += 1
            epoch, index = epoch + 1, 0

    def inputs(self, batch: Batch) -> Arrays:
        """Return a batch's inputs of the model, all its rows, those that only fill it up included."""
        return self._collate(batch, np.arange(len(batch.rows)))

    def parts(self, batch: Batch) -> Iterator[tuple[Arrays, dict[str, int]]]:
        """Yield the inputs of each part that a step is computed in, and how much counts in each (see `counts_of`).

        Rows that only fill up the batch are left out; of a part that has no others, one stays, and counts nothing. So
        every process has as many parts, and none is empty.
        """
        for rows in np.array_split(np.arange(len(batch.rows)), min(self.options.accumulation, len(batch.rows))):
            counted = rows[batch.counted[rows]]
            inputs = self._collate(batch, counted if len(counted) else rows[:1])
            counts = counts_of(self.task, inputs)
            yield inputs, counts if len(counted) else dict.fromkeys(counts, 0)

    def _collate(self, batch: Batch, chosen: np.ndarray) -> Arrays:
        random = batch.random()
        return self.task.collate(
            [self.features[batch.rows[row]] for row in chosen],
            self.tokenizer,
            self.options,
            length=batch.length,
            random=[random[row] for row in chosen],
        )

    def evaluates_after(self, steps: int) -> bool:
        """Say whether to evaluate when so many steps are done: every `eval_every`, and at the end."""
        return steps == self.total_steps or steps % (self.options.eval_every or self.steps_per_epoch) == 0

    def saves_after(self, steps: int) -> bool:
        """Say whether to write a checkpoint when so many steps are done: every `save_every`, and at the end."""
        return steps == self.total_steps or steps % (self.options.save_every or self.steps_per_epoch) == 0


def prepare(
    task: Task,
    tokenizer: Any,
    config: PretrainedConfig,
    examples: Sequence[Example],
    options: TrainingOptions,
    *,
    fill: bool = False,
    process: int = 0,
    processes: int = 1,
) -> TrainingPlan:
    """Encode the examples and plan the steps.

    Args:
        task: the task.
        tokenizer: the model's.
        config: the model's; see `training_config`.
        examples: what to learn.
        options: the options.
        fill: whether to fill up the last batch of an epoch, so that all are of one size; several processes need it.
        process: which process this is.
        processes: of how many.

    Raises:
        InputError: the task is not for training, an example does not suit the config, or a row is too long.
    """
    if not task.trains:
        raise InputError(f"The task {task.name} only predicts; there is nothing to train.")
    if options.buckets and max(options.buckets) > config.max_position_embeddings:
        raise InputError(
            f"The last of the buckets is {max(options.buckets)}, and the model has {config.max_position_embeddings} "
            "positions (max_position_embeddings): make it that or less."
        )
    features = task.encode(examples, tokenizer, config, options)
    batches = Batches(
        [length_of(row) for row in features],
        options.batch_size,
        seed=options.seed,
        multiple_of=options.pad_multiple,
        most=most_tokens(tokenizer, config, options),
        buckets=options.buckets,
        fill=fill or processes > 1,
        process=process,
        processes=processes,
    )
    total = options.max_steps or options.epochs * len(batches)
    return TrainingPlan(task, tokenizer, options, features, batches, total)


def counts_of(task: Task, inputs: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return over how many things each term of a model's loss is a mean, by the name of the term's labels.

    Those are words where a label belongs to a word (a decoder does not predict the first of a row), and rows elsewhere;
    a label of -100, or of NaN where labels are no integers, does not count. In pretraining there are two terms, and the
    loss is their sum.

    The loss of a step is the mean over all that counts in all of its rows, so each part of it is weighted by its share.
    """
    labels = inputs["labels"] if "labels" in inputs else inputs["start_positions"]
    if task.head == "ForCausalLM":
        labels = labels[:, 1:]
    is_counted = ~np.isnan(labels).any(axis=-1) if np.issubdtype(labels.dtype, np.floating) else labels != IGNORED_LABEL
    counts = {"labels": int(np.count_nonzero(is_counted))}
    if NEXT_SENTENCE in inputs:
        counts[NEXT_SENTENCE] = int(np.count_nonzero(inputs[NEXT_SENTENCE] != IGNORED_LABEL))
    return counts


def decays(name: str) -> bool:
    """Say whether AdamW decays a parameter, by its name on the Hub: all but biases and the parameters of norms.

    Example:
        >>> [decays(name) for name in ("pooler.dense.weight", "pooler.dense.bias", "embeddings.LayerNorm.weight")]
        [True, False, False]
    """
    owner, _, last = name.rpartition(".")
    return last != "bias" and "norm" not in owner.rpartition(".")[2].lower()


def source_of(examples: Sequence[Example]) -> str:
    """Return where examples came from, for people."""
    return examples.source if isinstance(examples, Examples) else f"{len(examples)} examples"
