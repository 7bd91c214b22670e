"""WordPiece in Python: BERT's text normalisation, its splitting into words, and its pieces, with offsets.

The steps are those of Devlin et al. 2018, "BERT" (and of its published code): clean the text, put spaces around Chinese
characters, strip accents, lower; split at white space and around punctuation; then cut each word into the longest
pieces of the vocabulary from left to right (Wu et al. 2016, "Google's Neural Machine Translation System", section 4.1).
What each character is, `characters.py` says; offsets count characters of the text as it was given.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .characters import KINDS, Rules, canonical_order, decompose, may_reorder, rewrites
from .rows import Span
from .slow import Normalized

_SPACE, _PUNCTUATION = 1, 2


@dataclass(frozen=True)
class WordPieceSettings:
    """How WordPiece treats text; the fields are `tokenizer_config.json`'s.

    Attributes:
        do_lower_case: lower capitals.
        strip_accents: remove accents; as `do_lower_case` says if None.
        tokenize_chinese_chars: make every Chinese character a word.
        clean_text: remove control characters and turn every white space into a blank.
        do_basic_tokenize: normalise, and split around punctuation; otherwise words are split at white space alone.
        wordpieces_prefix: what a piece inside a word begins with.
        max_input_chars_per_word: a longer word is unknown as a whole.
    """

    do_lower_case: bool = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True
    clean_text: bool = True
    do_basic_tokenize: bool = True
    wordpieces_prefix: str = "##"
    max_input_chars_per_word: int = 100

    @property
    def rules(self) -> Rules:
        """The steps of normalisation that are on."""
        if not self.do_basic_tokenize:
            return Rules(False, False, False, False)
        strip = self.do_lower_case if self.strip_accents is None else self.strip_accents
        return Rules(self.clean_text, self.tokenize_chinese_chars, strip, self.do_lower_case)


def normalize(text: str, rules: Rules) -> Normalized:
    """Return BERT's normal form of a text.

    Every normal character stands for one original character, even where one became several.

    Example:
        >>> normalize("Ça 中", Rules()).text
        'ca  中 '
    """
    if rules.strip_accents and may_reorder(set(text)):
        return _normalize_in_steps(text, rules)
    table = rewrites(rules)
    parts: list[str] = []
    starts: list[int] = []
    for index, character in enumerate(text):
        normal = table[character]
        if len(normal) == 1:
            parts.append(normal)
            starts.append(index)
        elif normal:
            parts.append(normal)
            starts.extend([index] * len(normal))
    return Normalized("".join(parts), starts, [start + 1 for start in starts])


def _normalize_in_steps(text: str, rules: Rules) -> Normalized:
    """Normalise a text in which marks that stay are put into canonical order.

    Such a mark takes another's place, and with it, as in `tokenizers`, the other's offset.
    """
    clean = rewrites(Rules(rules.clean_text, rules.handle_chinese_chars, False, False))
    cleaned = [(part, index) for index, character in enumerate(text) for part in clean[character]]
    # Each decomposed character, and whether it is the first of its original one.
    decomposed = [(part, i == 0) for character, _ in cleaned for i, part in enumerate(decompose(character))]
    flags: defaultdict[str, deque[bool]] = defaultdict(deque)
    for part, first in decomposed:
        flags[part].append(first)
    kept = rewrites(Rules(False, False, True, False))
    lowered = rewrites(Rules(False, False, False, rules.lowercase))
    parts: list[str] = []
    starts: list[int] = []
    place = 0
    for part in canonical_order("".join(part for part, _ in decomposed)):
        place += flags[part].popleft()
        if kept[part]:
            parts.append(lowered[part])
            starts.extend([cleaned[max(place - 1, 0)][1]] * len(lowered[part]))
    return Normalized("".join(parts), starts, [start + 1 for start in starts])


def split_words(text: str, punctuation: bool = True) -> Iterator[Span]:
    """Yield where each word of a normalised text begins and ends; a punctuation character is a word of its own.

    Example:
        >>> [("don't stop")[a:b] for a, b in split_words("don't stop")]
        ['don', "'", 't', 'stop']
    """
    start = 0
    for index, character in enumerate(text):
        kind = KINDS[character]
        if kind and (punctuation or kind == _SPACE):
            if start < index:
                yield start, index
            if kind == _PUNCTUATION:
                yield index, index + 1
            start = index + 1
    if start < len(text):
        yield start, len(text)


def longest_pieces(
    word: str,
    vocab: Mapping[str, int],
    unknown: int,
    prefix: str = "##",
    limit: int = 100,
    longest: int | None = None,
) -> list[tuple[int, int, int]]:
    """Cut a word into the longest pieces of the vocabulary, from left to right.

    Args:
        word: the word.
        vocab: the pieces' ids.
        unknown: the id of what is none.
        prefix: what a piece inside a word begins with.
        limit: a longer word is unknown as a whole.
        longest: how many characters the vocabulary's longest token has, if that is known: no more are looked up, so
            that the work grows with a word's length and not with its square.

    Returns:
        `(id, start, stop)` of each piece; one unknown piece if the word has more than `limit` characters or its rest
        begins with nothing in the vocabulary.

    Example:
        >>> longest_pieces("unable", {"[UNK]": 0, "un": 1, "##able": 2, "##a": 3}, unknown=0)
        [(1, 0, 2), (2, 2, 6)]
    """
    length = len(word)
    whole = [(unknown, 0, length)]
    if length > limit:
        return whole
    reach = length if longest is None else longest
    pieces: list[tuple[int, int, int]] = []
    start = 0
    while start < length:
        for stop in range(min(length, start + reach), start, -1):
            found = vocab.get(prefix + word[start:stop] if start else word[:stop])
            if found is not None:
                pieces.append((found, start, stop))
                start = stop
                break
        else:
            return whole
    return pieces
