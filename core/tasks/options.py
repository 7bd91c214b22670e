"""What a user may choose about a task; what training and prediction add to it is theirs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ..config import PROBLEM_TYPES
from ..fields import Rule, flag, integer, number, one_of, optional, probability

_SHARE = Rule(lambda v: probability().accepts(v) and v > 0, "a number above 0 and below 1")


def option(default: Any, rule: Rule, words: str) -> Any:
    """Declare an option: its default, what it may be, and what it does, in words that a command's help shows."""
    return dataclasses.field(default=default, metadata={"rule": rule, "help": words})


def check_options(options: Any) -> None:
    """Check every field of a dataclass of options by its rule.

    Raises:
        InputError: naming the option, its value and what is legal.
    """
    for spec in dataclasses.fields(options):
        rule: Rule | None = spec.metadata.get("rule")
        value = getattr(options, spec.name)
        if rule is not None and not rule.accepts(value):
            raise InputError(f"The option {spec.name} is {value!r}; it must be {rule.words}.")


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options of all tasks; each field's metadata says what it does (`help`) and what it may be (`rule`).

    Raises:
        InputError: an option is not legal.

    Example:
        >>> TaskOptions(max_length=128).doc_stride
        128
        >>> TaskOptions(pooling="middle")
        Traceback (most recent call last):
        ...
        isobert.errors.InputError: The option pooling is 'middle'; it must be one of 'mean', 'first'.
    """

    max_length: int | None = option(
        None, optional(integer(4)), "tokens of the longest row, special ones included; as the model allows if not given"
    )
    seed: int = option(0, integer(0), "of everything that is drawn at random")
    problem_type: str | None = option(
        None,
        optional(one_of(*PROBLEM_TYPES)),
        "text classification: what the labels are; found in the data if not given",
    )
    label_all_pieces: bool = option(
        False, flag(), "token classification: learn the tag of a word at each of its pieces, not at the first alone"
    )
    aggregation: str = option(
        "first",
        one_of("first", "simple"),
        "token classification: group words by the tags of their first pieces, or the pieces themselves",
    )
    doc_stride: int = option(128, integer(0), "question answering: tokens that neighbouring windows share")
    max_question_length: int = option(64, integer(1), "question answering: tokens kept of a question")
    max_answer_length: int = option(30, integer(1), "question answering: tokens of the longest answer")
    n_best: int = option(20, integer(1), "question answering: how many answers are weighed")
    null_threshold: float | None = option(
        None,
        optional(number()),
        "question answering: answer nothing where that scores so much higher; nothing is no answer if not given",
    )
    mask_probability: float = option(0.15, _SHARE, "fill-mask, pretraining: the share of tokens to be predicted")
    whole_words: bool = option(False, flag(), "fill-mask, pretraining: mask all pieces of a word together")
    top_k: int = option(5, integer(1), "fill-mask: how many tokens are offered for each mask")
    pooling: str = option("mean", one_of("mean", "first"), "embedding: the mean of all tokens, or the first token")

    def __post_init__(self) -> None:
        check_options(self)
