"""What a character is to WordPiece: one set of Unicode tables for the Python and the fast tokenizers.

The tables a tokenizer needs (categories, canonical decompositions, combining classes, lower case) differ between
Python's `unicodedata`, whose Unicode version rises with every Python release, and the `tokenizers` library, whose
tables are of several older versions. A published vocabulary was used with the latter, and a saved `tokenizer.json`
will be again, so **`tokenizers` decides**: the Python tokenizer asks it about each distinct character once and
remembers the answer. The two sides therefore agree on every code point, on every Python from 3.11 on, and whichever
release of `tokenizers` is installed; no table of our own can fall behind. What that means where Unicode moved on:

- code points that were unassigned then (new emoji, new scripts) are ordinary letters, never removed;
- punctuation, accents and format characters of later Unicode versions count as ordinary letters too;
- U+166D and U+111C9, since recategorised, are punctuation as they were;
- capitals are lowered one by one, so a final capital sigma becomes U+03C3, without regard to its place in the word.

Only answers about single characters are asked for; the algorithms (cleaning, accents, splitting, pieces, offsets) are
Python's own in `wordpiece.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from typing import NamedTuple

from tokenizers import normalizers, pre_tokenizers


class Rules(NamedTuple):
    """Which of the steps of BERT's text normalisation are on."""

    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool = True
    lowercase: bool = True


class Rewrites(dict[str, str]):
    """What each character becomes under `Rules`, filled in as characters are met.

    A value is the character's normal form: several characters for a letter that is lowered to two or for a Chinese
    character (spaces around it), none for what is removed.
    """

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self._normalize = normalizers.BertNormalizer(**rules._asdict()).normalize_str

    def __missing__(self, character: str) -> str:
        value: str = self._normalize(character)
        self[character] = value
        return value


class _Kinds(dict[str, int]):
    """Whether a character splits words: 0 no, 1 white space (dropped), 2 punctuation (a word of its own)."""

    _split = staticmethod(pre_tokenizers.BertPreTokenizer().pre_tokenize_str)

    def __missing__(self, character: str) -> int:
        value = len(self._split(f"a{character}a")) - 1
        self[character] = value
        return value


class _WordCharacters(dict[str, int]):
    r"""What a character is to a regular expression: 2 for `\w`, 1 for `\s`, 0 for neither."""

    _split = staticmethod(pre_tokenizers.Whitespace().pre_tokenize_str)

    def __missing__(self, character: str) -> int:
        pieces = self._split(f"a{character}")
        value = 2 if len(pieces) == 1 and len(pieces[0][0]) == 2 else len(pieces) == 1
        self[character] = int(value)
        return int(value)


_nfd = normalizers.NFD().normalize_str
_HIGHEST_CLASS = "\u0345"  # combining class 240, above every other

KINDS = _Kinds()
WORD_CHARACTERS = _WordCharacters()


@cache
def rewrites(rules: Rules) -> Rewrites:
    """Return the table for `rules`, shared by every tokenizer that has them."""
    return Rewrites(rules)


@lru_cache(maxsize=4096)
def decompose(character: str) -> str:
    """Return a character's canonical decomposition."""
    decomposed: str = _nfd(character)
    return decomposed


@lru_cache(maxsize=4096)
def _moves(character: str) -> bool:
    """Whether canonical ordering can move this character although it outlives the stripping of accents."""
    kept = rewrites(Rules(False, False, True, False))
    return any(kept[part] and _nfd(_HIGHEST_CLASS + part)[0] == part for part in decompose(character))


def may_reorder(characters: Iterable[str]) -> bool:
    """Return whether a text holds marks that stay and that canonical ordering can move (rare: spacing marks)."""
    return any(_moves(character) for character in characters if character > "\u02ff")


def canonical_order(text: str) -> str:
    """Return the decomposed text with its combining marks in canonical order."""
    ordered: str = _nfd(text)
    return ordered
