"""Labels as files write them, names or numbers, and the ids that a config gives them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ...errors import InputError
from ..config import PretrainedConfig
from .files import Example, shown

_GENERIC = re.compile(r"LABEL_\d+")


def label_name(value: Any, example: Example, column: str = "label") -> str:
    """Return a label as its name: a text as it is, a whole number in digits.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    raise InputError(f"{example['place']}: {column} is {shown(value)}; it must be a label's name or its number.")


def is_whole(name: str) -> bool:
    """Say whether a label's name is a whole number."""
    return re.fullmatch(r"-?\d+(\.0*)?", name, re.ASCII) is not None


def label_order(names: Iterable[str]) -> list[str]:
    """Return labels in the order of their ids: by name, or by number if all are whole numbers.

    Numbers that count from 0 are ids as they stand, so one that is absent between them has a place too.

    Example:
        >>> label_order(["neutral", "bad", "good"]), label_order(["3", "0", "1"]), label_order(["10", "-1", "2"])
        (['bad', 'good', 'neutral'], ['0', '1', '2', '3'], ['-1', '2', '10'])
    """
    distinct = set(names)
    if not all(map(is_whole, distinct)):
        return sorted(distinct)
    numbers = sorted({int(float(name)) for name in distinct})
    # A few absent ones are taken for classes without an example, more for names that happen to be numbers.
    if numbers[0] == 0 and numbers[-1] < 2 * len(numbers):
        numbers = list(range(numbers[-1] + 1))
    return [str(number) for number in numbers]


def config_labels(names: Iterable[str], config: PretrainedConfig) -> dict[str, Any]:
    """Return the fields by which a config has these labels: none if it has them already."""
    distinct = set(names)
    if all(_find(name, config) is not None for name in distinct) and not has_generic_labels(config):
        return {}
    return {"id2label": dict(enumerate(label_order(distinct)))}


def has_generic_labels(config: PretrainedConfig) -> bool:
    """Say whether a config's labels are just numbered, which they are unless someone named them."""
    return all(_GENERIC.fullmatch(label) for label in config.label2id)


def label_id(name: str, example: Example, config: PretrainedConfig, column: str = "label") -> int:
    """Return a label's id in a config.

    Raises:
        InputError: the config lacks it.
    """
    found = _find(name, config)
    if found is None:
        raise InputError(
            f"{example['place']}: {column} {name!r} is none of the model's, which are "
            f"{', '.join(map(repr, config.label2id))}. Correct the data, or the config's id2label."
        )
    return found


def _find(name: str, config: PretrainedConfig) -> int | None:
    if name in config.label2id:
        return config.label2id[name]
    if not is_whole(name):
        return None
    number = int(float(name))
    if str(number) in config.label2id:
        return config.label2id[str(number)]
    # A number stands for an id only where no label is itself a number.
    if any(map(is_whole, config.label2id)):
        return None
    return number if number in config.id2label else None


def precision_recall_f1(right: float, found: float, wanted: float) -> tuple[float, float, float]:
    """Return precision, recall and their harmonic mean from counts; 0 where nothing is to be divided.

    Example:
        >>> precision_recall_f1(1, 2, 1)
        (0.5, 1.0, 0.6666666666666666)
    """
    precision = right / found if found else 0.0
    recall = right / wanted if wanted else 0.0
    f1 = 2 * right / (found + wanted) if found + wanted else 0.0
    return float(precision), float(recall), float(f1)


def mean(values: Sequence[float]) -> float:
    """Return the mean, 0 of nothing."""
    return float(sum(values) / len(values)) if len(values) else 0.0
