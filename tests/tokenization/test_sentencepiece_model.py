"""Reading and writing SentencePiece models, whole and damaged."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor

from isobert import RemBertTokenizer, RemBertTokenizerFast
from isobert.errors import TokenizerError
from isobert.tokenization.sentencepiece_model import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, SentencePieceModel
from support.languages import SENTENCES, train_model

classes = pytest.mark.parametrize("cls", [RemBertTokenizer, RemBertTokenizerFast])
SETTINGS: list[dict[str, Any]] = [
    {},
    {"normalization_rule_name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": False},
    {"byte_fallback": True, "user_defined_symbols": ["<new>"], "treat_whitespace_as_suffix": True},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_piece_is_read_as_sentencepiece_reads_it(settings: dict[str, Any]) -> None:
    data = train_model(**settings)
    model, processor = SentencePieceModel.from_bytes(data), SentencePieceProcessor(model_proto=data)
    ids = range(len(processor))
    assert list(model.pieces) == [processor.id_to_piece(i) for i in ids]
    assert list(model.scores) == [processor.get_score(i) for i in ids]
    assert [kind == CONTROL for kind in model.types] == [processor.is_control(i) for i in ids]
    assert [kind == UNKNOWN for kind in model.types] == [processor.is_unknown(i) for i in ids]
    assert [kind == BYTE for kind in model.types] == [processor.is_byte(i) for i in ids]
    assert model.types.count(USER_DEFINED) == len(settings.get("user_defined_symbols", ()))
    assert model.unknown_id == processor.unk_id()
    assert model.byte_fallback == settings.get("byte_fallback", False)
    assert model.add_dummy_prefix == settings.get("add_dummy_prefix", True)
    assert model.remove_extra_whitespaces == settings.get("remove_extra_whitespaces", True)
    assert model.whitespace_as_suffix == settings.get("treat_whitespace_as_suffix", False)
    assert bool(model.charsmap) == (settings.get("normalization_rule_name") != "identity")
    assert model.to_bytes() == data


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_model_that_is_written_anew_segments_alike(settings: dict[str, Any]) -> None:
    data = train_model(**settings)
    model = SentencePieceModel.from_bytes(data)
    written = replace(model, raw=b"").to_bytes()
    assert written != data
    assert SentencePieceModel.from_bytes(written) == model
    texts = list(SENTENCES.values())
    processors = [SentencePieceProcessor(model_proto=content) for content in (data, written)]
    assert processors[0].encode(texts, out_type=str) == processors[1].encode(texts, out_type=str)
    assert processors[0].normalize(texts) == processors[1].normalize(texts)


def test_pieces_can_be_left_out() -> None:
    model = SentencePieceModel.from_bytes(train_model())
    kept = [i for i, kind in enumerate(model.types) if kind != NORMAL or i % 2]
    small = replace(
        model,
        pieces=tuple(model.pieces[i] for i in kept),
        scores=tuple(model.scores[i] for i in kept),
        types=bytes(model.types[i] for i in kept),
        raw=b"",
    )
    tokenizer = RemBertTokenizer(model=small)
    assert tokenizer.vocab_size == len(kept)
    ids = tokenizer(SENTENCES["English"])["input_ids"]
    assert ids == RemBertTokenizerFast(model=small)(SENTENCES["English"])["input_ids"]
    assert max(ids) < len(kept)


@classes
def test_a_missing_model_is_named(cls: type[Any], tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="nowhere.model: there is no such"):
        cls(tmp_path / "nowhere.model")
    with pytest.raises(TokenizerError, match="one file"):
        cls(tmp_path)
    with pytest.raises(TokenizerError, match="needs a vocabulary"):
        cls()


@classes
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4706523\n", "no SentencePiece model"),
        (b"PK\x03\x04" + bytes(100), "no SentencePiece model"),
        (b"\x0a\x02\x0a\x00", "unknown piece"),
        (b"\x12\x02\x18\x01", "no pieces"),
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name(
    cls: type[Any], content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "sentencepiece.model"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=message) as caught:
        cls.from_pretrained(tmp_path)
    assert "sentencepiece.model" in str(caught.value)


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
def test_a_model_of_another_algorithm_is_refused(kind: str) -> None:
    data = train_model(tuple(SENTENCES.values()), model_type=kind, vocab_size=900, character_coverage=1.0)
    with pytest.raises(TokenizerError, match="a Unigram model is needed"):
        RemBertTokenizer(model=data)


def test_a_cut_or_damaged_model_is_refused_or_read_whole_but_never_crashes() -> None:
    data = train_model()
    rng = random.Random(0)
    refused = 0
    for trial in range(300):
        if trial < 150:
            broken = data[: rng.randrange(len(data))]
        else:
            place = rng.randrange(len(data))
            broken = data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
        try:
            RemBertTokenizer(model=broken)("This morning")
        except TokenizerError:
            refused += 1
    assert refused > 140


def test_a_model_that_holds_a_piece_twice_is_refused() -> None:
    model = SentencePieceModel.from_bytes(train_model())
    twice = replace(model, pieces=(*model.pieces[:-1], model.pieces[9]), raw=b"")
    with pytest.raises(TokenizerError, match="twice"):
        RemBertTokenizer(model=twice.to_bytes())


@classes
def test_an_unknown_piece_of_another_name_is_to_be_given(cls: type[Any]) -> None:
    data = train_model(unk_piece="[UNK]")
    with pytest.raises(TokenizerError, match=r"pass unk_token='\[UNK\]'"):
        cls(model=data)
    assert cls(model=data, unk_token="[UNK]").unk_token_id == 1


@classes
def test_a_tokenizer_json_that_prepares_text_otherwise_is_refused(cls: type[Any], tmp_path: Path) -> None:
    RemBertTokenizerFast(model=train_model()).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    whole = path.read_text(encoding="utf-8")
    (tmp_path / "sentencepiece.model").unlink()
    assert cls.from_pretrained(tmp_path).vocab_size > 1000
    path.write_text(whole.replace('"Metaspace"', '"ByteLevel"'), encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        cls.from_pretrained(tmp_path)
