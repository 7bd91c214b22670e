"""Learning a WordPiece vocabulary."""

from __future__ import annotations

import subprocess
import sys
from pydoc_data.topics import topics

import pytest

from isobert import MobileBertTokenizerFast
from isobert.errors import TokenizerError
from isobert.tokenization.train import SPECIAL_TOKENS, train_wordpiece

TEXTS = sorted(topics.values())[:40]


def test_the_special_tokens_come_first_and_every_token_once() -> None:
    vocab = train_wordpiece(TEXTS, 800)
    assert tuple(vocab[:5]) == SPECIAL_TOKENS
    assert len(vocab) == len(set(vocab)) == 800


def test_every_run_learns_the_same_vocabulary() -> None:
    code = (
        "from pydoc_data.topics import topics\n"
        "from isobert.tokenization.train import train_wordpiece\n"
        "print('\\n'.join(train_wordpiece(sorted(topics.values())[:40], 800)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.rstrip("\n").split("\n") == train_wordpiece(TEXTS, 800)


def test_the_vocabulary_covers_its_texts() -> None:
    tokenizer = MobileBertTokenizerFast(vocab=train_wordpiece(TEXTS, 800))
    rows = tokenizer(TEXTS, verbose=False)["input_ids"]
    assert sum(row.count(tokenizer.unk_token_id) for row in rows) < 0.01 * sum(map(len, rows))


def test_case_and_accents_are_kept_when_asked() -> None:
    assert "É" in "".join(train_wordpiece(["École École"], 50, lowercase=False))
    assert "é" in "".join(train_wordpiece(["École École"], 50, strip_accents=False))
    assert "é" not in "".join(train_wordpiece(["École École"], 50))


def test_a_small_vocabulary_keeps_the_most_frequent_characters() -> None:
    vocab = train_wordpiece(["a a a a b b b c"], 7)
    assert vocab[5:] == ["a", "b"]


def test_a_wrong_call_is_answered_by_what_was_wrong() -> None:
    with pytest.raises(TokenizerError, match="above 5"):
        train_wordpiece(TEXTS, 5)
    with pytest.raises(TokenizerError, match="Text 1"):
        train_wordpiece(["a", None], 50)  # type: ignore[list-item]
    with pytest.raises(TokenizerError, match="one string"):
        train_wordpiece("a b c", 50)
