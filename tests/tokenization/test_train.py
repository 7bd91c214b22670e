"""Learning a WordPiece vocabulary, and a Unigram model."""

from __future__ import annotations

import subprocess
import sys
from pydoc_data.topics import topics

import pytest

from isobert import MobileBertTokenizerFast, RemBertTokenizer, RemBertTokenizerFast
from isobert.errors import TokenizerError
from isobert.tokenization.sentencepiece_model import SentencePieceModel
from isobert.tokenization.train import SPECIAL_TOKENS, UNIGRAM_SPECIAL_TOKENS, train_unigram, train_wordpiece

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


def test_a_unigram_model_begins_with_the_special_tokens_and_has_every_piece_once() -> None:
    pieces = SentencePieceModel.from_bytes(train_unigram(TEXTS, 800)).pieces
    assert tuple(pieces[:5]) == UNIGRAM_SPECIAL_TOKENS
    assert len(pieces) == len(set(pieces)) == 800


def test_the_same_texts_give_the_same_unigram_model() -> None:
    assert train_unigram(TEXTS, 400) == train_unigram(TEXTS, 400)


def test_a_unigram_model_covers_its_texts_and_gives_them_back() -> None:
    model = train_unigram(TEXTS, 800)
    tokenizer = RemBertTokenizerFast(model=model)
    rows = tokenizer(TEXTS, verbose=False)["input_ids"]
    assert sum(row.count(tokenizer.unk_token_id) for row in rows) < 0.01 * sum(map(len, rows))
    line = "The assert statement exists in two forms."
    for one in (tokenizer, RemBertTokenizer(model=model)):
        assert one.decode(one(line)["input_ids"], skip_special_tokens=True) == line


def test_fewer_pieces_come_back_if_the_texts_hold_no_more() -> None:
    assert len(SentencePieceModel.from_bytes(train_unigram(["aha ah ha"] * 5, 500)).pieces) < 50


def test_a_text_longer_than_sentencepieces_lines_is_learned_from() -> None:
    pieces = SentencePieceModel.from_bytes(train_unigram(["wort " * 2000], 30)).pieces
    assert any("wort" in piece for piece in pieces)


def test_a_wrong_call_of_the_unigram_trainer_is_answered_by_what_was_wrong() -> None:
    with pytest.raises(TokenizerError, match="No model of 8 pieces can be learned from 40 texts"):
        train_unigram(TEXTS, 8)
    with pytest.raises(TokenizerError, match="No model of 50 pieces can be learned from 0 texts"):
        train_unigram([], 50)
    with pytest.raises(TokenizerError, match="Text 1 is None"):
        train_unigram(["a", None], 50)  # type: ignore[list-item]
    with pytest.raises(TokenizerError, match="one string"):
        train_unigram("a b c", 50)
