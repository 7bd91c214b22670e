"""A checkpoint goes from either framework to the other with every bit in place, between heads and the bare encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from isobert.core.registry import FAMILIES, model_class
from support.configs import random_config
from support.inputs import random_inputs
from support.weights import parameters, randomise

PAIRS = [(family, head) for family, entry in FAMILIES.items() for head in entry.heads]
FAMILIES_WITH_MODELS = [family for family, entry in FAMILIES.items() if entry.heads]
WAYS = [("pt", "tf"), ("tf", "pt")]


def new_model(family: str, head: str, framework: str, seed: int = 1, **overrides: Any) -> Any:
    return randomise(model_class(family, head, framework)(random_config(family, seed, **overrides)), seed)


def assert_identical(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize(("writer", "reader"), WAYS)
@pytest.mark.parametrize(("family", "head"), PAIRS)
@pytest.mark.parametrize("tied", [True, False])
def test_what_one_framework_saves_the_other_opens_bit_for_bit(
    family: str, head: str, writer: str, reader: str, tied: bool, tmp_path: Path
) -> None:
    model = new_model(family, head, writer, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    opened, report = model_class(family, head, reader).from_pretrained(tmp_path, output_loading_info=True)
    assert not report
    assert opened.config.replace(architectures=None) == model.config
    assert_identical(parameters(opened), parameters(model))


@pytest.mark.parametrize(("family", "head"), PAIRS)
@pytest.mark.parametrize("tied", [True, False])
def test_both_frameworks_write_the_same_tensors_under_the_same_names(
    family: str, head: str, tied: bool, tmp_path: Path
) -> None:
    files = {}
    for framework in ("pt", "tf"):
        new_model(family, head, framework, tie_word_embeddings=tied).save_pretrained(tmp_path / framework)
        files[framework] = load_file(tmp_path / framework / "model.safetensors")
    assert_identical(files["tf"], files["pt"])


@pytest.mark.parametrize(("writer", "reader"), WAYS)
@pytest.mark.parametrize("family", FAMILIES_WITH_MODELS)
def test_a_checkpoint_in_shards_is_opened_bit_for_bit(family: str, writer: str, reader: str, tmp_path: Path) -> None:
    model = new_model(family, "ForMaskedLM", writer)
    model.save_pretrained(tmp_path, max_shard_size=4000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    opened = model_class(family, "ForMaskedLM", reader).from_pretrained(tmp_path)
    assert_identical(parameters(opened), parameters(model))


@pytest.mark.parametrize(("writer", "reader"), WAYS)
@pytest.mark.parametrize("family", FAMILIES_WITH_MODELS)
def test_bfloat16_goes_across_bit_for_bit(family: str, writer: str, reader: str, tmp_path: Path) -> None:
    new_model(family, "ForMaskedLM", writer).save_pretrained(tmp_path / "single")
    half = model_class(family, "ForMaskedLM", writer).from_pretrained(tmp_path / "single", dtype="bfloat16")
    half.save_pretrained(tmp_path / "half")
    opened = model_class(family, "ForMaskedLM", reader).from_pretrained(tmp_path / "half", dtype="auto")
    opened.save_pretrained(tmp_path / "again")
    first, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("half", "again"))
    assert first == again


@pytest.mark.parametrize("reader", ["pt", "tf"])
@pytest.mark.parametrize("writer", ["pt", "tf"])
@pytest.mark.parametrize(("family", "head"), [pair for pair in PAIRS if pair[1] != "Model"])
def test_a_bare_encoder_opens_in_any_head_and_the_reverse(
    family: str, head: str, writer: str, reader: str, tmp_path: Path
) -> None:
    prefix = model_class(family, "Model", "pt").base_model_prefix + "."

    encoder = new_model(family, "Model", writer)
    encoder.save_pretrained(tmp_path / "bare")
    opened, report = model_class(family, head, reader).from_pretrained(tmp_path / "bare", output_loading_info=True)
    held, wanted = parameters(encoder), parameters(opened)
    shared = {name: value for name, value in wanted.items() if name.startswith(prefix)}
    assert_identical(shared, {name: held[name.removeprefix(prefix)] for name in shared})
    assert {name for name in wanted if not name.startswith(prefix)} <= set(report.missing)

    model = new_model(family, head, writer, seed=2)
    model.save_pretrained(tmp_path / "head")
    opened, report = model_class(family, "Model", reader).from_pretrained(tmp_path / "head", output_loading_info=True)
    held = parameters(model)
    taken = {name: value for name, value in parameters(opened).items() if name not in report.missing}
    assert_identical(taken, {name: held[prefix + name] for name in taken})
    assert all(name.startswith("pooler.") for name in report.missing)


@pytest.mark.parametrize(("first", "second"), WAYS)
@pytest.mark.parametrize("family", FAMILIES_WITH_MODELS)
def test_a_round_trip_through_the_other_framework_changes_no_byte_of_the_files(
    family: str, first: str, second: str, tmp_path: Path
) -> None:
    new_model(family, "ForSequenceClassification", first).save_pretrained(tmp_path / "a")
    for framework, source, target in ((second, "a", "b"), (first, "b", "c")):
        model = model_class(family, "ForSequenceClassification", framework).from_pretrained(tmp_path / source)
        model.save_pretrained(tmp_path / target)
    for name in ("model.safetensors", "config.json"):
        contents = [(tmp_path / folder / name).read_bytes() for folder in "abc"]
        assert contents[1] == contents[2]
    assert contents_of(tmp_path / "a") == contents_of(tmp_path / "c")


def contents_of(folder: Path) -> dict[str, tuple[str, bytes]]:
    tensors = load_file(folder / "model.safetensors")
    return {name: (str(value.dtype), value.tobytes()) for name, value in tensors.items()}


@pytest.mark.parametrize("framework", ["pt", "tf"])
@pytest.mark.parametrize("family", FAMILIES_WITH_MODELS)
def test_dropout_is_off_after_opening(family: str, framework: str, tmp_path: Path) -> None:
    new_model(family, "ForSequenceClassification", "pt").save_pretrained(tmp_path)
    model = model_class(family, "ForSequenceClassification", framework).from_pretrained(tmp_path)
    inputs = random_inputs(model.config, "ForSequenceClassification", 0)
    first, second = (model.trace(inputs, gradients=False).outputs["logits"] for _ in range(2))
    assert model.config.hidden_dropout_prob > 0
    assert np.array_equal(first, second)
