"""Tokenizers' files: any sufficient set opens, what is saved opens again, in ours and in the `tokenizers` library."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from isobert import AutoTokenizer, MobileBertTokenizer, MobileBertTokenizerFast
from isobert.core.registry import FAMILIES
from isobert.errors import CheckpointNotFoundError, TokenizerError
from support.corpus import strings
from support.tokenizers import KINDS, spelled, tokenizer_class, vocabulary, vocabulary_file

WORDS = ["un", "##aff", "##able", "is", "She", "she", "e", "é", "."]
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TEXTS = ["Is She unaffable?", "é e [MASK] Left x", "", "she is.", *strings(200, seed=3)]
CLASSES = (MobileBertTokenizer, MobileBertTokenizerFast)
classes = pytest.mark.parametrize("cls", CLASSES)
kinds = pytest.mark.parametrize("name", KINDS)


def plain(name: str, words: list[str] = WORDS, **settings: Any) -> Any:
    return tokenizer_class(name)(**{**vocabulary(name, words), **settings})


def make(name: str, words: list[str] = WORDS, **settings: Any) -> Any:
    tokenizer = plain(name, words, **settings)
    tokenizer.add_tokens(["left", AddedToken("x", lstrip=True, rstrip=True, normalized=False)])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<S>"]})
    return tokenizer


def rows(tokenizer: Any) -> Any:
    batch = tokenizer(TEXTS, return_offsets_mapping=True)
    return batch["input_ids"], batch["offset_mapping"]


@kinds
@pytest.mark.parametrize(
    "settings", [{}, {"do_lower_case": False}, {"strip_accents": False}, {"do_basic_tokenize": False}]
)
def test_what_either_saves_both_open_with_the_same_rows(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    original = make(name, model_max_length=128, padding_side="left", truncation_side="left", **settings)
    paths = original.save_pretrained(tmp_path)
    assert {Path(p).name for p in paths} == {
        vocabulary_file(name),
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }
    assert {p.name for p in tmp_path.iterdir()} == {Path(p).name for p in paths}
    for other in (kind for kind in KINDS if kind.startswith(name.removesuffix("Fast"))):
        again = tokenizer_class(other).from_pretrained(tmp_path)
        assert rows(again) == rows(original)
        assert (again.model_max_length, again.padding_side, again.truncation_side) == (128, "left", "left")
        assert again.get_vocab() == original.get_vocab()
        assert again.special_tokens_map == original.special_tokens_map
        assert again.settings() == original.settings()


@kinds
def test_the_saved_tokenizer_json_alone_gives_plain_tokenizers_the_same_ids(name: str, tmp_path: Path) -> None:
    # A blank by itself is a piece of every model that is trained.
    original = make(name, words=[*WORDS, "##\u2581"])
    original.save_pretrained(tmp_path)
    bare = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ids, offsets = rows(original)
    found = bare.encode_batch(TEXTS)
    assert [row.ids for row in found] == ids
    assert [row.offsets for row in found] == offsets
    pair = bare.encode("she", "is")
    assert pair.type_ids == original("she", "is")["token_type_ids"]


@kinds
@pytest.mark.parametrize("kept", [["vocabulary"], ["tokenizer.json"], ["vocabulary", "special_tokens_map.json"]])
def test_any_file_with_the_vocabulary_is_enough(name: str, kept: list[str], tmp_path: Path) -> None:
    # Cased, so that the settings that a vocabulary's file does not hold are the defaults.
    settings = {"do_lower_case": False, "keep_accents": True} if name.startswith("RemBert") else {}
    original = plain(name, **settings)
    original.save_pretrained(tmp_path)
    for path in tmp_path.iterdir():
        if path.name not in kept and not (path.name == vocabulary_file(name) and "vocabulary" in kept):
            path.unlink()
    assert rows(tokenizer_class(name).from_pretrained(tmp_path)) == rows(original)


@kinds
def test_tokenizer_json_alone_brings_its_settings_and_added_tokens(name: str, tmp_path: Path) -> None:
    for lower in (False, True):
        original = make(name, do_lower_case=lower)
        original.save_pretrained(tmp_path)
        for path in tmp_path.iterdir():
            if path.name != "tokenizer.json":
                path.unlink()
        again = tokenizer_class(name).from_pretrained(tmp_path)
        assert again.do_lower_case is lower
        assert rows(again) == rows(original)


@kinds
def test_an_argument_outweighs_the_files(name: str, tmp_path: Path) -> None:
    plain(name, do_lower_case=False).save_pretrained(tmp_path)
    cls = tokenizer_class(name)
    upper, lower = (spelled(cls.from_pretrained(tmp_path), [word]) for word in ("She", "she"))
    assert cls.from_pretrained(tmp_path).tokenize("She") == upper
    assert cls.from_pretrained(tmp_path, do_lower_case=True).tokenize("She") == lower
    assert cls.from_pretrained(tmp_path, model_max_length=9).model_max_length == 9


@kinds
def test_the_old_added_tokens_json_is_read(name: str, tmp_path: Path) -> None:
    plain(name).save_vocabulary(tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<b>": len(VOCAB) + 1, "left": len(VOCAB)}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["<b>"]}))
    tokenizer = tokenizer_class(name).from_pretrained(tmp_path)
    assert tokenizer("left <b>")["input_ids"] == [2, len(VOCAB), len(VOCAB) + 1, 3]
    assert tokenizer.additional_special_tokens == ["<b>"]
    assert tokenizer.decode([8, len(VOCAB) + 1], skip_special_tokens=True) == "is"


@kinds
def test_unknown_settings_survive(name: str, tmp_path: Path) -> None:
    plain(name, chat_template="x", extra={"a": [1, None]}).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["chat_template"] == "x"
    tokenizer_class(name).from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "tokenizer_config.json").read_text(encoding="utf-8")) == config


@kinds
def test_a_failed_save_leaves_the_old_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain(name).save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TokenizerError, match="cannot be written as JSON"):
        plain(name, [*WORDS, "more"], unwritable={1, 2}).save_pretrained(tmp_path)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        plain(name, [*WORDS, "more"]).save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@kinds
def test_copies_and_pickles_are_equal_and_independent(name: str) -> None:
    original = make(name, model_max_length=77)
    for other in (pickle.loads(pickle.dumps(original)), copy.deepcopy(original)):
        assert rows(other) == rows(original)
        assert other.model_max_length == 77
        other.add_tokens(["fresh"])
        assert "fresh" not in original.get_vocab()
        assert original.unk_token_id in original("fresh")["input_ids"]
        assert other.tokenize("fresh") == ["fresh"]


@kinds
def test_a_batch_can_be_pickled(name: str) -> None:
    batch = make(name)("she is left", return_tensors="np")
    again = pickle.loads(pickle.dumps(batch))
    assert again.tokens() == batch.tokens()
    assert (again["input_ids"] == batch["input_ids"]).all()


@pytest.mark.parametrize("prefix", [family.prefix for family in FAMILIES.values()])
@pytest.mark.parametrize("fast", [True, False])
def test_auto_tokenizer_picks_the_class_that_the_files_name(prefix: str, fast: bool, tmp_path: Path) -> None:
    name = f"{prefix}Tokenizer{'Fast' if fast else ''}"
    plain(name).save_pretrained(tmp_path)
    assert type(AutoTokenizer.from_pretrained(tmp_path, use_fast=fast)) is tokenizer_class(name)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": prefix.lower()}))
    assert type(AutoTokenizer.from_pretrained(tmp_path, use_fast=fast)) is tokenizer_class(name)


def test_auto_tokenizer_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt9"}))
    with pytest.raises(TokenizerError, match="gpt9"):
        AutoTokenizer.from_pretrained(tmp_path)


@kinds
def test_a_folder_without_a_vocabulary_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=re.escape(vocabulary_file(name))):
        tokenizer_class(name).from_pretrained(tmp_path)


@classes
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\na\n", "'a' stands on line 5 and again on line 6"),
        (b"[PAD]\n[CLS]\n[SEP]\na\n", r"unknown token '\[UNK\]' is not in the vocabulary"),
        (b"\xff\xfe[PAD]\n", "UTF-8"),
        (b"", "empty"),
    ],
)
def test_a_malformed_vocabulary_is_refused_by_name(
    cls: type[Any], content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(TokenizerError, match=message) as caught:
        cls.from_pretrained(tmp_path)
    assert "vocab.txt" in str(caught.value)


@classes
def test_lines_may_end_as_on_windows(cls: type[Any], tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(("\ufeff" + "\r\n".join(VOCAB)).encode())
    assert cls.from_pretrained(tmp_path).get_vocab() == {token: i for i, token in enumerate(VOCAB)}


@kinds
@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"model": {"type": "BPE", "vocab": {}, "merges": []}}',
        '{"model": {"type": "WordPiece", "vocab": 3}}',
        '{"model": {"type": "Unigram", "vocab": 3}}',
        '{"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": null, "byte_fallback": false}}',
        "{}",
    ],
)
def test_a_damaged_tokenizer_json_is_refused_by_name(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        tokenizer_class(name).from_pretrained(tmp_path)


def test_the_python_tokenizer_refuses_text_steps_that_it_does_not_know(tmp_path: Path) -> None:
    MobileBertTokenizerFast(vocab=VOCAB).save_pretrained(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    state["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(TokenizerError, match="ByteLevel"):
        MobileBertTokenizer.from_pretrained(tmp_path)
    assert MobileBertTokenizerFast.from_pretrained(tmp_path).backend_tokenizer.pre_tokenizer is not None


@classes
def test_the_vocabulary_alone_can_be_saved_under_a_prefix(cls: type[Any], tmp_path: Path) -> None:
    (path,) = cls(vocab=VOCAB).save_vocabulary(tmp_path, "small")
    assert Path(path).name == "small-vocab.txt"
    assert Path(path).read_text(encoding="utf-8").split("\n")[:-1] == VOCAB
