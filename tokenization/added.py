"""Finding added tokens inside a text, by the rules of the `tokenizers` library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tokenizers import AddedToken

from .characters import WORD_CHARACTERS

_SPACE, _WORD = 1, 2


class AddedTokenMatcher:
    """Splits a text at added tokens.

    At each place the longest token wins, and of two that look the same the earlier one. A token may insist on being a
    word of its own (`single_word`) and may swallow the white space beside it (`lstrip`, `rstrip`).

    Args:
        entries: `(pattern, id, token)` in order of precedence; the pattern is the token's text, normalised if the
            text it is looked for in is.
    """

    def __init__(self, entries: Sequence[tuple[str, int, AddedToken]]) -> None:
        self._entries: dict[str, tuple[int, AddedToken]] = {}
        for pattern, token_id, token in entries:
            self._entries.setdefault(pattern, (token_id, token))
        longest_first = sorted(self._entries, key=len, reverse=True)
        self._expression = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __bool__(self) -> bool:
        return self._expression is not None

    def finds(self, text: str) -> bool:
        """Return whether a text holds what looks like a token."""
        return self._expression is not None and self._expression.search(text) is not None

    def split(self, text: str) -> Iterator[tuple[int | None, int, int]]:
        """Yield `(id, start, stop)` for every token found and `(None, start, stop)` for what lies between."""
        done = 0
        for match in self._expression.finditer(text) if self._expression else ():
            start, stop = match.span()
            token_id, token = self._entries[match.group()]
            if token.single_word and not _stands_alone(text, start, stop):
                continue
            if token.lstrip:
                while start > done and WORD_CHARACTERS[text[start - 1]] == _SPACE:
                    start -= 1
            if token.rstrip:
                while stop < len(text) and WORD_CHARACTERS[text[stop]] == _SPACE:
                    stop += 1
            if done < start:
                yield None, done, start
            yield token_id, start, stop
            done = stop
        if done < len(text):
            yield None, done, len(text)


def _stands_alone(text: str, start: int, stop: int) -> bool:
    before = start > 0 and WORD_CHARACTERS[text[start - 1]] == _WORD
    after = stop < len(text) and WORD_CHARACTERS[text[stop]] == _WORD
    return not before and not after
