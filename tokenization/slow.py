"""The tokenizers in Python: added tokens first, then normalisation, words and the model's pieces, each with offsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tokenizers import AddedToken

from .added import AddedTokenMatcher
from .arguments import Padding, Sample, Truncation, check_encodable
from .base import PreTrainedTokenizerBase
from .rows import Encoding, Span, cut, pad_rows, sequence_row, special_row


class Normalized(NamedTuple):
    """A normalised text and, for each of its characters, the original characters that it stands for.

    Character `i` comes from the original's characters `starts[i]` to before `stops[i]`.
    """

    text: str
    starts: Sequence[int]
    stops: Sequence[int]


class PreTrainedTokenizer(PreTrainedTokenizerBase):
    """A tokenizer in Python; a subclass normalises text, splits it into words, and words into pieces."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._matchers: dict[bool, tuple[AddedTokenMatcher, AddedTokenMatcher]] = {}

    def _normalize(self, text: str) -> Normalized:
        """Return the text in its normal form."""
        raise NotImplementedError

    def _words(self, text: str) -> Iterator[Span]:
        """Yield where each word of a normalised text begins and ends."""
        raise NotImplementedError

    def _word_pieces(self, word: str) -> Sequence[tuple[int, int, int]]:
        """Return `(id, start, stop)` of each piece of a normalised word."""
        raise NotImplementedError

    def _tokens_changed(self, fresh: Sequence[AddedToken], *, rebuild: bool) -> None:
        self._matchers = {}

    def _encode_rows(
        self,
        samples: list[Sample],
        is_split_into_words: bool,
        add_special_tokens: bool,
        truncation: Truncation | None,
        padding: Padding | None,
        split_special_tokens: bool,
    ) -> list[Encoding]:
        check_encodable(samples)
        matchers = self._matchers_for(split_special_tokens)
        rows = []
        for sample in samples:
            parts = sample if isinstance(sample, tuple) else (sample,)
            sequences = [self._sequence(part, index, matchers) for index, part in enumerate(parts)]
            rows.append(self._row(sequences, add_special_tokens, truncation))
        return rows if padding is None else pad_rows(rows, padding)

    def _row(self, sequences: list[Encoding], add_special_tokens: bool, truncation: Truncation | None) -> Encoding:
        """Cut a sequence or a pair and join it with special tokens; the first window holds the others."""
        first, second = sequences[0], sequences[1] if len(sequences) > 1 else None
        special = self.num_special_tokens_to_add(second is not None) if add_special_tokens else 0
        pairs = [(first, second)] if truncation is None else cut(first, second, truncation, special)
        join = self._join if add_special_tokens else _concatenate
        main, *others = [join(a, b) for a, b in pairs]
        return replace(main, overflowing=others)

    def _join(self, first: Encoding, second: Encoding | None) -> Encoding:
        cls_id, sep_id = self._joints()
        cls, sep = self._token_of(cls_id), self._token_of(sep_id)
        row = special_row(cls_id, cls, 0) + first + special_row(sep_id, sep, 0)
        return row if second is None else row + second + special_row(sep_id, sep, 1)

    def _sequence(
        self, part: str | list[str], sequence: int, matchers: tuple[AddedTokenMatcher, AddedTokenMatcher]
    ) -> Encoding:
        """Return the row of one text, or of a list of words, without special tokens."""
        return sequence_row(self._pieces(part, matchers), sequence, self._token_of)

    def _pieces(
        self, part: str | list[str], matchers: tuple[AddedTokenMatcher, AddedTokenMatcher]
    ) -> list[tuple[int, Span, int]]:
        """Return `(id, offsets, word)` of every token of a text, or of a list of words."""
        if isinstance(part, str):
            return list(self._text_pieces(part, matchers))
        return [
            (token_id, span, index)
            for index, word in enumerate(part)
            for token_id, span, _ in self._text_pieces(word, matchers)
        ]

    def _text_pieces(
        self, text: str, matchers: tuple[AddedTokenMatcher, AddedTokenMatcher]
    ) -> Iterator[tuple[int, Span, int]]:
        as_written, normalised = matchers
        word = 0
        for token_id, start, stop in as_written.split(text):
            if token_id is not None:
                yield token_id, (start, stop), word
                word += 1
                continue
            normal, starts, stops = self._normalize(text[start:stop])
            for found, left, right in normalised.split(normal):
                if found is not None:
                    yield found, (start + starts[left], start + stops[right - 1]), word
                    word += 1
                    continue
                segment = normal[left:right]
                for word_start, word_stop in self._words(segment):
                    at = left + word_start
                    for piece_id, a, b in self._word_pieces(segment[word_start:word_stop]):
                        yield piece_id, (start + starts[at + a], start + stops[at + b - 1]), word
                    word += 1

    def _matchers_for(self, split_special_tokens: bool) -> tuple[AddedTokenMatcher, AddedTokenMatcher]:
        """Return what finds added tokens in the text as written, and in the normalised text."""
        if split_special_tokens not in self._matchers:
            special = set(self.all_special_tokens)
            added = list(self._added.items())
            if split_special_tokens:
                added = [(i, token) for i, token in added if not (token.special or token.content in special)]
            written = [(token.content, i, token) for i, token in added if not token.normalized]
            normal = [(self._normalize(token.content).text, i, token) for i, token in added if token.normalized]
            self._matchers[split_special_tokens] = (AddedTokenMatcher(written), AddedTokenMatcher(normal))
        return self._matchers[split_special_tokens]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_matchers": {}}


def _concatenate(first: Encoding, second: Encoding | None) -> Encoding:
    return first if second is None else first + second
