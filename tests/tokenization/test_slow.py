"""The tokenizers in Python remember words, and long ones cost them no more than their length."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from isobert import MobileBertTokenizer, RemBertTokenizer
from isobert.tokenization import wordpiece_tokenizers
from isobert.tokenization.wordpiece import longest_pieces
from support.corpus import strings
from support.languages import SENTENCES, train_model
from support.tokenizers import KINDS, tokenizer_class, vocabulary

WORDS = ["un", "##aff", "##able", "is", "she", "a", "##a", "b", "##b", "c", "##c", "?", "."]
LENGTH = 100_000


def make(**settings: Any) -> MobileBertTokenizer:
    return MobileBertTokenizer(**vocabulary("MobileBertTokenizer", WORDS), **settings)


def columns(tokenizer: Any, text: str) -> tuple[Any, ...]:
    row = tokenizer(text, verbose=False).encodings[0]
    return row.ids, row.tokens, row.offsets, row.word_ids


def test_what_has_been_seen_before_changes_nothing() -> None:
    tokenizer, texts = make(), list(strings(300))
    first = [columns(tokenizer, text) for text in texts]
    assert tokenizer._remembered
    assert [columns(tokenizer, text) for text in texts] == first
    assert [columns(make(), text) for text in texts[:50]] == first[:50]


def test_a_token_that_is_added_is_found_in_a_word_that_was_seen_before() -> None:
    tokenizer = make()
    assert tokenizer.tokenize("unaffable cab") == ["un", "##aff", "##able", "c", "##a", "##b"]
    tokenizer.add_tokens(["affable", "CAB"])
    assert tokenizer.tokenize("unaffable cab") == ["un", "affable", "CAB"]
    assert tokenizer.tokenize("she is a") == ["she", "is", "a"]


def test_another_unknown_token_counts_for_words_that_were_seen_before() -> None:
    tokenizer = make()
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize("xyz")) == [1]
    tokenizer.unk_token = "she"
    assert tokenizer("xyz", add_special_tokens=False)["input_ids"] == [tokenizer.convert_tokens_to_ids("she")]


def test_only_so_many_words_are_remembered_and_no_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordpiece_tokenizers, "_REMEMBERED", 100)
    tokenizer = make()
    for number in range(1000):
        tokenizer(f"she{number} {'a' * 50}{number} {'b' * 100}{number}")
    assert len(tokenizer._remembered) <= 100
    assert max(map(len, tokenizer._remembered)) < 64


class Counted(Mapping[str, int]):
    """A vocabulary that counts how often it is looked into."""

    def __init__(self, content: dict[str, int]) -> None:
        self.content, self.count = content, 0

    def __getitem__(self, key: str) -> int:
        self.count += 1
        return self.content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)


def test_a_word_of_any_length_is_looked_up_in_steps_no_longer_than_the_longest_token() -> None:
    vocab = Counted({"a": 1, "##a": 2, "##ab": 3})
    pieces = longest_pieces("a" * 5000, vocab, 0, limit=10_000, longest=4)
    assert pieces == [(1, 0, 1), *((2, place, place + 1) for place in range(1, 5000))]
    assert vocab.count <= 4 * 5000


LONG = {
    "one word": "a" * LENGTH,
    "three letters": "abc" * (LENGTH // 3),
    "accents": "a" + "\u0301\u0323" * (LENGTH // 2),
    "marks that move": "a\u302e\u0327" * (LENGTH // 3),
    "no blanks": "\u4e2d\u6587" * (LENGTH // 2),
    "blanks": "a" + " " * LENGTH + "b",
    "punctuation": "!?" * (LENGTH // 2),
    "half a token": "[MAS" * (LENGTH // 4),
    "tokens": "[MASK]" * (LENGTH // 6),
    "blanks and tokens": (" " * 300 + "[MASK]") * (LENGTH // 306),
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
@pytest.mark.parametrize("name", KINDS)
def test_a_hundred_thousand_characters_without_a_break_take_no_minutes(name: str, text: str) -> None:
    # In work of the square of the length, each takes minutes; now a fraction of a second, on an idle machine.
    words = [word for word in WORDS if word not in "abc"]  # which Unigram would have twice
    tokenizer = tokenizer_class(name)(**vocabulary(name, words))
    start = time.process_time()
    row = tokenizer(text, verbose=False).encodings[0]
    assert time.process_time() - start < 10
    assert row.offsets[-2][1] <= len(text)


def test_a_word_may_be_as_long_as_one_likes() -> None:
    tokenizer = make(max_input_chars_per_word=10 * LENGTH)
    start = time.process_time()
    assert len(tokenizer("abc" * (LENGTH // 3), verbose=False)["input_ids"]) == LENGTH // 3 * 3 + 2
    assert time.process_time() - start < 10


def test_a_unigram_piece_of_a_plain_text_is_the_text_at_its_place() -> None:
    tokenizer = RemBertTokenizer(model=train_model())
    found = 0
    for text in [*SENTENCES.values(), "a", "\u4e2d", "?", "x y", "plain words of old"]:
        row = tokenizer(text, add_special_tokens=False).encodings[0]
        if not tokenizer._segmenter.is_plain(text) or tokenizer.model.byte_fallback:
            continue
        found += 1
        for number, (token, (start, stop)) in enumerate(zip(row.tokens, row.offsets, strict=True)):
            spelled = token.replace("\u2581", " ")
            # The blank before the text is of none of its characters; alone, it lies on the first.
            wanted = spelled[1:] or text[0] if number == 0 else spelled
            assert text[start:stop] == wanted
    assert found > 10
