"""The Python and the fast tokenizers agree: ids, offsets, words, windows, on text of every kind."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tokenizers import AddedToken

from isobert import MobileBertTokenizer, MobileBertTokenizerFast, RemBertTokenizer, RemBertTokenizerFast
from isobert.errors import TokenizerError
from isobert.tokenization.train import train_wordpiece
from support.corpus import SCRIPTS, strings
from support.languages import train_model

COUNT = 20_000
SETTINGS: dict[str, dict[str, Any]] = {
    "uncased": {},
    "cased": {"do_lower_case": False},
    "accented": {"strip_accents": False},
    "stripped": {"do_lower_case": False, "strip_accents": True},
    "unclean": {"clean_text": False, "tokenize_chinese_chars": False},
    "white space alone": {"do_basic_tokenize": False},
}
UNIGRAM: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as RemBERT's": ({}, {}),
    "bytes": ({"byte_fallback": True}, {}),
    "lower": ({"normalization_rule_name": "nmt_nfkc_cf"}, {"do_lower_case": True, "keep_accents": False}),
    "blanks kept": ({"remove_extra_whitespaces": False}, {"remove_space": False}),
    "user-defined symbols": ({"user_defined_symbols": ["running", "ÉtÉ", "\u0301", "ﬁ"]}, {}),
    "pieces across words": ({"split_by_whitespace": False}, {}),
}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(strings(COUNT))


@pytest.fixture(scope="module")
def vocab(texts: list[str]) -> list[str]:
    return train_wordpiece(texts[:3000], 3000)


def pair_of(vocab: list[str], added: bool, **settings: Any) -> tuple[MobileBertTokenizer, MobileBertTokenizerFast]:
    both = MobileBertTokenizer(vocab=vocab, **settings), MobileBertTokenizerFast(vocab=vocab, **settings)
    for tokenizer in both if added else ():
        add_tokens(tokenizer)
    return both


def unigram_pair(model: dict[str, Any], **settings: Any) -> tuple[RemBertTokenizer, RemBertTokenizerFast]:
    data = train_model(**model)
    both = RemBertTokenizer(model=data, **settings), RemBertTokenizerFast(model=data, **settings)
    for tokenizer in both:
        add_tokens(tokenizer)
    return both


def add_tokens(tokenizer: Any) -> None:
    tokenizer.add_tokens(
        [
            "<new>",
            "Straße",
            "café",
            "two words",
            "a\u0301b",
            AddedToken("Été", normalized=False),
            AddedToken("left", lstrip=True),
            AddedToken("right", rstrip=True),
            AddedToken("whole", single_word=True),
        ]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<S>"]})


def everything(batch: Any) -> Any:
    rows = range(len(batch.encodings))
    return dict(batch), [(batch.tokens(i), batch.word_ids(i), batch.sequence_ids(i)) for i in rows]


def test_the_corpus_covers_what_it_should(texts: list[str]) -> None:
    assert len(texts) >= 20_000
    assert len(SCRIPTS) >= 15
    everything = "".join(texts)
    for mark in (
        "\u200d",
        "\U0001f1e9\U0001f1ea",
        "\U0001f3fd",
        "\u00a0",
        "\x00",
        "\u0301",
        "[MASK]",
        "<new>",
        "\u0378",
    ):
        assert mark in everything
    assert max(len(word) for text in texts for word in text.split()) >= 3000


@pytest.mark.parametrize("added", [False, True], ids=["plain", "added tokens"])
@pytest.mark.parametrize("name", SETTINGS)
def test_ids_offsets_and_words_agree_on_the_fuzz_corpus(
    name: str, added: bool, texts: list[str], vocab: list[str]
) -> None:
    # The first setting sees the whole corpus, the others a share of it.
    some = texts if name == "uncased" else texts[len(name) : len(name) + 4000]
    slow, fast = (tokenizer(some, return_offsets_mapping=True) for tokenizer in pair_of(vocab, added, **SETTINGS[name]))
    for index, text in enumerate(some):
        assert slow["input_ids"][index] == fast["input_ids"][index], ascii(text)
        assert slow["offset_mapping"][index] == fast["offset_mapping"][index], ascii(text)
        assert slow.word_ids(index) == fast.word_ids(index), ascii(text)
        assert slow.tokens(index) == fast.tokens(index), ascii(text)
    unknown = sum(row.count(1) for row in fast["input_ids"]) / sum(map(len, fast["input_ids"]))
    assert unknown < 0.6


@pytest.mark.parametrize("name", UNIGRAM)
def test_unigram_tokenizers_with_added_tokens_agree_on_the_fuzz_corpus(name: str, texts: list[str]) -> None:
    some = texts if name == "as RemBERT's" else texts[len(name) : len(name) + 2000]
    model, settings = UNIGRAM[name]
    pair = unigram_pair(model, **settings)
    slow, fast = (everything(tokenizer(some, return_offsets_mapping=True)) for tokenizer in pair)
    assert slow == fast
    found = {token_id for row in slow[0]["input_ids"] for token_id in row}
    assert set(pair[0].convert_tokens_to_ids(["<new>", "Straße", "Été", "left", "right", "whole"])) <= found


def code_points(every: int) -> list[str]:
    """Return all characters of the planes that hold any (each n-th), and some of the empty and private ones."""
    full = [*range(0xD800), *range(0xF900, 0x32400), *range(0xE0000, 0xE01F0)]
    rest = [*range(0xE000, 0xF900), *range(0x32400, 0xE0000), *range(0xE01F0, 0x110000)]
    return [chr(c) for c in full[::every] + rest[:: 50 * every]]


@pytest.mark.parametrize(
    ("name", "characters"),
    [
        ("uncased", code_points(1)),
        ("cased", code_points(9)),
        ("unclean", code_points(7)),
        pytest.param("uncased", [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000], marks=pytest.mark.slow),
    ],
    ids=["uncased", "cased", "unclean", "uncased, every code point there is"],
)
def test_every_code_point_is_treated_alike(name: str, characters: list[str]) -> None:
    for start in range(0, len(characters), 24_000):
        chosen = characters[start : start + 24_000]
        # Each character stands inside a word and by itself; offsets show which were removed, split off or spread.
        words = [
            "a" + "a".join(chosen[i : i + 6]) + "a " + " ".join(chosen[i : i + 6]) for i in range(0, len(chosen), 6)
        ]
        lines = [" ".join(words[i : i + 50]) for i in range(0, len(words), 50)]
        # All of them are in the vocabulary, as are capitals' small letters, so that none hides behind [UNK].
        letters = sorted({c for character in chosen for c in (character, *character.lower()) if not c.isspace()})
        tokens = dict.fromkeys(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, "a", *(f"##{c}" for c in letters), "##a"]
        )
        slow, fast = pair_of(list(tokens), False, **SETTINGS[name])
        got, wanted = (t(lines, return_offsets_mapping=True) for t in (slow, fast))
        assert got["input_ids"] == wanted["input_ids"]
        assert got["offset_mapping"] == wanted["offset_mapping"]


def random_call(rng: random.Random, texts: list[str]) -> tuple[Any, Any, dict[str, Any]]:
    count, words, pair = rng.randint(1, 5), rng.random() < 0.3, rng.random() < 0.5

    def batch() -> list[Any]:
        chosen = [rng.choice(texts) for _ in range(count)]
        return [text.split() for text in chosen] if words else chosen

    first, second = batch(), batch() if pair else None
    if rng.random() < 0.3:
        first, second = first[0], second[0] if second else None
    return (
        first,
        second,
        {
            "is_split_into_words": words,
            "add_special_tokens": rng.random() < 0.8,
            "padding": rng.choice([False, True, "max_length"]),
            "truncation": rng.choice([False, None, True, "only_first", "only_second"]),
            "max_length": rng.choice([None, 2, 3, 4, 5, 7, 9, 16, 64]),
            "stride": rng.choice([0, 0, 1, 2, 4]),
            "pad_to_multiple_of": rng.choice([None, None, 8]),
            "padding_side": rng.choice([None, "left", "right"]),
            "return_overflowing_tokens": rng.random() < 0.5,
            "return_special_tokens_mask": True,
            "return_offsets_mapping": True,
            "return_length": True,
            "split_special_tokens": rng.random() < 0.1,
            "verbose": False,
        },
    )


def outcome(tokenizer: Any, first: Any, second: Any, arguments: dict[str, Any]) -> Any:
    try:
        return everything(tokenizer(first, second, **arguments))
    except TokenizerError as error:
        return str(error)


@pytest.mark.parametrize(("algorithm", "calls"), [("WordPiece", 2500), ("Unigram", 2500)])
def test_every_argument_means_the_same_to_both(
    algorithm: str, calls: int, texts: list[str], vocab: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    pair: tuple[Any, Any] = pair_of(vocab, True) if algorithm == "WordPiece" else unigram_pair({})
    slow, fast = pair
    rng = random.Random(1)
    refused = 0
    for _ in range(calls):
        first, second, arguments = random_call(rng, texts)
        slow.truncation_side = fast.truncation_side = rng.choice(["left", "right"])
        got, wanted = (outcome(tokenizer, first, second, arguments) for tokenizer in (slow, fast))
        assert got == wanted, (first, second, arguments)
        refused += isinstance(got, str)
    assert 100 < refused < 1500
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize("algorithm", ["WordPiece", "Unigram"])
def test_both_have_the_same_vocabulary_and_the_same_special_tokens(algorithm: str, vocab: list[str]) -> None:
    pair: tuple[Any, Any] = pair_of(vocab, True) if algorithm == "WordPiece" else unigram_pair({})
    slow, fast = pair
    assert slow.get_vocab() == fast.get_vocab() == fast.backend_tokenizer.get_vocab()
    assert len(slow) == len(fast) == fast.backend_tokenizer.get_vocab_size()
    assert slow.special_tokens_map == fast.special_tokens_map
    assert slow.added_tokens_encoder == fast.added_tokens_encoder


def test_a_very_long_word_takes_time_in_proportion_to_its_length(vocab: list[str]) -> None:
    slow, _ = pair_of(vocab, False)
    word = "a" * 200_000
    assert slow(word)["input_ids"] == [2, 1, 3]
    assert slow(word, return_offsets_mapping=True)["offset_mapping"][1] == (0, 200_000)
    limit = 100
    assert slow("a" * limit)["input_ids"] != [2, 1, 3]
    assert slow("a" * (limit + 1))["input_ids"] == [2, 1, 3]
