"""What the tests of tasks share: tokenizers of every kind with the same words, and a config that fits them."""

from __future__ import annotations

from typing import Any

import pytest

from isobert import MobileBertConfig
from isobert.core.config import PretrainedConfig
from support.tokenizers import KINDS, tokenizer_class, vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [
    *("anna", "lives", "in", "paris", "france", "she", "is", "here", "now", "who", "where", "the", "river", "long"),
    *("un", "##aff", "##able", "?", ".", ",", "\u2581"),
    *(f"##{letter}" for letter in LETTERS),
]


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """Return a small tokenizer of each kind: slow and fast, WordPiece and Unigram."""
    return tokenizer_class(request.param)(**vocabulary(request.param, WORDS))


@pytest.fixture
def wordpiece() -> Any:
    """Return a small fast WordPiece tokenizer."""
    return tokenizer_class(KINDS[1])(**vocabulary(KINDS[1], WORDS))


@pytest.fixture
def config() -> PretrainedConfig:
    """Return a config that has room for the tokenizers' ids, and 64 positions."""
    return MobileBertConfig(vocab_size=120, max_position_embeddings=64)
