"""Trains each task for an epoch, as one of several processes or alone, into folders of the first argument."""

from __future__ import annotations

import sys
from pathlib import Path

from isobert.core.tasks import task_of
from isobert.core.training.options import TrainingOptions
from isobert.pt.trainer import Trainer
from support.training import TASKS, config_for, examples, model_for, tokenizer_for

# 21 rows: the last batch has 5, so that one process has rows that do not count, and a part of it no others.
OPTIONS = TrainingOptions(
    epochs=1,
    batch_size=8,
    accumulation=2,
    learning_rate=3e-3,
    dropout=0.0,
    dtype="float64",
    keep_best=False,
    log_every=1,
    device="cpu",
)


def main(output: Path) -> None:
    for task in TASKS:
        data = examples(task, 21)
        model = model_for(task, config_for(task, data, OPTIONS), "pt")
        trainer = Trainer(model, tokenizer_for(task), task_of(task), OPTIONS, progress=False)
        trainer.train(data, examples(task, 10, seed=1), output=output / task)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
