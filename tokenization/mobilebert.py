"""MobileBert's tokenizers: BERT's WordPiece, uncased by default."""

from __future__ import annotations

from .wordpiece import WordPieceTokenizer, WordPieceTokenizerFast


class MobileBertTokenizer(WordPieceTokenizer):
    """x."""


class MobileBertTokenizerFast(WordPieceTokenizerFast):
    """x."""
