"""A trimmed tokenizer cuts the texts it was trimmed to as the whole one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken

from isobert import RemBertTokenizer, RemBertTokenizerFast
from isobert.errors import TokenizerError
from isobert.tokenization import trim
from isobert.tokenization.sentencepiece_model import CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, SentencePieceModel
from isobert.tokenization.trim import trim_tokenizer
from support.corpus import strings
from support.languages import SENTENCES, train_model

TEXTS = [*SENTENCES.values(), *strings(300, seed=11)][20:]
OTHERS = [*SENTENCES.values(), *strings(300, seed=12)]
MODELS: dict[str, dict[str, Any]] = {
    "as RemBERT's": {},
    "identity": {"normalization_rule_name": "identity"},
    "bytes": {"byte_fallback": True},
    "user-defined symbols": {"user_defined_symbols": ["running", "ÉtÉ", "\u0301", "two words"]},
    "no prefix": {"add_dummy_prefix": False},
    "pieces of blanks": {"remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True},
    "blank as suffix": {"treat_whitespace_as_suffix": True},
    "pieces across words": {"split_by_whitespace": False},
}
classes = pytest.mark.parametrize("cls", [RemBertTokenizer, RemBertTokenizerFast])


def handmade(pieces: dict[str, float], *kinds: int) -> SentencePieceModel:
    special = {"<pad>": CONTROL, "<unk>": UNKNOWN, "[CLS]": CONTROL, "[SEP]": CONTROL, "[MASK]": CONTROL}
    types = bytes([*special.values(), *(kinds or [NORMAL] * len(pieces))])
    return SentencePieceModel((*special, *pieces), (0.0,) * 5 + tuple(pieces.values()), types)


@classes
@pytest.mark.parametrize("name", MODELS)
def test_the_pieces_and_places_of_the_texts_stay(cls: type[Any], name: str) -> None:
    whole = cls(model=train_model(**MODELS[name]))
    small, kept = trim_tokenizer(whole, TEXTS)
    assert type(small) is cls
    assert len(small) == len(kept) < 0.8 * len(whole)
    before, after = (t(TEXTS, return_offsets_mapping=True) for t in (whole, small))
    assert [[kept[i] for i in row] for row in after["input_ids"]] == before["input_ids"]
    assert after["offset_mapping"] == before["offset_mapping"]
    assert [after.tokens(i) for i in range(len(TEXTS))] == [before.tokens(i) for i in range(len(TEXTS))]


@pytest.mark.parametrize("name", MODELS)
def test_pieces_keep_their_order_scores_and_kinds(name: str) -> None:
    model = SentencePieceModel.from_bytes(train_model(**MODELS[name]))
    small, kept = trim_tokenizer(RemBertTokenizer(model=model), TEXTS)
    assert list(kept) == sorted(kept)
    found = SentencePieceProcessor(model_proto=small.model.to_bytes())
    assert [found.id_to_piece(i) for i in range(len(kept))] == [model.pieces[i] for i in kept]
    assert [found.get_score(i) for i in range(len(kept))] == [model.scores[i] for i in kept]
    assert list(small.model.types) == [model.types[i] for i in kept]
    assert {i for i, kind in enumerate(model.types) if kind != NORMAL} <= set(kept)


@pytest.mark.parametrize("name", MODELS)
def test_sentencepiece_itself_reads_the_trimmed_model_so_on_any_text(name: str) -> None:
    small, _ = trim_tokenizer(RemBertTokenizerFast(model=train_model(**MODELS[name]), remove_space=False), TEXTS)
    processor = SentencePieceProcessor(model_proto=small.model.to_bytes())
    found = small(OTHERS, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert found == processor.encode(OTHERS)


def test_a_letter_of_the_texts_is_never_unknown_in_another_order() -> None:
    whole = RemBertTokenizer(model=train_model(character_coverage=1.0))
    text = SENTENCES["Greek"]
    small, _ = trim_tokenizer(whole, [text])
    letters = sorted({*text} - {" "})
    assert small.unk_token_id not in small("".join(letters) + " " + "".join(reversed(letters)))["input_ids"]
    assert small.unk_token_id in small(SENTENCES["Thai"])["input_ids"]


@classes
def test_added_tokens_and_special_ones_get_new_ids_and_keep_their_flags(cls: type[Any], tmp_path: Path) -> None:
    whole = cls(model=train_model(), model_max_length=77, padding_side="left", do_lower_case=True, note=[1])
    whole.add_tokens([AddedToken("<a>", rstrip=True), "never seen", SPACE + "kahawa"])
    whole.add_special_tokens({"additional_special_tokens": ["<S>"], "eos_token": "<e>"})
    texts = ["This <a> morning [MASK]", "<S>coffee<e>"]
    small, kept = trim_tokenizer(whole, texts)
    assert set(whole.added_tokens_decoder) <= set(kept)
    assert list(small.added_tokens_decoder) == [kept.index(i) for i in whole.added_tokens_decoder]
    for tokenizer in (small, cls.from_pretrained(small.save_pretrained(tmp_path) and tmp_path)):
        assert [str(t) for t in tokenizer.added_tokens_decoder.values()] == [
            str(t) for t in whole.added_tokens_decoder.values()
        ]
        assert tokenizer.special_tokens_map == whole.special_tokens_map
        assert (tokenizer.model_max_length, tokenizer.padding_side, tokenizer.do_lower_case) == (77, "left", True)
        assert tokenizer.unknown_settings["note"] == [1]
        rows = [[kept[i] for i in row] for row in tokenizer(texts)["input_ids"]]
        assert rows == whole(texts)["input_ids"]


def test_a_special_token_that_there_is_not_does_not_come_back() -> None:
    whole = RemBertTokenizerFast(model=train_model(), pad_token=None, mask_token=None)
    small, _ = trim_tokenizer(whole, ["a"])
    assert (small.pad_token, small.mask_token) == (None, None)
    assert small.special_tokens_map == whole.special_tokens_map


def test_the_whole_tokenizer_stays_as_it_is() -> None:
    whole = RemBertTokenizer(model=train_model())
    before = whole.backend_json(), whole.model.to_bytes()
    trim_tokenizer(whole, TEXTS)
    assert (whole.backend_json(), whole.model.to_bytes()) == before


def test_the_cost_of_an_unknown_character_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    # An unknown character costs 10 more than the worst piece. Were "zz" left out, "xy" and an unknown "z" would win.
    model = handmade({"▁x": -12.0, "yz": -12.0, "▁xy": -1.0, "zz": -50.0, "q": -3.0})
    whole, texts = RemBertTokenizer(model=model), ["xyz", "xy"]
    assert whole.tokenize("xyz") == ["▁x", "yz"]
    small, kept = trim_tokenizer(whole, texts)
    assert small.tokenize("xyz") == ["▁x", "yz"]
    assert [model.pieces[i] for i in kept[5:]] == ["▁x", "yz", "▁xy", "zz"]
    monkeypatch.setattr(trim, "_kept", lambda *_: tuple(range(8)))
    with pytest.raises(
        TokenizerError, match=r"Text 1 \('xyz'\) would be cut otherwise.*'▁x yz' would become '▁xy <unk>'"
    ):
        trim_tokenizer(whole, texts)


def test_of_ways_that_are_equally_good_the_same_one_wins() -> None:
    # Each of "ab" + "c" and "a" + "bc" adds up to -2; the one that ends in the longer piece is found first.
    model = handmade({"▁": -1.0, "ab": -1.0, "c": -1.0, "a": -1.0, "bc": -1.0, "b": -9.0, "abcd": -1.0})
    whole = RemBertTokenizer(model=model)
    for text in ("abc", "abcabc", "bcabc aabc"):
        small, _ = trim_tokenizer(whole, [text])
        assert small.tokenize(text) == whole.tokenize(text)


def test_unused_pieces_go_and_ids_asked_for_stay() -> None:
    model = handmade({"▁x": -1.0, "▁y": -2.0, "▁z": -3.0, "▁v": -2.5, "old": -4.0}, *[NORMAL] * 4, UNUSED)
    whole = RemBertTokenizer(model=model)
    assert trim_tokenizer(whole, ["y"]).kept == (0, 1, 2, 3, 4, 5, 6, 7)
    assert trim_tokenizer(whole, ["y"], also=[8, 9, 10, 999, -1]).kept == (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "one string"),
        ([], "no text"),
        (["", "  "], "no text"),
        (iter(["a"]), "twice"),
        (["a", "a\ud800b"], "surrogate"),
    ],
    ids=["a string", "nothing", "blanks", "an iterator", "a surrogate"],
)
def test_texts_that_cannot_be_trimmed_to_are_refused(texts: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        trim_tokenizer(RemBertTokenizer(model=train_model()), texts)


def test_a_tokenizer_that_draws_at_random_is_refused() -> None:
    sampling = {"enable_sampling": True, "alpha": 0.1, "nbest_size": -1}
    with pytest.raises(TokenizerError, match="at random"):
        trim_tokenizer(RemBertTokenizer(model=train_model(), sp_model_kwargs=sampling), ["a"])
    off = RemBertTokenizer(model=train_model(), sp_model_kwargs={**sampling, "enable_sampling": False})
    assert trim_tokenizer(off, ["a"]).tokenizer.settings()["sp_model_kwargs"]["enable_sampling"] is False
