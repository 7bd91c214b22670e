"""The tokenizers in Python: added tokens first, then normalisation, words and the model's pieces, each with offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tokenizers import AddedToken

from .added import AddedTokenMatcher
from .arguments import Sample, Truncation, check_encodable
from .base import PreTrainedTokenizerBase
from .rows import Encoding, cut, joined


class Normalized(NamedTuple):
    """A normalised text and, for each of its characters, the original characters that it stands for.

    Character `i` comes from the original's characters `starts[i]` to before `stops[i]`.
    """

    text: str
    starts: Sequence[int]
    stops: Sequence[int]


class PreTrainedTokenizer(PreTrainedTokenizerBase):
    """A tokenizer in Python; a subclass turns text between added tokens into pieces."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._matchers: dict[bool, tuple[AddedTokenMatcher, AddedTokenMatcher]] = {}

    def _normalize(self, text: str) -> Normalized:
        """Return the text in its normal form."""
        raise NotImplementedError

    def _add_stretch(
        self, row: Encoding, text: str, offset: int, normalised: AddedTokenMatcher, word: int | None
    ) -> None:
        """Add a text's tokens to a row.

        Args:
            row: its `ids`, `tokens`, `offsets` and `word_ids` are extended.
            text: a text that holds none of the added tokens that are looked for as they are written.
            offset: where it begins in the whole text.
            normalised: finds the added tokens that are looked for in the normal form.
            word: the word that all tokens are of, if it is given.
        """
        raise NotImplementedError

    def _tokens_changed(self, fresh: Sequence[AddedToken], *, rebuild: bool) -> None:
        self._matchers = {}

    def _encode_rows(
        self,
        samples: list[Sample],
        is_split_into_words: bool,
        add_special_tokens: bool,
        truncation: Truncation | None,
        split_special_tokens: bool,
    ) -> list[Encoding]:
        check_encodable(samples)
        matchers = self._matchers_for(split_special_tokens)
        joints = [(token_id, self._token_of(token_id)) for token_id in self._joints()] if add_special_tokens else None
        rows = []
        for sample in samples:
            first, *others = sample if isinstance(sample, tuple) else (sample,)
            second = self._sequence(others[0], 1, matchers) if others else None
            rows.append(self._row(self._sequence(first, 0, matchers), second, joints, truncation))
        return rows

    def _row(
        self,
        first: Encoding,
        second: Encoding | None,
        joints: Sequence[tuple[int, str]] | None,
        truncation: Truncation | None,
    ) -> Encoding:
        """Cut a sequence or a pair and join it with special tokens; the first window holds the others."""
        special = 0 if joints is None else self.num_special_tokens_to_add(second is not None)
        pairs = [(first, second)] if truncation is None else cut(first, second, truncation, special)
        main, *others = [joined(a, b, joints) for a, b in pairs]
        main.overflowing = others
        return main

    def _sequence(
        self, part: str | list[str], sequence: int, matchers: tuple[AddedTokenMatcher, AddedTokenMatcher]
    ) -> Encoding:
        """Return the row of one text, or of a list of words, without special tokens."""
        row = Encoding()
        if isinstance(part, str):
            self._add_text(row, part, matchers, None)
        else:
            for index, word in enumerate(part):
                self._add_text(row, word, matchers, index)
        count = len(row.ids)
        row.type_ids, row.sequence_ids = [sequence] * count, [sequence] * count
        row.special_tokens_mask, row.attention_mask = [0] * count, [1] * count
        return row

    def _add_text(
        self, row: Encoding, text: str, matchers: tuple[AddedTokenMatcher, AddedTokenMatcher], word: int | None
    ) -> None:
        """Add a text's tokens to a row; all of them are of the word `word`, if it is given."""
        as_written, normalised = matchers
        for token_id, start, stop in as_written.split(text):
            if token_id is None:
                self._add_stretch(row, text[start:stop], start, normalised, word)
            else:
                self._add_token(row, token_id, start, stop, word)

    def _add_token(self, row: Encoding, token_id: int, start: int, stop: int, word: int | None) -> None:
        """Add an added token, which is a word of its own."""
        row.add(token_id, self._token_of(token_id), (start, stop), row.next_word if word is None else word)

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
