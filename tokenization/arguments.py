"""What a call to a tokenizer asks for: its texts, padding and truncation, checked once for every kind of tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import TokenizerError

logger = logging.getLogger("isobert")

NO_MAX_LENGTH = int(1e30)
"""The `model_max_length` of a tokenizer whose model's limit is not known; the Hub's files hold this very number."""

_UNLIMITED = int(1e20)
_PADDINGS = ("longest", "max_length", "do_not_pad")
_TRUNCATIONS = ("longest_first", "only_first", "only_second", "do_not_truncate")

Words = list[str]
Sample = str | tuple[str, str] | Words | tuple[Words, Words]
"""One example: a text, a pair of texts, or the same in words."""


@dataclass(frozen=True)
class Padding:
    """How rows are filled up: to `length` if it is set, else to the longest row."""

    length: int | None
    multiple_of: int | None
    side: str
    token: str
    token_id: int
    type_id: int

    def target(self, longest: int) -> int:
        """Return the length of the padded rows when the longest one has `longest` tokens."""
        length = longest if self.length is None else self.length
        if self.multiple_of:
            length = -(-length // self.multiple_of) * self.multiple_of
        return length

    def settled(self, longest: int) -> Padding:
        """Return the same with its `length` set, when the longest row has `longest` tokens."""
        return replace(self, length=self.target(longest), multiple_of=None)


@dataclass(frozen=True)
class Truncation:
    """How rows are cut: `max_length` counts special tokens too; `overflow` says whether what is cut off is wanted."""

    max_length: int
    stride: int
    strategy: str
    side: str
    overflow: bool


def check_side(name: str, value: Any) -> str:
    """Return a side, "left" or "right"."""
    if value not in ("left", "right"):
        raise TokenizerError(f"{name} is {value!r}; it must be 'left' or 'right'.")
    return str(value)


def check_count(name: str, value: Any, least: int) -> int:
    """Return a whole number of at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < least:
        raise TokenizerError(f"{name} is {value!r}; it must be a whole number of at least {least}.")
    return int(value)


def padding_strategy(padding: Any) -> str:
    """Return the strategy that the argument `padding` names."""
    if padding is True:
        return "longest"
    if padding is False or padding is None:
        return "do_not_pad"
    if padding in _PADDINGS:
        return str(padding)
    raise TokenizerError(f"padding is {padding!r}; it must be True, False or one of {', '.join(map(repr, _PADDINGS))}.")


def truncation_strategy(truncation: Any) -> str:
    """Return the strategy that the argument `truncation` names."""
    if truncation is True:
        return "longest_first"
    if truncation is False or truncation is None:
        return "do_not_truncate"
    if truncation in _TRUNCATIONS:
        return str(truncation)
    raise TokenizerError(
        f"truncation is {truncation!r}; it must be True, False or one of {', '.join(map(repr, _TRUNCATIONS))}."
    )


@dataclass(frozen=True)
class Lengths:
    """A call's `padding`, `truncation` and lengths after the defaults were filled in."""

    padding: str
    truncation: str
    max_length: int | None

    @classmethod
    def resolve(
        cls,
        padding: Any,
        truncation: Any,
        max_length: int | None,
        pad_to_multiple_of: int | None,
        model_max_length: int,
        verbose: bool = True,
    ) -> Lengths:
        """Fill in what the call leaves open.

        `max_length` alone truncates; without it the model's limit holds, and without that there is neither padding to
        "max_length" nor truncation.
        """
        pad = padding_strategy(padding)
        if max_length is not None:
            max_length = check_count("max_length", max_length, 0)
            if truncation is None and pad == "do_not_pad":
                truncation = "longest_first"
        cut = truncation_strategy(truncation)
        if max_length is None and (pad == "max_length" or cut != "do_not_truncate"):
            if model_max_length < _UNLIMITED:
                max_length = model_max_length
            else:
                if verbose:
                    logger.warning(
                        "padding=%r, truncation=%r without max_length, and this tokenizer's model_max_length is not "
                        "known: nothing is padded or cut to a length. Give max_length.",
                        padding,
                        truncation,
                    )
                pad = "do_not_pad" if pad == "max_length" else pad
                cut = "do_not_truncate"
        if pad_to_multiple_of is not None:
            check_count("pad_to_multiple_of", pad_to_multiple_of, 1)
            both = pad != "do_not_pad" and cut != "do_not_truncate"
            if both and max_length is not None and max_length % pad_to_multiple_of:
                raise TokenizerError(
                    f"max_length={max_length} is not a multiple of pad_to_multiple_of={pad_to_multiple_of}, so rows "
                    "that are both cut and padded could not keep to it: choose a multiple."
                )
        return cls(pad, cut, max_length)


def gather_samples(text: Any, text_pair: Any, is_split_into_words: bool) -> tuple[list[Sample], bool]:
    """Return a call's examples and whether it was a batch of them.

    Raises:
        TokenizerError: the texts are not strings, not nested as they should be, or not as many as their pairs.
    """
    one = list if is_split_into_words else str
    batched = _is_batch(text, is_split_into_words)
    if text_pair is None:
        if not batched:
            return [_part(text, "text", is_split_into_words)], False
        return [_example(item, f"text[{i}]", is_split_into_words) for i, item in enumerate(text)], True
    if not batched:
        if one is str and isinstance(text_pair, list | tuple):
            raise TokenizerError(f"text is one text and text_pair a {type(text_pair).__name__}: give both alike.")
        parts = (_part(text, "text", is_split_into_words), _part(text_pair, "text_pair", is_split_into_words))
        return [parts], False  # type: ignore[list-item]
    if not isinstance(text_pair, list | tuple) or (text_pair and not _is_batch(text_pair, is_split_into_words)):
        raise TokenizerError("text is a batch, so text_pair must be one too: a list with one entry for each text.")
    if len(text) != len(text_pair):
        raise TokenizerError(f"text has {len(text)} entries and text_pair {len(text_pair)}: they must be as many.")
    return [
        (_part(a, f"text[{i}]", is_split_into_words), _part(b, f"text_pair[{i}]", is_split_into_words))  # type: ignore[misc]
        for i, (a, b) in enumerate(zip(text, text_pair, strict=True))
    ], True


def _is_batch(text: Any, is_split_into_words: bool) -> bool:
    if not is_split_into_words:
        return isinstance(text, list | tuple)
    return isinstance(text, list | tuple) and bool(text) and isinstance(text[0], list | tuple)


def _example(item: Any, where: str, words: bool) -> Sample:
    """Return one entry of a batch: a single text or, as two entries, a pair."""
    nested = isinstance(item, list | tuple) and (not words or (bool(item) and isinstance(item[0], list | tuple)))
    if not nested:
        return _part(item, where, words)
    if len(item) != 2:
        raise TokenizerError(
            f"{where} is a {type(item).__name__} of {len(item)}: a pair has two entries; for a text that is already in "
            "words pass is_split_into_words=True."
        )
    return (_part(item[0], f"{where}[0]", words), _part(item[1], f"{where}[1]", words))  # type: ignore[return-value]


def _part(text: Any, where: str, words: bool) -> str | Words:
    if not words:
        if not isinstance(text, str):
            raise TokenizerError(f"{where} is {_shown(text)}; it must be a string.")
        return text
    if not isinstance(text, list | tuple):
        raise TokenizerError(f"{where} is {_shown(text)}; with is_split_into_words=True it must be a list of words.")
    for index, word in enumerate(text):
        if not isinstance(word, str):
            raise TokenizerError(f"{where}[{index}] is {_shown(word)}; every word must be a string.")
    return list(text)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def check_encodable(samples: Sequence[Sample]) -> None:
    """Raise a TokenizerError that names the first text that is not valid Unicode (a lone surrogate)."""
    for index, sample in enumerate(samples):
        parts = sample if isinstance(sample, tuple) else (sample,)
        for part in parts:
            for text in (part,) if isinstance(part, str) else part:
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise TokenizerError(
                        f"Example {index} holds {text[error.start]!r} at character {error.start}: half of a surrogate "
                        "pair, which is no character. Decode the text anew, with errors='replace' if need be."
                    ) from error


def check_pairs(samples: Sequence[Sample]) -> None:
    """Raise a TokenizerError that names the first example that is no pair."""
    for index, sample in enumerate(samples):
        if not isinstance(sample, tuple):
            raise TokenizerError(
                f"truncation='only_second' needs pairs of texts, and example {index} is one text: give text_pair, or "
                "use truncation=True."
            )
