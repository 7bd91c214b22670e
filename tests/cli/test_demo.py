"""The demo: the whole story on a user's own text, small; and what stops it before it starts."""

import json
import random

import pytest
from rich.console import Console

from isobert.cli.demo import SMALL, DemoOptions, run_demo
from isobert.core.registry import FAMILIES
from isobert.errors import InputError, UnknownNameError


@pytest.fixture
def texts(tmp_path):
    """Three files whose words mostly tell them apart."""
    chooser = random.Random(0)
    paths = []
    for name, words in {
        "sea": ["ship", "sail", "wave", "salt", "tide", "harbour", "captain", "storm"],
        "kitchen": ["pan", "salt", "oven", "flour", "knife", "butter", "onion", "stir"],
        "garden": ["rose", "soil", "spade", "rain", "seed", "bee", "hedge", "bloom"],
    }.items():
        path = tmp_path / f"{name}.txt"
        path.write_text("\n\n".join(" ".join(chooser.choices(words, k=40)) for _ in range(40)))
        paths.append(path)
    return paths


@pytest.mark.parametrize("family", SMALL)
def test_the_demo_trains_saves_opens_and_agrees_in_both_frameworks(family, texts, tmp_path):
    output = tmp_path / "out"
    sizes = {"vocab_size": 120, "layers": 1, "hidden_size": 64, "max_length": 40}
    options = DemoOptions(output=output, family=family, text=texts, epochs=3, keras_epochs=1, **sizes)
    report = run_demo(options, Console(quiet=True))
    figures = report.figures
    assert report.passed
    assert figures["largest relative error, float64"] < 1e-10
    assert figures["largest relative error, float32"] < 1e-5
    assert figures["PyTorch, held-out accuracy"] == figures["the same checkpoint in Keras"]
    assert figures["trained on in Keras"] == figures["that checkpoint in PyTorch"]
    assert figures["PyTorch, held-out accuracy"] > figures["majority class, held-out accuracy"] + 0.3
    assert json.loads((output / "report.json").read_text())["equal"] is True
    written = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert {
        "learning-curve.png",
        "equality-float32.png",
        "equality-float64.png",
        "pytorch/model.safetensors",
        "pytorch/tokenizer.json",
        "keras/model.safetensors",
        "keras/sentencepiece.model" if family == "rembert" else "keras/vocab.txt",
    } <= written


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "--epochs is 0"),
        ({"layers": 0}, "--layers is 0; it must be at least 1"),
        ({"learning_rate": -1.0}, "--learning-rate is -1.0"),
        ({"topics": 1}, "--topics is 1; it must be at least 2"),
        ({"max_length": -1}, "--max-length is -1"),
    ],
)
def test_an_option_that_cannot_work_is_named_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run_demo(DemoOptions(output=tmp_path / "out", **changes), Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_there_is_a_small_model_of_every_family_that_has_models():
    assert set(SMALL) == {name for name, family in FAMILIES.items() if family.heads}


def test_a_family_without_a_small_model_is_named(monkeypatch, tmp_path):
    monkeypatch.delitem(SMALL, "squeezebert")
    with pytest.raises(InputError, match="no small model of 'squeezebert'; it has mobilebert"):
        run_demo(DemoOptions(output=tmp_path / "out", family="squeezebert"), Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_an_unknown_family_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(UnknownNameError, match="--family.*'mobilebert'"):
        run_demo(DemoOptions(output=tmp_path, family="bert"), Console(quiet=True))


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        run_demo(DemoOptions(output=tmp_path), Console(quiet=True))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
