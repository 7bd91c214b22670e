"""What a call to a tokenizer returns: columns for the model, and for each row where its tokens come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import TokenizerError
from .arguments import Padding
from .rows import pad_rows
from .tensors import to_tensor


class CharSpan(NamedTuple):
    """Characters `start` to before `end` of a text (of a word, if the text was given in words)."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens `start` to before `end` of a row."""

    start: int
    end: int


class BatchEncoding(dict[str, Any]):
    """The columns of one or more encoded texts, by name, as lists or tensors.

    A column is an entry and an attribute: `batch["input_ids"]`, `batch.input_ids`. An integer index gives that row's
    encoding, with its `ids`, `tokens`, `offsets`, `word_ids` and `sequence_ids`. The methods that lead from tokens to
    words and characters and back take `(row, index)`, or the index alone for row 0.

    Attributes:
        is_fast: whether the rows come from the `tokenizers` library.
    """

    def __init__(
        self,
        data: dict[str, Any] | None = None,
        encodings: Sequence[Any] | None = None,
        *,
        padding: Padding | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
        is_fast: bool = False,
        added: dict[int, str] | None = None,
    ) -> None:
        super().__init__(data or {})
        # `tokenizers` calls an added token by the stretch of text it was found in, blanks and all.
        self._added = added or {}
        self._encodings = None if encodings is None else list(encodings)
        self._padding = padding
        self.is_fast = is_fast
        if tensor_type is not None:
            self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        if isinstance(key, slice):
            return {name: column[key] for name, column in self.items()}
        return self._row(key)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            held = ", ".join(self) or "none"
            raise AttributeError(f"There is no column {name!r} in this batch; its columns are: {held}.") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (dict(self), self.encodings, self.is_fast, self._added)

    def copy(self) -> BatchEncoding:
        """Return a shallow copy."""
        return _rebuild(dict(self), self.encodings, self.is_fast, self._added)

    @property
    def encodings(self) -> list[Any] | None:
        """One encoding an output row, filled up when first asked for; None if the columns did not come from text."""
        if self._padding is not None and self._encodings is not None:
            self._encodings, self._padding = pad_rows(self._encodings, self._padding), None
        return self._encodings

    @property
    def data(self) -> dict[str, Any]:
        """The columns as a plain dictionary."""
        return dict(self)

    @property
    def n_sequences(self) -> int | None:
        """How many texts a row joins, 1 or 2; None if the rows did not come from text."""
        if not self.encodings:
            return None
        return 2 if any(1 in row.sequence_ids for row in self.encodings) else 1

    def convert_to_tensors(self, tensor_type: str | None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Turn every column into arrays or tensors in place.

        Args:
            tensor_type: "np" (int64), "pt" (int64) or "tf" (int32); None changes nothing.
            prepend_batch_axis: add a first axis of length 1 to each column.

        Raises:
            TokenizerError: the rows of a column differ in length.
            MissingDependencyError: the framework is not installed.
        """
        if tensor_type is not None:
            for name, column in self.items():
                self[name] = to_tensor(name, [column] if prepend_batch_axis else column, tensor_type)
        return self

    def to(self, *args: Any, **kwargs: Any) -> BatchEncoding:
        """Move every PyTorch tensor, in place: the arguments are those of `torch.Tensor.to`."""
        for name, column in self.items():
            if callable(getattr(column, "to", None)):
                self[name] = column.to(*args, **kwargs)
        return self

    def _row(self, index: int) -> Any:
        if self.encodings is None:
            raise TokenizerError(
                "This batch was not made from text (by `pad` or `prepare_for_model`, say), so it does not know where "
                "its tokens come from."
            )
        try:
            return self.encodings[index]
        except IndexError:
            raise TokenizerError(f"There is no row {index}: the batch has {len(self.encodings)}.") from None

    def tokens(self, batch_index: int = 0) -> list[str]:
        """Return a row's tokens as strings."""
        row = self._row(batch_index)
        return [self._added.get(token_id, token) for token_id, token in zip(row.ids, row.tokens, strict=True)]

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return the index of each token's word in its text; None for special tokens and padding."""
        return list(self._row(batch_index).word_ids)

    words = word_ids

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return which text each token is of, 0 or 1; None for special tokens and padding."""
        return list(self._row(batch_index).sequence_ids)

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Return which text a token is of."""
        row, index = self._place(batch_or_token_index, token_index)
        return self._at(row.sequence_ids, index)

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Return the index of a token's word."""
        row, index = self._place(batch_or_token_index, token_index)
        return self._at(row.word_ids, index)

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """Return a token's characters in its text; None for special tokens and padding."""
        row, index = self._place(batch_or_token_index, token_index)
        return None if self._at(row.sequence_ids, index) is None else CharSpan(*row.offsets[index])

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """Return a word's tokens; None if the row has none of them."""
        row, word = self._place(batch_or_word_index, word_index)
        found = [
            token
            for token, (w, s) in enumerate(zip(row.word_ids, row.sequence_ids, strict=True))
            if w == word and s == sequence_index
        ]
        return TokenSpan(found[0], found[-1] + 1) if found else None

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """Return a word's characters in its text; None if the row has none of its tokens."""
        span = self.word_to_tokens(batch_or_word_index, word_index, sequence_index)
        if span is None:
            return None
        row, _ = self._place(batch_or_word_index, word_index)
        return CharSpan(row.offsets[span.start][0], row.offsets[span.end - 1][1])

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the token that a character of the text is in; None if it is in none (white space, say)."""
        row, char = self._place(batch_or_char_index, char_index)
        for token, ((start, end), sequence) in enumerate(zip(row.offsets, row.sequence_ids, strict=True)):
            if sequence == sequence_index and start <= char < end:
                return token
        return None

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the index of the word that a character of the text is in; None if it is in none."""
        token = self.char_to_token(batch_or_char_index, char_index, sequence_index)
        if token is None:
            return None
        row, _ = self._place(batch_or_char_index, char_index)
        word: int | None = row.word_ids[token]
        return word

    def _place(self, row_or_index: int, index: int | None) -> tuple[Any, int]:
        return (self._row(0), row_or_index) if index is None else (self._row(row_or_index), index)

    @staticmethod
    def _at(column: list[Any], index: int) -> Any:
        try:
            return column[index]
        except IndexError:
            raise TokenizerError(f"There is no token {index}: the row has {len(column)}.") from None


def _rebuild(data: dict[str, Any], encodings: list[Any] | None, is_fast: bool, added: dict[int, str]) -> BatchEncoding:
    return BatchEncoding(data, encodings, is_fast=is_fast, added=added)
