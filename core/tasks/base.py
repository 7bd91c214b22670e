"""What a task is: examples to arrays, a model's scores to answers, and metrics; no framework has a part in it.

The parts of a task are called in this order, and say by their arguments what they depend on:

1. `read` (files) or `gather` (objects) gives examples.
2. `config_fields` says what the examples make of a new model's config.
3. `encode` turns examples into features: arrays without padding.
4. `collate` turns a batch of features into a model's inputs, padded to one length.
5. `keep` takes what is needed out of a batch's outputs, for each feature.
6. `answers` turns that into one answer an example, and `metrics` compares answers with examples.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ...errors import InputError
from ..config import IGNORED_LABEL, PretrainedConfig
from . import files
from .files import Column, Example, Examples, Source, shown
from .forms import Row
from .options import TaskOptions

logger = logging.getLogger("isobert")

Features = dict[str, Any]
"""One row for a model, without padding: `input_ids` `[length]` (`[choices, length]` for multiple choice), what belongs
to it, and `example`, the index of the example that it was made from."""

Arrays = dict[str, np.ndarray]
Answer = dict[str, Any]

_AT_ONCE = 1000  # texts that a tokenizer is given in one call

# Of these metrics, the smaller is the better.
SMALLER_IS_BETTER = ("loss", "perplexity", "mean_squared_error")


def larger_is_better(metric: str) -> bool:
    """Say which way a metric goes."""
    return metric not in SMALLER_IS_BETTER


class Encoded(list[Features]):
    """Features, and what was lost on the way to them.

    Attributes:
        truncated: how many examples were cut to fit.
    """

    def __init__(self, features: Iterable[Features] = (), truncated: int = 0) -> None:
        super().__init__(features)
        self.truncated = truncated


class Task(ABC):
    """One task. It holds no state: what a step depends on is handed to it.

    Attributes:
        name: the Hub's name of it.
        head: the models' head ("ForSequenceClassification").
        columns: what it reads.
        outputs: the models' outputs that `keep` needs.
        trains: whether a model can be trained for it.
        predicts: whether it has answers for examples without labels.
        generates: whether a model's `generate` makes the predictions, from the batch, instead of a call.
        reads_words: whether its `.tsv` files hold a word a line, and its `.txt` files too, where there are labels.
    """

    name: ClassVar[str]
    head: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    trains: ClassVar[bool] = True
    predicts: ClassVar[bool] = True
    generates: ClassVar[bool] = False
    reads_words: ClassVar[bool] = False

    def read(
        self,
        source: str | os.PathLike[str],
        columns: Mapping[str, Source] | None = None,
        *,
        labelled: bool = True,
        skip_broken: bool = False,
        split: str | None = None,
    ) -> Examples:
        """Read the examples of a file or data set; see `files.read_examples`.

        Raises:
            InputError: the file is not readable, a column is absent, a line is broken, or there is no example.
            MissingDependencyError: the file's form needs a package that is not installed.
        """
        word_lines = () if not self.reads_words else (".tsv", ".txt") if labelled else (".tsv",)
        return files.read_examples(
            source,
            columns,
            wanted=self.columns,
            check=self.check,
            labelled=labelled,
            skip_broken=skip_broken,
            split=split,
            word_lines=word_lines,
        )

    def gather(self, values: Iterable[Any], *, labelled: bool = False) -> Examples:
        """Make examples of objects: of each the first column alone, a tuple of columns in order, or a mapping.

        Raises:
            InputError: one of them is not an example of this task, or there is none.
        """
        rows = (Row(f"input {index}", self.row(value)) for index, value in enumerate(values))
        return files.gather(
            rows, {}, wanted=self.columns, check=self.check, labelled=labelled, skip_broken=False, name="the input"
        )

    def row(self, value: Any) -> Mapping[str, Any]:
        """Return an object as named columns."""
        if isinstance(value, Mapping):
            return value
        parts = value if isinstance(value, tuple) else (value,)
        return dict(zip((column.name for column in self.columns), parts, strict=False))

    def check(self, example: Example) -> Example | None:
        """Return what was read as an example of this task, or None if it is none.

        Raises:
            InputError: saying what is wrong with it, and its place.
        """
        return example

    def config_fields(
        self, examples: Sequence[Example], tokenizer: Any, config: PretrainedConfig, options: TaskOptions
    ) -> dict[str, Any]:
        """Return the fields of a config that training on these examples asks for; `config` is what there is now.

        Raises:
            InputError: nothing can be learnt from these examples.
        """
        return {}

    @abstractmethod
    def encode(
        self,
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
        *,
        labelled: bool = True,
    ) -> Encoded:
        """Return the features of examples, in order; with `labelled`, those that a loss or metrics need as well.

        Raises:
            InputError: an example does not suit the config; the message names its place.
        """

    def collate(
        self,
        features: Sequence[Features],
        tokenizer: Any,
        options: TaskOptions,
        *,
        length: int,
        random: Sequence[np.random.Generator] | None = None,
    ) -> Arrays:
        """Return a model's inputs, integers int32 `[rows, length]`, for some features.

        Args:
            features: the rows.
            tokenizer: theirs.
            options: the options that they were encoded with.
            length: what to pad to.
            random: where something is drawn for each row (the words to mask), what to draw it from, one a row, so that
                a row's draw does not hang on the rows beside it; None draws nothing, as prediction wants it.
        """
        return collate_rows(features, tokenizer, length)

    def scored(self, batch: Mapping[str, np.ndarray], tokenizer: Any) -> np.ndarray | None:
        """Return the positions, bool `[rows, length]`, whose scores `keep` needs; None is all of every output.

        Where there are such, the first of the `outputs` is handed to `keep` at these positions alone, as
        `[positions, ...]`, so that scores of a whole vocabulary are not moved around for nothing.
        """
        return None

    def keep(
        self,
        outputs: Mapping[str, np.ndarray],
        batch: Mapping[str, np.ndarray],
        tokenizer: Any,
        options: TaskOptions,
    ) -> list[Arrays]:
        """Return what `answers` needs of a batch's outputs, one mapping a row; the whole rows, unless a task says less.

        Args:
            outputs: those named in `outputs`, each `[rows, ...]`; see `scored` for an exception.
            batch: the inputs.
            tokenizer: theirs.
            options: the options that the features were encoded with.
        """
        return [{name: outputs[name][row] for name in self.outputs} for row in range(len(batch["input_ids"]))]

    @abstractmethod
    def answers(
        self,
        kept: Sequence[Arrays],
        features: Sequence[Features],
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
    ) -> list[Answer]:
        """Return one answer an example, in order, of what JSON holds; `kept` belongs to `features`, row for row."""

    def metrics(
        self, answers: Sequence[Answer], examples: Sequence[Example], config: PretrainedConfig, options: TaskOptions
    ) -> dict[str, float]:
        """Return how good answers are, by name, from 0 to 1 unless said otherwise."""
        raise InputError(f"The task {self.name} only predicts; there is nothing to measure it by.")

    def best_metric(self, config: PretrainedConfig) -> str:
        """Return the metric by which one model is better than another; see `larger_is_better`."""
        return "accuracy"


def length_of(features: Features) -> int:
    """Return how many positions a row takes without padding."""
    return int(features["input_ids"].shape[-1])


def most_tokens(tokenizer: Any, config: PretrainedConfig, options: TaskOptions) -> int:
    """Return how long rows may be: as asked for, or else as the tokenizer and the model allow.

    Raises:
        InputError: the length asked for is above the model's.
    """
    positions = config.max_position_embeddings
    if options.max_length is None:
        return int(min(positions, tokenizer.model_max_length))
    if options.max_length > positions:
        raise InputError(
            f"max_length is {options.max_length}, and the model has {positions} positions (max_position_embeddings): "
            f"ask for {positions} or less."
        )
    return options.max_length


def encoded_rows(
    tokenizer: Any, first: Sequence[Any], second: Sequence[Any] | None = None, **how: Any
) -> Iterator[Any]:
    """Yield each text's (or pair's) encoding, one of `ids`, `type_ids`, `offsets`, `word_ids` and `sequence_ids`.

    `how` are further arguments of the tokenizer's call.
    """
    for start in range(0, len(first), _AT_ONCE):
        stop = start + _AT_ONCE
        pairs = None if second is None else list(second[start:stop])
        yield from tokenizer(list(first[start:stop]), pairs, verbose=False, **how).encodings


def cut_rows(
    tokenizer: Any, first: Sequence[Any], second: Sequence[Any] | None, max_length: int, **how: Any
) -> Iterator[tuple[Any, bool]]:
    """Yield each text's (or pair's) encoding, cut to `max_length` tokens, and whether it had to be cut."""
    for index, row in enumerate(encoded_rows(tokenizer, first, second, **how)):
        if len(row) <= max_length:
            yield row, False
        else:
            pair = None if second is None else [second[index]]
            again = tokenizer([first[index]], pair, truncation=True, max_length=max_length, verbose=False, **how)
            yield again.encodings[0], True


def warn_of_truncation(truncated: int, total: int, max_length: int, what: str = "examples") -> None:
    """Say how many examples (or what else) were cut, if any were."""
    if truncated:
        logger.warning(
            "%d of %d %s are longer than %d tokens, and were cut to that.", truncated, total, what, max_length
        )


def features_of(row: Any, tokenizer: Any, example: int) -> Features:
    """Return an encoding as features: the arrays that every model takes."""
    return token_features(row.ids, row.type_ids, tokenizer, example)


def token_features(ids: Sequence[int], type_ids: Sequence[int], tokenizer: Any, example: int) -> Features:
    """Return ids and token types as features; the types only where the tokenizer gives them to models."""
    features: Features = {"input_ids": np.array(ids, np.int32), "example": example}
    if "token_type_ids" in tokenizer.model_input_names:
        features["token_type_ids"] = np.array(type_ids, np.int32)
    return features


def collate_rows(
    features: Sequence[Features], tokenizer: Any, length: int, *, token_labels: bool = False, side: str = "right"
) -> Arrays:
    """Return `input_ids`, `attention_mask` and `token_type_ids` `[rows, length]`, and `labels` where there are some.

    With `token_labels`, labels are one a token and filled up with -100; others are stacked.

    Raises:
        InputError: a row is longer than `length`.
    """
    longest = max(map(length_of, features))
    if longest > length:
        raise InputError(f"A row has {longest} tokens, and the batch is to have {length}: they would not fit.")
    filling = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    batch = {"input_ids": pad([row["input_ids"] for row in features], length, filling, side)}
    masks = [row.get("attention_mask", np.ones_like(row["input_ids"])) for row in features]
    batch["attention_mask"] = pad(masks, length, 0, side)
    if "token_type_ids" in features[0]:
        types = [row["token_type_ids"] for row in features]
        batch["token_type_ids"] = pad(types, length, tokenizer.pad_token_type_id, side)
    if "labels" in features[0]:
        labels = [row["labels"] for row in features]
        batch["labels"] = pad(labels, length, IGNORED_LABEL, side) if token_labels else np.stack(labels)
    return batch


def pad(rows: Sequence[np.ndarray], length: int, value: int, side: str = "right") -> np.ndarray:
    """Stack rows `[..., n]`, of lengths that differ, as `[rows, ..., length]`, filled up with `value`."""
    shape = (len(rows), *rows[0].shape[:-1], length)
    padded = np.full(shape, value, rows[0].dtype)
    for target, row in zip(padded, rows, strict=True):
        start = length - row.shape[-1] if side == "left" else 0
        target[..., start : start + row.shape[-1]] = row
    return padded


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the probabilities over the last axis, in float64.

    Example:
        >>> softmax(np.array([0.0, 0.0, -np.inf])).tolist()
        [0.5, 0.5, 0.0]
    """
    return np.exp(log_softmax(scores))


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Return the logarithms of the probabilities over the last axis, in float64."""
    scores = scores.astype(np.float64)
    scores = scores - scores.max(axis=-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def number_of(value: Any, example: Example, name: str) -> float:
    """Return a value that must be a finite number, or a text of one.

    Raises:
        InputError: it is something else.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if isinstance(value, bool) or not np.isfinite(number):
        raise InputError(f"{example['place']}: {name} is {shown(value)}; it must be a number.")
    return number
