"""`isobert trim` as it is called: what it prints, what it leaves, what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from isobert import AutoTokenizer, RemBertTokenizerFast
from isobert.cli import trim as command
from isobert.cli.main import app
from isobert.conversion.checkpoint import write_checkpoint
from isobert.conversion.expected import expected_tensors
from support.configs import random_config
from support.languages import SENTENCES, train_model
from support.weights import random_value

TEXT = "\n".join([SENTENCES["English"], "", SENTENCES["Greek"], "coffee [MASK]<a>", SENTENCES["Thai"]]) + "\n"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["trim", *map(str, arguments)], env={"COLUMNS": "200"})


def make_checkpoint(folder: Path, head: str = "ForMaskedLM", **fields: Any) -> Path:
    """Write a RemBERT with a tokenizer of its own, to which a token was added, and text beside it."""
    tokenizer = RemBertTokenizerFast(model=train_model())
    tokenizer.add_tokens(["<a>"])
    drawn = {"vocab_size": len(tokenizer) + 3, "max_position_embeddings": 19, "pad_token_id": 0}
    switches = {"tie_word_embeddings": False, "is_decoder": False}
    config = random_config("rembert", 1, **{**drawn, **switches, **fields})
    # An id beyond the special ones, of a token that the text does not hold.
    config = config.replace(architectures=[f"RemBert{head}"], bos_token_id=2, eos_token_id=900)
    shapes = expected_tensors(config, head)
    write_checkpoint(folder, {name: random_value(name, s, 1).astype(np.float32) for name, s in shapes.items()})
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder.parent / "text.txt").write_text(TEXT, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        ("ForMaskedLM", {}),
        ("ForCausalLM", {"is_decoder": True, "add_cross_attention": True}),
        ("ForMultipleChoice", {}),
        ("Model", {}),
    ],
)
def test_trim_writes_a_smaller_checkpoint_and_shows_that_it_says_the_same(
    head: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    folder = make_checkpoint(tmp_path / "a", head, **fields)
    result = run(folder, tmp_path / "b", "--text", tmp_path / "text.txt")
    assert result.exit_code == 0, result.output
    before, after = (AutoTokenizer.from_pretrained(path) for path in (folder, tmp_path / "b"))
    assert len(after) < len(before) / 2
    lines = TEXT.splitlines()
    assert [after.tokenize(line) for line in lines] == [before.tokenize(line) for line in lines]
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["vocab_size"] == len(after)
    assert after.convert_ids_to_tokens(config["eos_token_id"]) == before.convert_ids_to_tokens(900)
    for text in (
        f"tokens: {len(before) + 3:,} to {len(after):,} (",
        "parameters: ",
        "MB: ",
        "every line of the text is cut into the same pieces",
        "the original and the trimmed model are equal in float32",
        f"written to {tmp_path / 'b'}",
    ):
        assert text in result.stdout, text


def test_the_models_can_be_left_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path / "a")
    monkeypatch.setattr(command, "_compared", None)
    text = "--text", tmp_path / "text.txt"
    result = run(folder, tmp_path / "b", *text, "--no-verify")
    assert result.exit_code == 0, result.output
    assert "equal" not in result.stdout
    monkeypatch.setattr(command, "_framework", lambda: None)
    assert "no framework is installed" in run(folder, tmp_path / "c", *text).stdout


def test_a_model_that_would_say_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    folder = make_checkpoint(tmp_path / "a")
    compare = command.verify_trimmed
    monkeypatch.setattr(command, "verify_trimmed", lambda a, b, inputs, kept: compare(a, b, inputs, kept[::-1]))
    result = run(folder, tmp_path / "b", "--text", tmp_path / "text.txt")
    assert result.exit_code == 2
    assert "would differ, so nothing is written" in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["a", "text.txt"]


def test_several_texts_are_read_and_an_old_result_is_replaced_by_force(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "a")
    (tmp_path / "more.txt").write_text(SENTENCES["Tamil"], encoding="utf-8-sig")
    arguments = folder, tmp_path / "b", "--no-verify", "--text", tmp_path / "text.txt"
    assert run(*arguments).exit_code == 0
    fewer = len(AutoTokenizer.from_pretrained(tmp_path / "b"))
    assert run(*arguments, "--text", tmp_path / "more.txt").exit_code == 2
    assert run(*arguments, "--text", tmp_path / "more.txt", "--force").exit_code == 0
    assert len(AutoTokenizer.from_pretrained(tmp_path / "b")) > fewer


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing.txt", "nothing.txt cannot be read"),
        ("a", "a cannot be read"),
        ("blank.txt", "there is no text"),
        ("latin.txt", "latin.txt is not UTF-8"),
    ],
)
def test_a_mistake_is_answered_in_one_line_with_status_2(text: str, message: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "a")
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    before = sorted(os.listdir(tmp_path))
    result = run(folder, tmp_path / "b", "--text", tmp_path / text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("isobert: error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == before


def test_another_family_and_a_checkpoint_that_is_not_whole_are_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "a")
    text = "--text", tmp_path / "text.txt"
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_hidden_layers": config["num_hidden_layers"] + 1}))
    assert "lacks tensors for every head" in run(folder, tmp_path / "b", *text).stderr
    path.write_text(json.dumps({**config, "model_type": "convbert"}))
    result = run(folder, tmp_path / "b", *text)
    assert result.exit_code == 2
    assert "family 'convbert'; only 'rembert'" in result.stderr
