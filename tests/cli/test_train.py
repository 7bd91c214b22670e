"""`isobert train` and `isobert evaluate`, from files to a checkpoint and its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import isobert
from isobert.cli.main import app
from isobert.core.training.options import TrainingOptions
from support.training import config_for, examples, tokenizer_for

TASK = "text-classification"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with data, a vocabulary, and a config for new models."""
    for name, count, seed in (("train", 40, 0), ("dev", 20, 1)):
        rows = [f"{example['text']}\t{example['label']}\n" for example in examples(TASK, count, seed)]
        (tmp_path / f"{name}.tsv").write_text("".join(rows))
    (tmp_path / "empty.tsv").write_text("")
    config_for(TASK, examples(TASK, 10), TrainingOptions()).replace(id2label={0: "a", 1: "b", 2: "c"}).save_pretrained(
        tmp_path / "new"
    )
    tokenizer_for(TASK).save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def call(*arguments: Any, **options: Any) -> Any:
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    return CliRunner().invoke(app, [*map(str, arguments), *given])


def train(files: Path, *flags: str, **options: Any) -> Any:
    given = {"task": TASK, "model": files / "new", "tokenizer": files / "tokenizer", "train": files / "train.tsv"}
    given |= {"eval": files / "dev.tsv", "output": files / "out", "columns": "text=0,label=1", "framework": "pt"}
    given |= {"epochs": 3, "batch_size": 8, "learning_rate": 5e-3, "dropout": 0, "device": "cpu"}
    return call("train", *flags, **{**given, **options})


def test_a_model_is_trained_measured_and_trained_on(files: Path) -> None:
    result = train(files)
    assert result.exit_code == 0, result.output
    out = files / "out"
    for name in (
        *("config.json", "model.safetensors", "tokenizer.json", "training_options.json", "history.jsonl"),
        *("eval.json", "README.md", "learning_curve.png", "checkpoint/trainer_state.json", "checkpoint/optimizer.pt"),
    ):
        assert (out / name).is_file(), name
    figures = json.loads((out / "eval.json").read_text())
    assert f"{figures['accuracy']:.4f}" in result.output
    # A new model takes its words and labels from tokenizer and data.
    config = isobert.AutoConfig.from_pretrained(out)
    assert (config.label2id, config.vocab_size) == ({"bad": 0, "good": 1}, len(tokenizer_for(TASK)))
    assert "dev.tsv | 20 |" in (out / "README.md").read_text()
    measured = call("evaluate", task=TASK, model=out, eval=files / "dev.tsv", columns="text=0,label=1", framework="pt")
    assert measured.exit_code == 0, measured.output
    assert json.loads((out / "eval.json").read_text()) == pytest.approx(figures)
    # Other labels get a part of their own, which begins anew.
    (files / "train.tsv").write_text("".join(f"the city is {word}\t{word}\n" for word in ("bright", "broken", "awful")))
    again = train(files, model=out, tokenizer=None, output=files / "three", eval=None, epochs=1)
    assert again.exit_code == 0, again.output
    assert list(isobert.AutoConfig.from_pretrained(files / "three").label2id) == ["awful", "bright", "broken"]
    assert not (files / "three" / "eval.json").exists()


def test_a_run_goes_on_when_asked_to(files: Path) -> None:
    assert train(files, "--resume", max_steps=4).exit_code == 0  # there is nothing to go on from yet
    before = (files / "out" / "model.safetensors").read_bytes()
    refused = train(files, max_steps=4)
    assert refused.exit_code == 2
    assert "holds a run already" in refused.stderr
    other = train(files, "--resume", max_steps=4, seed=5)
    assert other.exit_code == 2
    assert "other settings: seed is 5 and was 0" in other.stderr
    assert train(files, "--resume", max_steps=4).exit_code == 0
    assert (files / "out" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": "translation"}, "There is no task 'translation'"),
        ({"task": "embedding"}, "only predicts"),
        ({"model": "mobilebert-huge"}, "the named sizes are mobilebert-uncased"),
        ({"model": "mobilebert-tiny", "tokenizer": None}, "--tokenizer"),
        ({"columns": "text=0,label=7"}, "there is no column 7 for label"),
        ({"columns": "text:0"}, "must be like text=sentence"),
        ({"train": "{files}/empty.tsv"}, "there is no example"),
        ({"train": "{files}/none.tsv"}, "none.tsv"),
        ({"buckets": "a,b"}, "--buckets is 'a,b'"),
        ({"epochs": 0}, "The option epochs is 0; it must be an integer >= 1"),
        ({"device": "npu"}, "'cpu', 'gpu', 'tpu'"),
        ({"device": "tpu"}, "needs torch_xla"),
        ({"max_length": 4000}, "max_length is 4000, and the model has 40 positions"),
        ({"output": "{files}/train.tsv"}, "is a file"),
    ],
)
def test_mistakes_are_one_clear_line(files: Path, given: dict[str, Any], words: str) -> None:
    options = {name: value.format(files=files) if isinstance(value, str) else value for name, value in given.items()}
    result = train(files, **options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("isobert: error: ")
    assert not (files / "out" / "checkpoint").exists()


def test_an_evaluation_of_labels_that_a_model_lacks_is_refused(files: Path) -> None:
    assert train(files, max_steps=1).exit_code == 0
    (files / "other.tsv").write_text("the city is dreary\tfair\n")
    given = {"task": TASK, "model": files / "out", "columns": "text=0,label=1", "framework": "pt"}
    result = call("evaluate", **given, eval=files / "other.tsv")
    assert result.exit_code == 2
    assert "other.tsv:1: label 'fair' is none of the model's, which are 'bad', 'good'" in result.stderr
    elsewhere = call("evaluate", **given, eval=files / "dev.tsv", output=files / "figures" / "dev.json")
    assert elsewhere.exit_code == 0, elsewhere.output
    assert "accuracy" in json.loads((files / "figures" / "dev.json").read_text())
