"""The rows of a training run as `tf.data`: the plan's batches, parted between devices and into parts of a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ..core.batches import Batch
from ..core.config import IGNORED_LABEL
from ..core.tasks.base import Arrays
from ..core.training.plan import TrainingPlan, counts_of

Element = tuple[Arrays, Arrays]
"""What a device computes of a step: a model's inputs `[parts, rows, ...]`, and how much counts in each part, int32
`[parts]`, by the name of what `counts_of` counts."""

# What comes with a batch's length in its last axis; a label may belong to a word or to a row.
_PADDED = ("input_ids", "attention_mask", "token_type_ids")
_LABELS = ("labels", "next_sentence_label", "start_positions", "end_positions")


def training_data(plan: TrainingPlan, start: int, strategy: Any) -> Any:
    """Return the data of a run's steps from the step `start` on, to its end.

    Shapes are as static as the plan's are: rows if every batch has as many, and the length if there is but one.

    Args:
        plan: the steps, with all devices' rows.
        start: how many steps are done.
        strategy: how the rows of a step are shared between devices.

    Returns:
        A data set of `Element`s, distributed if the strategy is not TensorFlow's default.
    """
    replicas = strategy.num_replicas_in_sync
    signature = _signature(plan, replicas)

    def elements(first: int, count: int) -> Iterator[Element]:
        for _, batch in plan.steps(start):
            for replica in range(first, first + count):
                yield element(plan, batch, replica, replicas)

    def of_replicas(first: int, count: int) -> Any:
        data = tf.data.Dataset.from_generator(lambda: elements(first, count), output_signature=signature)
        return data.prefetch(2 * count)

    def of_worker(context: Any) -> Any:
        # One after the other, a worker's devices take what is made for them.
        count = context.num_replicas_in_sync // context.num_input_pipelines
        return of_replicas(context.input_pipeline_id * count, count)

    with strategy.scope():
        is_distributed = tf.distribute.has_strategy()
    return strategy.distribute_datasets_from_function(of_worker) if is_distributed else of_replicas(0, 1)


def rows_computed(plan: TrainingPlan, batch: Batch, replicas: int) -> int:
    """Return how many rows all devices compute of a batch."""
    count = min(plan.options.accumulation, len(batch.rows))
    return replicas * count * _height(plan, batch, replicas)


def _height(plan: TrainingPlan, batch: Batch, replicas: int) -> int:
    """Return how many rows a part has on each device."""
    return -(-len(batch.rows) // (replicas * min(plan.options.accumulation, len(batch.rows))))


def element(plan: TrainingPlan, batch: Batch, replica: int, replicas: int) -> Element:
    """Return what one of several devices computes of a batch.

    Every device has as many parts, and every part as many rows; where the batch's do not come out even, rows are
    computed again, and do not count.
    """
    every = np.arange(len(batch.rows))
    own = np.array_split(every, replicas)[replica]
    count = min(plan.options.accumulation, len(every))
    parts = np.array_split(own, count)
    height = _height(plan, batch, replicas)
    rows = np.zeros((count, height), np.int64)
    counted = np.zeros((count, height), bool)
    for index, part in enumerate(parts):
        rows[index, : len(part)], counted[index, : len(part)] = part, batch.counted[part]
    arrays = plan.inputs(dataclasses.replace(batch, rows=batch.rows[rows.ravel()], counted=counted.ravel()))
    for name in _LABELS:
        if name in arrays:
            arrays[name] = _only_counted(arrays[name], counted.ravel())
    inputs = {name: array.reshape(count, height, *array.shape[1:]) for name, array in arrays.items()}
    counts = [counts_of(plan.task, {name: array[part] for name, array in inputs.items()}) for part in range(count)]
    return inputs, {name: np.array([part[name] for part in counts], np.int32) for name in counts[0]}


def _only_counted(labels: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return labels of which those of rows that do not count are none to a loss."""
    kept = counted.reshape(-1, *[1] * (labels.ndim - 1))
    nothing = np.nan if np.issubdtype(labels.dtype, np.floating) else IGNORED_LABEL
    return np.where(kept, labels, np.array(nothing, labels.dtype))


def _signature(plan: TrainingPlan, replicas: int) -> Any:
    _, batch = next(plan.steps())
    inputs, counts = element(plan, batch, 0, replicas)
    batches = plan.batches
    has_one_length = len({batches.padded(int(length)) for length in np.unique(batches.lengths)}) == 1
    is_even = batches.fill or len(batches.lengths) % batches.batch_size == 0

    def spec(name: str, array: np.ndarray) -> Any:
        shape: list[int | None] = list(array.shape)
        if not is_even:
            shape[:2] = None, None
        if not has_one_length and (name in _PADDED or array.shape == inputs["input_ids"].shape):
            shape[-1] = None
        return tf.TensorSpec(shape, array.dtype)

    return (
        {name: spec(name, array) for name, array in inputs.items()},
        {name: tf.TensorSpec([count.shape[0] if is_even else None], count.dtype) for name, count in counts.items()},
    )
