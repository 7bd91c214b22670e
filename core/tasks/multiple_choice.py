"""Multiple choice: which of several endings or answers suits a text best."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
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
    pad,
    softmax,
    warn_of_truncation,
)
from .files import Column, Example, shown, text_of
from .labels import mean
from .options import TaskOptions


class MultipleChoice(Task):
    """Choices for a text. A `question` stands before each choice: a question about the text, or a sentence's beginning.

    A label is a choice's number from 0, its letter from A, or the choice itself. All examples have as many choices.
    """

    name = "multiple-choice"
    head = "ForMultipleChoice"
    columns = (
        Column(
            "text", ("context", "article", "passage", "sent1", "ctx_a", "premise", "startphrase", "question", "query")
        ),
        Column(
            "choices",
            (
                "options",
                "endings",
                "answers",
                "ending0+ending1+ending2+ending3",
                "choice0+choice1+choice2+choice3",
                "choice1+choice2",
                "option1+option2",
            ),
        ),
        Column("question", ("sent2", "ctx_b"), required=False),
        Column("label", ("labels", "answer", "answerKey", "correct"), is_label=True),
    )

    def check(self, example: Example) -> Example | None:
        """See `Task.check`."""
        for name in ("text", "question"):
            if name in example:
                text_of(example, name)
        choices = example["choices"]
        if isinstance(choices, dict):
            choices = choices.get("text")  # ARC's and CommonsenseQA's form has letters beside them
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices) or len(choices) < 2:
            raise InputError(
                f"{example['place']}: choices is {shown(choices)}; it must be a list of two texts or more."
            )
        checked = {**example, "choices": choices}
        if "label" in example:
            checked["label"] = _choice(example["label"], checked)
        return checked

    def encode(
        self,
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
        *,
        labelled: bool = True,
    ) -> Encoded:
        """See `Task.encode`; rows are `[choices, length]`, with a mask of the shorter ones.

        Raises:
            InputError: the examples differ in their number of choices.
        """
        max_length = most_tokens(tokenizer, config, options)
        count = len(examples[0]["choices"]) if examples else 0
        for example in examples:
            if len(example["choices"]) != count:
                raise InputError(
                    f"{example['place']}: there are {len(example['choices'])} choices, and {count} at "
                    f"{examples[0]['place']}; a model is given as many for every example."
                )
        first = [example["text"] for example in examples for _ in range(count)]
        second = [_joined(example, choice) for example in examples for choice in example["choices"]]
        rows = cut_rows(tokenizer, first, second, max_length)
        encoded = Encoded()
        for index, example in enumerate(examples):
            own = list(islice(rows, count))
            encoded.truncated += any(was_cut for _, was_cut in own)
            features = _stacked([features_of(row, tokenizer, index) for row, _ in own], tokenizer)
            features["example"] = index
            if labelled:
                features["labels"] = np.array(example["label"], np.int32)
            encoded.append(features)
        warn_of_truncation(encoded.truncated, len(examples), max_length)
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
        """Return `choice`, its number from 0, its `score`, and the `scores` of all."""
        found = []
        for row in kept:
            chances, best = softmax(row["logits"]), int(row["logits"].argmax())
            found.append({"choice": best, "score": float(chances[best]), "scores": chances.tolist()})
        return found

    def metrics(
        self, answers: Sequence[Answer], examples: Sequence[Example], config: PretrainedConfig, options: TaskOptions
    ) -> dict[str, float]:
        """Return `accuracy`."""
        return {"accuracy": mean([a["choice"] == e["label"] for a, e in zip(answers, examples, strict=True)])}


def _joined(example: Example, choice: str) -> str:
    return f"{example['question']} {choice}" if example.get("question") else choice


def _choice(label: Any, example: Example) -> int:
    """Return the number of the right choice."""
    choices: list[str] = example["choices"]
    if isinstance(label, str) and label not in choices and len(label.strip()) == 1 and label.strip().isalpha():
        number = ord(label.strip().upper()) - ord("A")
    elif isinstance(label, str) and label in choices:
        number = choices.index(label)
    else:
        number = int(label) if str(label).strip().isdecimal() else -1
    if not 0 <= number < len(choices):
        raise InputError(
            f"{example['place']}: label is {shown(label)}; it must be a number from 0 to {len(choices) - 1}, a letter "
            f"from A to {chr(ord('A') + len(choices) - 1)}, or one of the choices."
        )
    return number


def _stacked(rows: Sequence[Features], tokenizer: Any) -> Features:
    length = max(len(row["input_ids"]) for row in rows)
    ids = [row["input_ids"] for row in rows]
    stacked: Features = {
        "input_ids": pad(ids, length, tokenizer.pad_token_id or 0),
        "attention_mask": pad([np.ones_like(row) for row in ids], length, 0),
    }
    if "token_type_ids" in rows[0]:
        stacked["token_type_ids"] = pad([row["token_type_ids"] for row in rows], length, tokenizer.pad_token_type_id)
    return stacked
