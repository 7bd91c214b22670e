"""ConvBert's tokenizers: BERT's WordPiece, uncased by default."""

from __future__ import annotations

from .wordpiece import WordPieceTokenizer, WordPieceTokenizerFast


class ConvBertTokenizer(WordPieceTokenizer):
    """x."""


class ConvBertTokenizerFast(WordPieceTokenizerFast):
    """x."""
