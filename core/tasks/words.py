"""What the tasks share that learn to predict words: hiding them, and what the scores of a vocabulary say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ..config import IGNORED_LABEL
from .base import Answer, Arrays, Features, log_softmax, pad
from .options import TaskOptions

_AT_ONCE = 64  # positions whose scores are taken to float64 together: a vocabulary may have 250,000 words

# Of the words to be predicted, the share that becomes the mask, and the share up to which it is another word.
_MASKED, _REPLACED = 0.8, 0.9


def mask_id(tokenizer: Any) -> int:
    """Return the id of the mask.

    Raises:
        InputError: the tokenizer has none.
    """
    if tokenizer.mask_token_id is None:
        raise InputError("This tokenizer has no mask_token: set it to hide words.")
    return int(tokenizer.mask_token_id)


def hide_words(
    features: Sequence[Features],
    random: Sequence[np.random.Generator],
    tokenizer: Any,
    options: TaskOptions,
    length: int,
) -> Arrays:
    """Return `input_ids` with some words hidden and `labels`, those words' ids or -100, both `[rows, length]`.

    A share of the tokens is to be predicted, at least one of a row: 8 of 10 become the mask, one another word, and one
    stays (Devlin et al. 2018, section 3.1). Special tokens never are, and neither is what the vocabulary does not know.
    `word_ids` says which tokens `whole_words` keeps together.
    """
    special = np.array(sorted(set(tokenizer.all_special_ids)))
    ordinary = len(tokenizer) - len(special)
    rows, labels = [], []
    for row, generator in zip(features, random, strict=True):
        ids = row["input_ids"].copy()
        chosen = _chosen(row, special, generator, options)
        target = np.full(len(ids), IGNORED_LABEL, np.int32)
        target[chosen] = ids[chosen]
        kind = generator.random(len(chosen))
        others = generator.integers(0, max(ordinary, 1), len(chosen))
        for one in special:
            others = others + (others >= one)
        ids[chosen] = np.where(kind < _MASKED, mask_id(tokenizer), np.where(kind < _REPLACED, others, ids[chosen]))
        rows.append(ids)
        labels.append(target)
    return {"input_ids": pad(rows, length, tokenizer.pad_token_id or 0), "labels": pad(labels, length, IGNORED_LABEL)}


def _chosen(row: Features, special: np.ndarray, random: np.random.Generator, options: TaskOptions) -> np.ndarray:
    """Return the positions to be predicted, in order."""
    is_special = (row["word_ids"] < 0) | np.isin(row["input_ids"], special)
    if options.whole_words:
        # A word with an unknown piece cannot be hidden as a whole.
        is_special |= np.isin(row["word_ids"], row["word_ids"][is_special])
    possible = np.flatnonzero(~is_special)
    if not len(possible):
        return possible
    wanted = max(1, round(options.mask_probability * len(possible)))
    words = row["word_ids"][possible] if options.whole_words else possible
    chosen: list[int] = []
    for word in random.permutation(np.unique(words)):
        own = possible[words == word]
        # A word that would be too much is passed over, unless nothing else was found.
        if not chosen or len(chosen) + len(own) <= wanted:
            chosen.extend(own.tolist())
        if len(chosen) >= wanted:
            break
    return np.sort(np.array(chosen))


def label_scores(logits: np.ndarray, labels: np.ndarray) -> Arrays:
    """Return the `log_likelihood` of each label, and whether it is the `right` one to expect: has the best score.

    Args:
        logits: `[positions, vocab]`.
        labels: ids `[positions]`.
    """
    likelihood, right = np.zeros(len(labels)), np.zeros(len(labels), bool)
    for start in range(0, len(labels), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        some = labels[part, None]
        likelihood[part] = np.take_along_axis(log_softmax(logits[part]), some, -1)[:, 0]
        right[part] = logits[part].argmax(-1) == labels[part]
    return {"log_likelihood": likelihood, "right": right}


def by_row(positions: np.ndarray, values: np.ndarray) -> list[np.ndarray]:
    """Part what belongs to positions, bool `[rows, length]`, by rows."""
    return np.split(values, np.cumsum(positions.sum(1))[:-1])


def word_metrics(answers: Sequence[Answer]) -> dict[str, float]:
    """Return `accuracy` and `perplexity` over all words that were to be predicted.

    Raises:
        InputError: there was none.
    """
    count = sum(answer["tokens"] for answer in answers)
    if not count:
        raise InputError("There was no word to be predicted: the texts are empty.")
    surprise = -sum(answer["log_likelihood"] for answer in answers) / count
    # The largest float's logarithm, so that a hopeless model's perplexity is still a number.
    perplexity = math.exp(min(surprise, 709.0))
    return {"accuracy": sum(answer["right"] for answer in answers) / count, "perplexity": perplexity}
