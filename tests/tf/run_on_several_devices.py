"""Trains for an epoch, by a strategy: on two devices of this process, or as one of several processes.

Its arguments are the folder, the strategy, and whose task to train if not the strategy's own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tensorflow as tf

from isobert.core.tasks import task_of
from isobert.core.training.options import TrainingOptions
from isobert.tf.trainer import TFTrainer, model_scope
from support.training import config_for, examples, model_for, tokenizer_for

# Labels of rows that do not count are of another kind in each, and so is what counts.
TASKS = {"mirrored": "text-classification", "multiworker": "fill-mask"}


def main(output: Path, strategy: str, other: str | None = None) -> None:
    if strategy == "mirrored":
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    task = TASKS[other or strategy]
    options = TrainingOptions(
        epochs=1,
        # The last batch has a few rows, so that one device has rows that do not count, and a part of it no others.
        batch_size=8,
        accumulation=2,
        learning_rate=3e-3,
        dropout=0.0,
        problem_type="multi_label_classification" if task == "text-classification" else None,
        dtype="float64",
        keep_best=False,
        log_every=1,
        strategy=strategy,
        buckets=(40,),
    )
    data = examples(task, 21)
    with model_scope(options):
        model = model_for(task, config_for(task, data, options, num_hidden_layers=1), "tf")
    trainer = TFTrainer(model, tokenizer_for(task), task_of(task), options, progress=False)
    trainer.train(data, examples(task, 10, seed=1), output=output)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
