"""One encoded row in Python: cutting sequences into windows, joining them with special tokens, padding.

The rules are those of the `tokenizers` library, so that the Python and the fast tokenizers return the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import TokenizerError
from .arguments import Padding, Truncation

Span = tuple[int, int]


@dataclass
class Encoding:
    """One row; every list has one entry a token. It answers to the names of `tokenizers.Encoding`."""

    ids: list[int] = field(default_factory=list)
    type_ids: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    offsets: list[Span] = field(default_factory=list)
    word_ids: list[Any] = field(default_factory=list)
    sequence_ids: list[int | None] = field(default_factory=list)
    special_tokens_mask: list[int] = field(default_factory=list)
    attention_mask: list[int] = field(default_factory=list)
    overflowing: list[Encoding] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def __add__(self, other: Encoding) -> Encoding:
        return Encoding(*(getattr(self, name) + getattr(other, name) for name in _COLUMNS))

    @property
    def next_word(self) -> int:
        """The number of a word that would be added now."""
        number: int = self.word_ids[-1] + 1 if self.word_ids else 0
        return number

    def add(self, token_id: int, token: str, span: Span, word: int) -> None:
        """Add a token to a text's row that is being made; the columns that the text as a whole decides come last."""
        self.ids.append(token_id)
        self.tokens.append(token)
        self.offsets.append(span)
        self.word_ids.append(word)

    def window(self, start: int, stop: int) -> Encoding:
        """Return the tokens from `start` to before `stop`."""
        return Encoding(*(getattr(self, name)[start:stop] for name in _COLUMNS))

    def padded(self, length: int, padding: Padding) -> Encoding:
        """Return the row filled up to `length` on the side that `padding` says."""
        missing = length - len(self)
        if missing <= 0:
            return self
        fill = Encoding(
            ids=[padding.token_id] * missing,
            type_ids=[padding.type_id] * missing,
            tokens=[padding.token] * missing,
            offsets=[(0, 0)] * missing,
            word_ids=[None] * missing,
            sequence_ids=[None] * missing,
            special_tokens_mask=[1] * missing,
            attention_mask=[0] * missing,
        )
        return fill + self if padding.side == "left" else self + fill


_COLUMNS = (
    "ids",
    "type_ids",
    "tokens",
    "offsets",
    "word_ids",
    "sequence_ids",
    "special_tokens_mask",
    "attention_mask",
)


def joined(first: Encoding, second: Encoding | None, joints: Sequence[tuple[int, str]] | None) -> Encoding:
    """Return one text's row, or two texts', joined as BERT does; by nothing if `joints` is None.

    Args:
        first: the first text's row.
        second: the second text's.
        joints: id and spelling of `[CLS]` and of `[SEP]`.
    """
    if joints is None:
        return first if second is None else first + second
    (cls_id, cls), (sep_id, sep) = joints
    row = Encoding(
        [cls_id, *first.ids, sep_id],
        [0, *first.type_ids, 0],
        [cls, *first.tokens, sep],
        [(0, 0), *first.offsets, (0, 0)],
        [None, *first.word_ids, None],
        [None, *first.sequence_ids, None],
        [1, *first.special_tokens_mask, 1],
        [1, *first.attention_mask, 1],
    )
    if second is None:
        return row
    return row + second + Encoding([sep_id], [1], [sep], [(0, 0)], [None], [None], [1], [1])


def windows(length: int, limit: int, stride: int, side: str) -> list[Span]:
    """Return where a sequence is cut: windows of at most `limit` tokens, neighbours sharing `stride` of them.

    The first window is the row itself, the others are its overflow. `side` "right" keeps the beginning, "left" the end.

    Example:
        >>> windows(7, 4, 1, "right"), windows(7, 4, 1, "left")
        ([(0, 4), (3, 7)], [(3, 7), (0, 4)])
    """
    if limit >= length:
        return [(0, length)]
    if limit == 0:
        return [(0, 0)]
    found: list[Span] = []
    start = 0
    while True:
        stop = min(start + limit, length)
        found.append((start, stop))
        if stop == length:
            break
        start += limit - stride
    return found if side == "right" else [(length - stop, length - start) for start, stop in found]


def lengths_to_keep(first: int, second: int | None, room: int, strategy: str) -> tuple[int, int]:
    """Return how many tokens of each sequence stay when both together may have `room`.

    "longest_first" shortens the longer one until they are even, and then both; an odd token goes to the one that was
    longer, to the second if neither was.

    Raises:
        TokenizerError: "only_first" or "only_second" would leave nothing of that sequence, or there is no second.
    """
    excess = first + (second or 0) - room
    if strategy == "only_second" and second is None:
        raise TokenizerError("truncation='only_second' needs a pair of texts, and only one was given.")
    if excess <= 0:
        return first, second or 0
    if strategy == "longest_first":
        if second is None:
            return room, 0
        short, long = min(first, second), max(first, second)
        long = long if short > room else max(short, room - short)
        if short > room or short + long > room:
            short, long = room // 2, room // 2 + room % 2
        return (long, short) if first > second else (short, long)
    length = first if strategy == "only_first" else second or 0
    if length <= excess:
        which = "first" if strategy == "only_first" else "second"
        raise TokenizerError(
            f"truncation={strategy!r} would have to remove {excess} tokens from the {which} text, which has only "
            f"{length}: raise max_length or use truncation='longest_first'."
        )
    return (first - excess, second or 0) if strategy == "only_first" else (first, length - excess)


def checked_lengths(first: int, second: int | None, truncation: Truncation, special: int) -> tuple[int, int]:
    """Return `lengths_to_keep` beside `special` special tokens, having seen to it that windows can advance.

    Raises:
        TokenizerError: too little is left of a text.
    """
    keep = lengths_to_keep(first, second, truncation.max_length - special, truncation.strategy)
    for length, kept in zip((first, second or 0), keep, strict=True):
        if kept < length and truncation.stride and truncation.stride >= kept:
            raise TokenizerError(
                f"stride={truncation.stride} must be below the number of tokens that a window has of the text that is "
                f"cut, which is {kept} with max_length={truncation.max_length}, or windows would never advance: lower "
                "stride or raise max_length."
            )
    return keep


def cut(
    first: Encoding, second: Encoding | None, truncation: Truncation, special: int
) -> list[tuple[Encoding, Encoding | None]]:
    """Return the row's windows as pairs of sequences; the first is the row itself.

    When both sequences are cut, every window of one meets every window of the other.
    """
    keep = checked_lengths(len(first), None if second is None else len(second), truncation, special)
    firsts = _windows_of(first, keep[0], truncation)
    if second is None:
        return [(window, None) for window in firsts]
    seconds = _windows_of(second, keep[1], truncation)
    main, *others = firsts
    crossed = [(a, b) for a in others for b in seconds]
    return [(main, seconds[0]), *crossed, *((main, b) for b in seconds[1:])]


def _windows_of(sequence: Encoding, limit: int, truncation: Truncation) -> list[Encoding]:
    places = windows(len(sequence), limit, truncation.stride, truncation.side)
    return [sequence.window(*place) for place in (places if truncation.overflow else places[:1])]


def pad_rows(rows: Sequence[Any], padding: Padding) -> list[Any]:
    """Return rows, and their overflow, filled up to one length; those of the `tokenizers` library are so in place."""
    length = padding.target(max(map(len, rows), default=0))
    done: list[Any] = []
    for row in rows:
        if isinstance(row, Encoding):
            overflowing = [window.padded(length, padding) for window in row.overflowing]
            done.append(replace(row.padded(length, padding), overflowing=overflowing))
            continue
        row.pad(
            length,
            direction=padding.side,
            pad_id=padding.token_id,
            pad_type_id=padding.type_id,
            pad_token=padding.token,
        )
        done.append(row)
    return done
