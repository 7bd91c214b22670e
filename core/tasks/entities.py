"""Entities from the tags of words: `B-LOC I-LOC O` is one entity of two words, of the type LOC.

The rule is that of CoNLL's evaluation (Tjong Kim Sang and De Meulder 2003), which reads IOB1, IOB2, IOE and IOBES alike
and makes the best of tags that break their scheme. `L` and `U` of BILOU, and `M` of BMES, are read as `E`, `S` and `I`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .labels import precision_recall_f1

OUTSIDE = "O"
_PREFIXES = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S"}


class Entity(NamedTuple):
    """An entity of a type over the words `start` to before `end`."""

    type: str
    start: int
    end: int


def parts(tag: str) -> tuple[str, str]:
    """Return a tag's prefix, one of B, I, E, S and O, and its type.

    Example:
        >>> parts("U-LOC"), parts("O"), parts("I")
        (('S', 'LOC'), ('O', ''), ('I', ''))
    """
    prefix, _, kind = tag.partition("-")
    return (_PREFIXES[prefix], kind) if prefix in _PREFIXES else (OUTSIDE, "")


def are_entities(tags: Iterable[str]) -> bool:
    """Say whether tags mark entities; parts of speech, say, do not."""
    tags = set(tags)
    return all(tag == OUTSIDE or (tag.partition("-")[0] in _PREFIXES and "-" in tag) for tag in tags)


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """Return the entities of a sentence, in order.

    A word goes on with the entity before it if it is inside or at an end (I, E) of the same type, and the word before
    neither ended an entity nor was outside; any other tag but O begins one.

    Example:
        >>> entities_of(["B-PER", "I-PER", "O", "I-LOC", "I-ORG", "B-ORG"])
        [Entity(type='PER', start=0, end=2), Entity(type='LOC', start=3, end=4), Entity(type='ORG', start=4, end=5), \
Entity(type='ORG', start=5, end=6)]
    """
    found: list[Entity] = []
    before, kind_before = OUTSIDE, ""
    for index, tag in enumerate(tags):
        prefix, kind = parts(tag)
        if prefix in ("I", "E") and before in ("B", "I") and kind == kind_before:
            found[-1] = found[-1]._replace(end=index + 1)
        elif prefix != OUTSIDE:
            found.append(Entity(kind, index, index + 1))
        before, kind_before = prefix, kind
    return found


def entity_scores(found: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]) -> tuple[float, float, float]:
    """Return precision, recall and F1 over the entities of all sentences; one is right if words and type are."""
    right = of_found = of_wanted = 0
    for mine, theirs in zip(found, wanted, strict=True):
        a, b = set(entities_of(mine)), set(entities_of(theirs))
        right, of_found, of_wanted = right + len(a & b), of_found + len(a), of_wanted + len(b)
    return precision_recall_f1(right, of_found, of_wanted)
