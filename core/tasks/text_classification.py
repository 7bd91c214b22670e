"""Text classification: one label for a text or a pair of texts, several labels, or a number (regression)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ..config import PretrainedConfig
from .base import (
    Answer,
    Arrays,
    Encoded,
    Features,
    Task,
    cut_rows,
    features_of,
    most_tokens,
    number_of,
    softmax,
    warn_of_truncation,
)
from .files import Column, Example, shown, text_of
from .labels import config_labels, is_whole, label_id, label_name, mean, precision_recall_f1
from .options import TaskOptions

_SINGLE, _MULTI, _REGRESSION = "single_label_classification", "multi_label_classification", "regression"

# What parts several labels in one cell.
_SEPARATORS = re.compile(r"[,;|]")

_LIKELY = 0.5  # a label of several is given from this probability on


class TextClassification(Task):
    """Labels of texts.

    What the labels are is found in the data, unless `problem_type` says it:

    - a list: several labels ("multi_label_classification");
    - numbers that are not all whole: "regression";
    - anything else: one label ("single_label_classification").

    With `problem_type="multi_label_classification"` a cell may hold several labels between commas, semicolons or bars.
    """

    name = "text-classification"
    head = "ForSequenceClassification"
    columns = (
        # Of a pair, the one that is usually written first comes before what may also stand alone.
        Column(
            "text",
            (
                *("sentence1", "question1", "premise", "question", "query"),
                *("sentence", "review", "content", "tweet", "title"),
            ),
            number=0,
        ),
        Column(
            "text_pair",
            ("sentence2", "question2", "hypothesis", "answer", "sentence", "passage", "context"),
            required=False,
        ),
        Column("label", ("labels", "class", "category", "target", "score", "rating", "stars"), is_label=True),
    )

    def check(self, example: Example) -> Example | None:
        """See `Task.check`."""
        for name in ("text", "text_pair"):
            if name in example:
                text_of(example, name)
        if "label" in example:
            value = example["label"]
            for item in value if isinstance(value, list) else [value]:
                if not isinstance(item, float):
                    label_name(item, example)
                elif not math.isfinite(item):
                    raise InputError(f"{example['place']}: label is {item}; it must be a label, or a finite number.")
        return example

    def config_fields(
        self, examples: Sequence[Example], tokenizer: Any, config: PretrainedConfig, options: TaskOptions
    ) -> dict[str, Any]:
        """See `Task.config_fields`."""
        problem = options.problem_type or _problem_type(examples)
        if problem == _REGRESSION:
            for example in examples:
                number_of(example["label"], example, "label")
            # A name tells people what the number is; there is none in the data.
            return {"problem_type": problem, "num_labels": 1}
        names = [name for example in examples for name in _names(example, problem)]
        if problem == _SINGLE and len(set(names)) < 2:
            raise InputError(
                f"All {len(examples)} examples have the label {names[0]!r}: there is nothing to tell apart. Give data "
                "with two labels or more."
            )
        if not names:
            raise InputError("No example has any label: there is nothing to learn.")
        return {"problem_type": problem, **config_labels(names, config)}

    def encode(
        self,
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
        *,
        labelled: bool = True,
    ) -> Encoded:
        """See `Task.encode`; `labels` is an id, or float32 `[num_labels]` of several labels or of a regression.

        Raises:
            InputError: the config lacks a label, or a label is no number in a regression.
        """
        max_length = most_tokens(tokenizer, config, options)
        labels = [_label_array(example, config) for example in examples] if labelled else []
        # Texts with and without a second one are encoded apart, since a tokenizer takes either.
        found: dict[int, Features] = {}
        truncated = 0
        for paired in (False, True):
            chosen = [index for index, example in enumerate(examples) if ("text_pair" in example) == paired]
            first = [examples[index]["text"] for index in chosen]
            second = [examples[index]["text_pair"] for index in chosen] if paired else None
            for index, (row, was_cut) in zip(chosen, cut_rows(tokenizer, first, second, max_length), strict=True):
                found[index] = features_of(row, tokenizer, index)
                truncated += was_cut
        warn_of_truncation(truncated, len(examples), max_length)
        encoded = Encoded((found[index] for index in range(len(examples))), truncated)
        for features, label in zip(encoded, labels, strict=False):
            features["labels"] = label
        return encoded

    def answers(
        self,
        kept: Sequence[Arrays],
        features: Sequence[Features],
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
    ) -> list[Answer]:
        """Return `label`, `score` and `scores`; `labels` and `scores` of several labels; `score` of a regression."""
        problem = config.problem_type_for(labels_are_floating=False)
        return [_answer(row["logits"], problem, config) for row in kept]

    def metrics(
        self, answers: Sequence[Answer], examples: Sequence[Example], config: PretrainedConfig, options: TaskOptions
    ) -> dict[str, float]:
        """Return the metrics of the problem.

        - One label: `accuracy`; `f1`, of the label with id 1 where there are two, else the mean over labels;
          `f1_macro`, the mean in any case; `matthews_correlation` (Matthews 1975; of more than two, Gorodkin 2004).
        - Several labels: `f1` over all of them, `f1_macro`, and `accuracy`, the share of examples with all right.
        - Regression: `pearson` and `spearman` correlation, and `mean_squared_error`.
        """
        problem = config.problem_type_for(labels_are_floating=False)
        if problem == _REGRESSION:
            wanted = np.array([number_of(example["label"], example, "label") for example in examples])
            return _regression_metrics(np.array([answer["score"] for answer in answers]), wanted)
        targets = np.stack([_label_array(example, config) for example in examples])
        if problem == _MULTI:
            found = np.zeros(targets.shape, bool)
            for row, answer in enumerate(answers):
                found[row, [config.label2id[label] for label in answer["labels"]]] = True
            return _multi_label_metrics(found, targets > 0)
        ids = np.array([config.label2id[answer["label"]] for answer in answers])
        return _single_label_metrics(ids, targets, config.num_labels)

    def best_metric(self, config: PretrainedConfig) -> str:
        """See `Task.best_metric`."""
        problem = config.problem_type_for(labels_are_floating=False)
        return {_SINGLE: "accuracy", _MULTI: "f1", _REGRESSION: "pearson"}[problem]


def _problem_type(examples: Sequence[Example]) -> str:
    labels = [example["label"] for example in examples]
    if any(isinstance(label, list) for label in labels):
        return _MULTI
    if all(_is_number(label) for label in labels) and not all(is_whole(str(label)) for label in labels):
        return _REGRESSION
    return _SINGLE


def _is_number(label: Any) -> bool:
    try:
        return not isinstance(label, bool) and math.isfinite(float(label))
    except (TypeError, ValueError):
        return False


def _names(example: Example, problem: str) -> list[str]:
    """Return the names of an example's labels."""
    value = example["label"]
    if problem == _SINGLE:
        if isinstance(value, list):
            raise InputError(
                f"{example['place']}: label is {shown(value)}; the problem has one label an example "
                f"(problem_type={_SINGLE!r})."
            )
        return [label_name(value, example)]
    if isinstance(value, str):
        value = [part for part in _SEPARATORS.split(value) if part.strip()]
    return [label_name(item, example) for item in (value if isinstance(value, list) else [value])]


def _label_array(example: Example, config: PretrainedConfig) -> np.ndarray:
    """Return an example's labels as a model takes them."""
    several = isinstance(example["label"], list)
    problem = config.problem_type_for(labels_are_floating=several)
    if problem == _REGRESSION:
        return np.array([number_of(example["label"], example, "label")], np.float32)
    ids = [label_id(name, example, config) for name in _names(example, problem)]
    if problem == _SINGLE:
        return np.array(ids[0], np.int32)
    array = np.zeros(config.num_labels, np.float32)
    array[ids] = 1
    return array


def _answer(logits: np.ndarray, problem: str, config: PretrainedConfig) -> Answer:
    if problem == _REGRESSION:
        return {"score": float(logits[0])}
    chances = 1 / (1 + np.exp(-logits.astype(np.float64))) if problem == _MULTI else softmax(logits)
    scores = {label: float(chances[index]) for index, label in config.id2label.items()}
    if problem == _MULTI:
        return {"labels": [label for label, score in scores.items() if score >= _LIKELY], "scores": scores}
    best = config.id2label[int(logits.argmax())]
    return {"label": best, "score": scores[best], "scores": scores}


def _single_label_metrics(found: np.ndarray, wanted: np.ndarray, count: int) -> dict[str, float]:
    confusion = np.zeros((count, count))
    np.add.at(confusion, (wanted, found), 1)
    right, of_wanted, of_found = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    f1 = [precision_recall_f1(*counts)[2] for counts in zip(right, of_found, of_wanted, strict=True)]
    # A label that neither the data nor the answers have says nothing about the model.
    macro = mean([score for score, seen in zip(f1, of_found + of_wanted, strict=True) if seen])
    total = confusion.sum()
    spread = (total**2 - of_found @ of_found) * (total**2 - of_wanted @ of_wanted)
    covariance = right.sum() * total - of_found @ of_wanted
    return {
        "accuracy": float(right.sum() / total),
        "f1": f1[1] if count == 2 else macro,
        "f1_macro": macro,
        "matthews_correlation": float(covariance / math.sqrt(spread)) if spread else 0.0,
    }


def _multi_label_metrics(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    both, of_found, of_wanted = (found & wanted).sum(0), found.sum(0), wanted.sum(0)
    each = [precision_recall_f1(*counts)[2] for counts in zip(both, of_found, of_wanted, strict=True)]
    return {
        "f1": float(precision_recall_f1(both.sum(), of_found.sum(), of_wanted.sum())[2]),
        "f1_macro": mean([score for score, seen in zip(each, of_found + of_wanted, strict=True) if seen]),
        "accuracy": float((found == wanted).all(1).mean()),
    }


def _regression_metrics(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    return {
        "pearson": _correlation(found, wanted),
        "spearman": _correlation(_ranks(found), _ranks(wanted)),
        "mean_squared_error": float(np.mean((found - wanted) ** 2)),
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation, 0 where one of the two does not vary."""
    a, b = a - a.mean(), b - b.mean()
    spread = math.sqrt((a @ a) * (b @ b))
    return float(a @ b / spread) if spread else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return each value's rank; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[places]
