"""SqueezeBert's tokenizers: BERT's WordPiece, uncased by default."""

from __future__ import annotations

from .wordpiece import WordPieceTokenizer, WordPieceTokenizerFast


class SqueezeBertTokenizer(WordPieceTokenizer):
    """x."""


class SqueezeBertTokenizerFast(WordPieceTokenizerFast):
    """x."""
