"""The same training run in both frameworks: how far their losses part, and a picture of them.

    python benchmarks/training_curves.py --output curves

A MobileBERT with new weights learns which of four topics of Python's language reference a passage is from, 100 steps
without dropout: once in PyTorch and once in Keras, each from the same checkpoint, with the same options.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import isobert
from isobert.cli.passages import read_language_reference, split_into_passages
from isobert.core.config import PretrainedConfig
from isobert.core.registry import import_part, model_class
from isobert.core.tasks import task_of
from isobert.core.tasks.base import Task
from isobert.core.tasks.files import Example
from isobert.core.training.history import History
from isobert.core.training.options import TrainingOptions
from isobert.core.training.plan import training_config
from isobert.core.training.report import draw_curves

FRAMEWORKS = {"pt": "PyTorch", "tf": "Keras"}

# How far losses may part, of runs whose loss is of the order of 1.
TOLERANCES = {"float32": 1e-4, "float64": 1e-8}

OPTIONS = TrainingOptions(
    max_steps=100,
    batch_size=16,
    learning_rate=5e-3,
    weight_decay=0.1,
    dropout=0.0,
    max_length=64,
    log_every=25,
    device="cpu",
)

_TOPICS, _WORDS = 4, 1000


def passages() -> tuple[list[dict[str, Any]], Any]:
    """Return passages with their topics as rows of text classification, and a tokenizer of their commonest words."""
    found = split_into_passages(read_language_reference(), most_topics=_TOPICS, seed=0)
    rows = [{"text": text, "label": found.topics[topic]} for text, topic in found.train]
    counts = Counter(word for row in rows for word in re.findall(r"\w+|[^\w\s]", row["text"].lower()))
    words = [word for word, _ in counts.most_common(_WORDS)]
    return rows, isobert.MobileBertTokenizerFast(vocab=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])


def small_config(tokenizer: Any) -> PretrainedConfig:
    """Return the config of a small MobileBERT."""
    return isobert.MobileBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        embedding_size=32,
        intra_bottleneck_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_feedforward_networks=2,
        normalization_type="layer_norm",
        initializer_range=0.1,
        max_position_embeddings=64,
    )


def train_in_both(
    task: Task, examples: Sequence[Example], tokenizer: Any, config: PretrainedConfig, options: TrainingOptions
) -> dict[str, History]:
    """Return the histories of the same run in each framework; `config` is `training_config`'s."""
    histories = {}
    with tempfile.TemporaryDirectory() as folder:
        begin = Path(folder) / "begin"
        for framework in FRAMEWORKS:
            trainers = import_part(f".{framework}.trainer")
            trainer_class = trainers.TFTrainer if framework == "tf" else trainers.Trainer
            found = model_class(config.model_type, task.head, framework)
            with trainers.model_scope(options):
                if not begin.exists():
                    found(config).save_pretrained(begin)
                model = found.from_pretrained(begin)
            trainer = trainer_class(model, tokenizer, task, options, progress=False)
            trainer.train(examples, output=Path(folder) / framework)
            histories[FRAMEWORKS[framework]] = trainer.history
    return histories


def losses(history: History) -> np.ndarray:
    """Return the loss of each step."""
    return np.array([record["loss"] for record in history.steps])


def difference(histories: dict[str, History]) -> float:
    """Return by how much the losses of a step part at most."""
    first, second = map(losses, histories.values())
    return float(np.abs(first - second).max())


def run(dtype: str) -> dict[str, History]:
    """Train on the passages in a dtype."""
    task = task_of("text-classification")
    rows, tokenizer = passages()
    examples = task.gather(rows, labelled=True)
    options = replace(OPTIONS, dtype=dtype)
    config = training_config(small_config(tokenizer), task, examples, tokenizer, options)
    return train_in_both(task, examples, tokenizer, config, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("."), help="the folder of the pictures")
    arguments = parser.parse_args()
    for dtype, tolerance in TOLERANCES.items():
        histories = run(dtype)
        apart = difference(histories)
        first = losses(next(iter(histories.values())))
        draw_curves(arguments.output / f"training_curves_{dtype}.png", histories)
        print(
            f"{dtype}: {len(first)} steps, the loss falls from {first[:10].mean():.3f} to {first[-10:].mean():.3f}; "
            f"the two part by {apart:.1e} at most (allowed: {tolerance:.0e})"
        )


if __name__ == "__main__":
    main()
