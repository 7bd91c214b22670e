"""Small tokenizers of every kind with the same ids, so that what users call is tested once for all."""

from __future__ import annotations

from typing import Any

import isobert
from isobert.tokenization.sentencepiece_model import CONTROL, NORMAL, SPACE, UNKNOWN, SentencePieceModel

FAMILIES = ("MobileBert", "RemBert")
"""A family of each algorithm; ConvBERT's and SqueezeBERT's classes are MobileBERT's under other names."""

KINDS = tuple(f"{family}Tokenizer{kind}" for family in FAMILIES for kind in ("", "Fast"))


def tokenizer_class(name: str) -> type[Any]:
    found: type[Any] = getattr(isobert, name)
    return found


def vocabulary(name: str, words: list[str]) -> dict[str, Any]:
    """Return the constructor's arguments for a vocabulary.

    Args:
        name: the class's name.
        words: the pieces after the five special ones, as WordPiece writes them: `##` before a piece inside a word.
    """
    if not name.startswith("RemBert"):
        return {"vocab": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]}
    return {"model": unigram_model(words), "do_lower_case": True, "keep_accents": False}


def vocabulary_file(name: str) -> str:
    return "sentencepiece.model" if name.startswith("RemBert") else "vocab.txt"


def unigram_model(words: list[str]) -> SentencePieceModel:
    pieces = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", *map(_unigram, words))
    types = bytes([CONTROL, UNKNOWN, CONTROL, CONTROL, CONTROL]) + bytes([NORMAL]) * len(words)
    return SentencePieceModel(pieces, (0.0,) * 5 + (-1.0,) * len(words), types)


def _unigram(word: str) -> str:
    if word.startswith("##"):
        return word[2:]
    return SPACE + word if len(word) > 1 and word.isalnum() else word


def is_unigram(tokenizer: Any) -> bool:
    return type(tokenizer).__name__.startswith("RemBert")


def spelled(tokenizer: Any, tokens: list[str]) -> list[str]:
    """Return tokens, given as WordPiece writes them, as the tokenizer writes them."""
    if not is_unigram(tokenizer):
        return tokens
    return [token if token.startswith(("[", "<")) else _unigram(token) for token in tokens]
