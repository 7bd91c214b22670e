"""Small runs for the tests of training: data that can be learnt, and for each task a tokenizer and a tiny model."""

from __future__ import annotations

from typing import Any

import numpy as np

from isobert.core.auto import config_class
from isobert.core.config import PretrainedConfig
from isobert.core.registry import FAMILIES, model_class
from isobert.core.tasks import task_of
from isobert.core.tasks.files import Examples
from isobert.core.training.options import TrainingOptions
from isobert.core.training.plan import training_config
from support.tokenizers import tokenizer_class, vocabulary
from support.weights import randomise

NOUNS = ("river", "city", "train", "letter", "garden", "engine", "window", "island")
GOOD, BAD = ("bright", "gentle", "lovely"), ("broken", "dreary", "awful")
WORDS = [*NOUNS, *GOOD, *BAD, "the", "is", "which", "one", "."]

TASKS = (
    *("text-classification", "token-classification", "question-answering", "multiple-choice"),
    *("fill-mask", "text-generation", "pretraining"),
)

OWN_FAMILY = {"text-generation": "rembert", "pretraining": "mobilebert"}
"""The family of the tasks that only one has a model for; the others are tried with SqueezeBERT."""

SIZES: dict[str, dict[str, Any]] = {
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 24},
    "squeezebert": {"embedding_size": 32},
    "convbert": {"embedding_size": 16},
}


def sentences(count: int, seed: int = 0) -> list[tuple[list[str], bool]]:
    """Return sentences of different lengths as words, and whether each says something good."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        is_good = bool(random.integers(2))
        rest = map(str, random.choice(NOUNS, random.integers(0, 9)))
        word = str(random.choice(GOOD if is_good else BAD))
        found.append((["the", str(random.choice(NOUNS)), "is", word, *rest], is_good))
    return found


def examples(task: str, count: int, seed: int = 0) -> Examples:
    """Return examples of a task, with labels."""
    rows: list[Any] = []
    for number, (words, is_good) in enumerate(sentences(count, seed)):
        text = " ".join(words)
        if task == "text-classification":
            rows.append({"text": text, "label": "good" if is_good else "bad"})
        elif task == "token-classification":
            rows.append({"words": words, "tags": ["B-THING" if word in NOUNS else "O" for word in words]})
        elif task == "question-answering":
            answer = {"text": words[3], "answer_start": text.index(words[3])}
            rows.append({"question": "which one", "context": text, "answers": [answer][: 1 if number % 3 else 0]})
        elif task == "multiple-choice":
            rows.append({"text": text, "choices": ["lovely .", "awful"], "label": 0 if is_good else 1})
        elif task == "pretraining":
            rows.append({"text": [text, " ".join(reversed(words)), f"one {text} ."]})
        else:
            rows.append({"text": text})
    return task_of(task).gather(rows, labelled=True)


def tokenizer_for(task: str, family: str | None = None) -> Any:
    name = f"{FAMILIES[family or OWN_FAMILY.get(task, 'squeezebert')].prefix}TokenizerFast"
    return tokenizer_class(name)(**vocabulary(name, WORDS))


def config_for(
    task: str, data: Examples, options: TrainingOptions, family: str | None = None, **fields: Any
) -> PretrainedConfig:
    """Return a tiny config, made ready for training on the data."""
    tokenizer = tokenizer_for(task, family)
    family = family or OWN_FAMILY.get(task, "squeezebert")
    common = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    common |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 40}
    config = config_class(family)(**{**common, **SIZES[family], **fields})
    return training_config(config, task_of(task), data, tokenizer, options)


def model_for(task: str, config: PretrainedConfig, framework: str, seed: int = 0) -> Any:
    """Return a model with random weights, the same in both frameworks."""
    return randomise(model_class(config.model_type, task_of(task).head, framework)(config), seed)
