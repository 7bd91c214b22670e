"""Trimming a checkpoint's tables of words: what is cut, what stays, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import isobert
from isobert.conversion.checkpoint import open_checkpoint, write_checkpoint
from isobert.conversion.expected import expected_tensors
from isobert.conversion.trim import token_ids, trim, verify_trimmed
from isobert.errors import CheckpointError, CheckpointNotFoundError, InputError
from support.configs import random_config
from support.inputs import random_inputs
from support.weights import random_value

WORDS = "rembert.embeddings.word_embeddings.weight"
DECODER, BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"
KEPT = (0, 1, 2, 3, 5, 8, 13, 21, 34)


class Tokenizer:
    """Stands for one: it leaves a file."""

    def save_pretrained(self, folder: Any) -> tuple[str, ...]:
        path = Path(folder) / "tokenizer.json"
        path.write_text("{}")
        return (str(path),)


def make_checkpoint(folder: Path, head: str = "ForMaskedLM", seed: int = 2, **fields: Any) -> dict[str, np.ndarray]:
    """Write a random RemBERT with a config, which names tokens, and tokenizer files; return its tensors."""
    drawn = {"vocab_size": 40, "tie_word_embeddings": False, "is_decoder": False, "pad_token_id": 1}
    config = random_config("rembert", seed, **{**drawn, **fields})
    shapes = expected_tensors(config, head)
    tensors = {name: random_value(name, shape, 1).astype(np.float32) for name, shape in shapes.items()}
    write_checkpoint(folder, tensors)
    config.replace(bos_token_id=8, eos_token_id=312, architectures=[f"RemBert{head}"]).save_pretrained(folder)
    (folder / "sentencepiece.model").write_text("the old one")
    (folder / "added_tokens.json").write_text('{"old": 40}')
    return tensors


def read_all(folder: Path) -> dict[str, np.ndarray]:
    with open_checkpoint(folder) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.names()}


def config_of(folder: Path, file: str = "config.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / file).read_text())
    return content


def change_config(folder: Path, file: str = "config.json", **fields: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**(config_of(folder, file) if path.is_file() else {}), **fields}))


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        ("ForMaskedLM", {}),
        ("ForMaskedLM", {"tie_word_embeddings": True}),
        ("ForCausalLM", {"is_decoder": True, "add_cross_attention": True}),
        ("ForTokenClassification", {}),
    ],
)
def test_the_tables_keep_their_rows_and_everything_else_stays(
    head: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    tensors = make_checkpoint(tmp_path / "a", head, **fields)
    report = trim(tmp_path / "a", tmp_path / "b", Tokenizer(), KEPT)
    found = read_all(tmp_path / "b")
    assert sorted(found) == sorted(tensors)
    cut = {name for name in (WORDS, DECODER, BIAS) if name in tensors}
    assert set(report.tables) == cut
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor[list(KEPT)] if name in cut else tensor, err_msg=name)
        assert found[name].dtype == tensor.dtype
    assert report.tokens == (40, 9)
    for counts, unit in ((report.parameters, 1), (report.bytes, 4)):
        assert counts == tuple(unit * sum(t.size for t in held.values()) for held in (tensors, found))


def test_configs_follow_and_nothing_of_the_old_tokenizer_is_left(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "a")
    change_config(tmp_path / "a", "generation_config.json", eos_token_id=[13, 3, 2000], pad_token_id=-1, top_k=8)
    change_config(tmp_path / "a", note={"kept": 8}, sep_token_id=None)
    assert sorted(token_ids(tmp_path / "a")) == [1, 3, 8, 13]
    trim(tmp_path / "a", tmp_path / "b", Tokenizer(), KEPT)
    before, after = config_of(tmp_path / "a"), config_of(tmp_path / "b")
    assert after == before | {"vocab_size": 9, "bos_token_id": 5, "pad_token_id": 1}
    assert after["eos_token_id"] == 312
    generation = config_of(tmp_path / "b", "generation_config.json")
    assert generation == {"eos_token_id": [6, 3, 2000], "pad_token_id": -1, "top_k": 8}
    wanted = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(os.listdir(tmp_path / "b")) == wanted


def test_any_form_of_checkpoint_can_be_trimmed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    tensors = make_checkpoint(tmp_path / "a", "Model")
    os.unlink(tmp_path / "a" / "model.safetensors")
    # The encoder alone, without its prefix, under names of TensorFlow 1, in shards.
    old = {
        name.removeprefix("rembert.").replace("LayerNorm.weight", "LayerNorm.gamma"): tensor.astype(ml_dtypes.bfloat16)
        for name, tensor in tensors.items()
    }
    write_checkpoint(tmp_path / "a", old, form="torch-bin", max_shard_size=900)
    report = trim(tmp_path / "a", tmp_path / "b", Tokenizer(), KEPT)
    found = read_all(tmp_path / "b")
    assert report.tables == ("embeddings.word_embeddings.weight",)
    assert "embeddings.LayerNorm.weight" in found
    rows = found["embeddings.word_embeddings.weight"]
    assert rows.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(rows, old["embeddings.word_embeddings.weight"][list(KEPT)])


def test_the_destination_appears_only_when_everything_is_in_it_and_was_checked(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "a")
    seen: list[Any] = []

    def progress(name: str, done: int, total: int) -> None:
        seen.append(done / total)

    def refuse(folder: Path) -> None:
        assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors", "tokenizer.json"]
        assert not (tmp_path / "b").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trim(tmp_path / "a", tmp_path / "b", Tokenizer(), KEPT, check=refuse, progress=progress)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert os.listdir(tmp_path) == ["a"]


def test_an_existing_destination_is_replaced_only_by_force(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "a")
    trim(tmp_path / "a", tmp_path / "b", Tokenizer(), KEPT)
    with pytest.raises(InputError, match="force"):
        trim(tmp_path / "a", tmp_path / "b", Tokenizer(), KEPT[:8])
    assert config_of(tmp_path / "b")["vocab_size"] == 9
    trim(tmp_path / "a", tmp_path / "b", Tokenizer(), KEPT[:8], force=True)
    assert config_of(tmp_path / "b")["vocab_size"] == 8
    with pytest.raises(InputError, match="itself"):
        trim(tmp_path / "a", tmp_path / "a", Tokenizer(), KEPT, force=True)


@pytest.mark.parametrize(
    ("fields", "kept", "message"),
    [
        ({"model_type": "mobilebert"}, KEPT, "family 'mobilebert'; only 'rembert'"),
        ({"bos_token_id": 9}, KEPT, "bos_token_id is 9, a token that is not kept"),
        ({"bad_words_ids": [[3]]}, KEPT, "bad_words_ids"),
        ({}, (*KEPT, 40), "vocab_size 40, and the tokenizer 41 tokens.*resize_token_embeddings"),
        ({}, (), "vocab_size 40"),
        ({"vocab_size": 41}, KEPT, "has 40 rows, and config.json has vocab_size 41"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_appears(
    fields: dict[str, Any], kept: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    make_checkpoint(tmp_path / "a")
    change_config(tmp_path / "a", **fields)
    with pytest.raises((InputError, CheckpointError), match=message):
        trim(tmp_path / "a", tmp_path / "b", Tokenizer(), kept)
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_without_config_or_words_is_refused(tmp_path: Path) -> None:
    tensors = make_checkpoint(tmp_path / "a")
    del tensors[WORDS]
    write_checkpoint(tmp_path / "a", tensors)
    with pytest.raises(CheckpointError, match=rf"holds no tensor {WORDS}"):
        trim(tmp_path / "a", tmp_path / "b", Tokenizer(), KEPT)
    os.unlink(tmp_path / "a" / "config.json")
    with pytest.raises(CheckpointNotFoundError, match=r"config\.json"):
        trim(tmp_path / "a", tmp_path / "b", Tokenizer(), KEPT)


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        ("ForMaskedLM", {}),
        ("ForMaskedLM", {"tie_word_embeddings": True}),
        ("ForCausalLM", {"is_decoder": True}),
        ("ForMultipleChoice", {}),
    ],
)
@pytest.mark.parametrize("framework", ["pt", "tf"])
def test_the_trimmed_model_computes_the_same(framework: str, head: str, fields: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip({"pt": "torch", "tf": "keras"}[framework])
    make_checkpoint(tmp_path / "a", head, **fields)
    trim(tmp_path / "a", tmp_path / "b", Tokenizer(), KEPT)
    cls = getattr(isobert, f"{'TF' * (framework == 'tf')}RemBert{head}")
    original, trimmed = (cls.from_pretrained(tmp_path / name, dtype="float64") for name in "ab")
    inputs = random_inputs(trimmed.config, head, 3, labels=False)
    assert inputs["input_ids"].max() < len(KEPT)
    found = verify_trimmed(original, trimmed, inputs, KEPT)
    assert found.passed, found.summary()
    assert "logits" in {row.name for row in found.rows}
    # Another row's numbers are noticed, at the input and at the output.
    wrong = verify_trimmed(original, trimmed, inputs, (*KEPT[:-1], KEPT[-1] + 1))
    assert not wrong.passed
