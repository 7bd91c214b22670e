"""Converting between forms, dtypes and shards."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from isobert.conversion.checkpoint import open_checkpoint, write_checkpoint
from isobert.conversion.convert import convert
from isobert.conversion.expected import expected_tensors
from isobert.errors import CheckpointError, CheckpointNotFoundError, InputError, UnknownNameError
from support.configs import random_config
from support.weights import random_value

DECODER, WORDS = "cls.predictions.decoder.weight", "mobilebert.embeddings.word_embeddings.weight"


def make_checkpoint(folder: Path, head: str = "ForMaskedLM", **fields: Any) -> dict[str, np.ndarray]:
    """Write a whole random MobileBERT with config and tokenizer files; return its tensors."""
    config = random_config("mobilebert", 3, **{"tie_word_embeddings": True, **fields})
    shapes = expected_tensors(config, head)
    tensors = {name: random_value(name, shape, 1).astype(np.float32) for name, shape in shapes.items()}
    write_checkpoint(folder, tensors)
    config.replace(architectures=[f"MobileBert{head}"], torch_dtype="float32").save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    (folder / "private.txt").write_text("not of the model")
    return tensors


def read_all(folder: Path) -> dict[str, np.ndarray]:
    with open_checkpoint(folder) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.names()}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert sorted(found) == sorted(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
        assert found[name].dtype == expected[name].dtype, name


def test_there_and_back_through_torch_and_shards_is_bit_identical(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    tensors = make_checkpoint(tmp_path / "a")
    there = convert(tmp_path / "a", tmp_path / "b", to="torch-bin", max_shard_size=2000)
    assert len(there.files) > 1
    assert all(file.is_file() and file.suffix == ".bin" for file in there.files)
    back = convert(tmp_path / "b", tmp_path / "c")
    assert (back.source_form, back.form, len(back.files)) == ("torch-bin", "safetensors", 1)
    assert_equal(read_all(tmp_path / "c"), tensors)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "c" / "model.safetensors").read_bytes()


def test_config_and_tokenizer_go_along_and_nothing_else(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "a")
    report = convert(tmp_path / "a", tmp_path / "b")
    assert sorted(os.listdir(tmp_path / "b")) == ["config.json", "model.safetensors", "vocab.txt"]
    assert sorted(report.copied) == ["config.json", "vocab.txt"]
    assert (tmp_path / "a" / "config.json").read_bytes() == (tmp_path / "b" / "config.json").read_bytes()


def test_bfloat16_is_rounded_to_nearest_and_the_largest_error_is_reported(tmp_path: Path) -> None:
    tensors = make_checkpoint(tmp_path / "a")
    report = convert(tmp_path / "a", tmp_path / "b", dtype="bfloat16")
    found = read_all(tmp_path / "b")
    errors = {}
    for name, tensor in tensors.items():
        assert found[name].dtype == ml_dtypes.bfloat16
        difference = np.abs(found[name].astype(np.float64) - tensor)
        # Half a unit in the last of 8 binary places.
        np.testing.assert_array_less(difference, np.abs(tensor) * 2.0**-8 + 1e-30)
        errors[name] = difference.max(initial=0) / np.abs(tensor).max(initial=1e-30)
    assert report.rounding == pytest.approx(max(errors.values()), rel=1e-6)
    assert report.rounded_most == max(errors, key=errors.__getitem__)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_a_wider_dtype_rounds_nothing_and_says_so(tmp_path: Path) -> None:
    tensors = make_checkpoint(tmp_path / "a")
    report = convert(tmp_path / "a", tmp_path / "b", dtype="float64")
    assert report.rounding == 0
    assert "without rounding" in str(report)
    assert_equal(read_all(tmp_path / "b"), {name: tensor.astype(np.float64) for name, tensor in tensors.items()})


def test_integers_keep_their_dtype(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", {"steps": np.arange(3), "w": np.ones(2, np.float32)})
    convert(tmp_path / "a", tmp_path / "b", dtype="float16")
    assert {name: t.dtype.name for name, t in read_all(tmp_path / "b").items()} == {"steps": "int64", "w": "float16"}


def test_a_number_that_the_dtype_cannot_hold_is_refused_and_nothing_appears(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", {"w": np.array([1.0, 70000.0], np.float32)})
    with pytest.raises(CheckpointError, match=r"tensor w holds 7e\+04, which float16 cannot hold"):
        convert(tmp_path / "a", tmp_path / "b", dtype="float16")
    assert os.listdir(tmp_path) == ["a"]


def test_old_names_are_brought_up_to_date_and_repetitions_left_out(tmp_path: Path) -> None:
    tensors = make_checkpoint(tmp_path / "a")
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()}
    extra = {DECODER: tensors[WORDS], "mobilebert.embeddings.position_ids": np.arange(9)[None]}
    write_checkpoint(tmp_path / "a", {**old, **extra})
    report = convert(tmp_path / "a", tmp_path / "b")
    assert_equal(read_all(tmp_path / "b"), tensors)
    assert set(report.left_out) == set(extra)
    assert report.renamed["mobilebert.embeddings.LayerNorm.weight"] == "mobilebert.embeddings.LayerNorm.gamma"
    assert report.tensors == len(tensors)
    assert report.parameters == sum(tensor.size for tensor in tensors.values())


@pytest.mark.parametrize("tied", [True, False])
def test_an_output_table_of_its_own_is_kept(tmp_path: Path, tied: bool) -> None:
    tensors = make_checkpoint(tmp_path / "a", tie_word_embeddings=tied)
    # Tied, the two differ; untied, they happen to be equal.
    tensors[DECODER] = tensors[WORDS] + 1 if tied else tensors[WORDS]
    write_checkpoint(tmp_path / "a", tensors)
    convert(tmp_path / "a", tmp_path / "b")
    assert_equal(read_all(tmp_path / "b"), tensors)


def test_the_destination_appears_only_when_everything_is_in_it(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "a")
    seen = []

    def fail_late(name: str, done: int, total: int) -> None:
        seen.append(done / total)
        assert not (tmp_path / "b").exists()
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "a", tmp_path / "b", progress=fail_late)
    assert seen[-1] == 1
    assert seen == sorted(seen)
    assert os.listdir(tmp_path) == ["a"]


def test_an_existing_destination_is_refused_and_replaced_only_by_force(tmp_path: Path) -> None:
    tensors = make_checkpoint(tmp_path / "a")
    write_checkpoint(tmp_path / "b", {"old": np.ones(9)}, max_shard_size=8)
    with pytest.raises(InputError, match="force"):
        convert(tmp_path / "a", tmp_path / "b")
    assert "old" in read_all(tmp_path / "b")
    convert(tmp_path / "a", tmp_path / "b", force=True)
    assert_equal(read_all(tmp_path / "b"), tensors)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_force_does_not_replace_a_folder_that_holds_anything_else(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "a")
    make_checkpoint(tmp_path / "b")
    with pytest.raises(InputError, match=r"private\.txt"):
        convert(tmp_path / "a", tmp_path / "b", force=True)
    (tmp_path / "c" / "config.json").mkdir(parents=True)
    with pytest.raises(InputError, match=r"config\.json"):
        convert(tmp_path / "a", tmp_path / "c", force=True)


def test_a_checkpoint_is_not_converted_onto_itself(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "a")
    with pytest.raises(InputError, match="itself"):
        convert(tmp_path / "a", tmp_path / "x" / ".." / "a", force=True)
    with pytest.raises(InputError, match="itself"):
        convert(tmp_path / "a" / "model.safetensors", tmp_path / "a", force=True)


def test_a_folder_without_config_is_converted_and_the_lack_is_said(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", {"w": np.ones(2)})
    assert "no config.json" in str(convert(tmp_path / "a", tmp_path / "b"))


def test_what_is_not_known_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "a")
    with pytest.raises(InputError, match="int3"):
        convert(tmp_path / "a", tmp_path / "b", dtype="int3")
    with pytest.raises(UnknownNameError, match="onnx"):
        convert(tmp_path / "a", tmp_path / "b", to="onnx")
    with pytest.raises(CheckpointNotFoundError):
        convert(tmp_path / "nothing", tmp_path / "b")
    with pytest.raises(InputError, match="huge"):
        convert(tmp_path / "a", tmp_path / "b", max_shard_size="huge")
    assert os.listdir(tmp_path) == ["a"]


def test_one_head_of_several_is_written_and_the_rest_is_named(tmp_path: Path) -> None:
    tensors = make_checkpoint(tmp_path / "a", "ForPreTraining", classifier_activation=True)
    report = convert(tmp_path / "a", tmp_path / "b", head="ForMaskedLM")
    # The pooler serves the next sentence alone.
    unused = {name for name in tensors if "seq_relationship" in name or "pooler" in name}
    assert set(report.left_out) == unused
    assert all("no part of MobileBertForMaskedLM" in reason for reason in report.left_out.values())
    assert_equal(read_all(tmp_path / "b"), {name: tensors[name] for name in tensors.keys() - unused})
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["architectures"] == ["MobileBertForMaskedLM"]
    convert(tmp_path / "a", tmp_path / "c", head="Model")
    encoder = {name.removeprefix("mobilebert."): tensor for name, tensor in tensors.items() if "cls." not in name}
    assert_equal(read_all(tmp_path / "c"), encoder)


@pytest.mark.parametrize("form", ["safetensors", "keras"])
def test_a_head_that_the_config_names_and_the_source_lacks_is_listed_and_not_made_up(tmp_path: Path, form: str) -> None:
    tensors = make_checkpoint(tmp_path / "a", "ForSequenceClassification")
    lacking = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")}
    write_checkpoint(tmp_path / "a", lacking)
    report = convert(tmp_path / "a", tmp_path / "b", to=form)
    assert set(report.missing) == {"classifier.weight", "classifier.bias"}
    assert "classifier.weight" in str(report)
    found = {name.removeprefix("mobilebert.") for name in read_all(tmp_path / "b")}
    assert found == {name.removeprefix("mobilebert.") for name in lacking}


def test_the_optimizers_state_goes_along_in_every_form_unless_it_is_not_wanted(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = make_checkpoint(tmp_path / "a", "ForNextSentencePrediction")
    parameters = {name: torch.nn.Parameter(torch.from_numpy(tensor)) for name, tensor in tensors.items()}
    optimizer = torch.optim.AdamW(list(parameters.items()), lr=1e-3)
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "a" / "optimizer.pt")
    before = optimizer.state_dict()["state"]
    for form in ("torch-bin", "transformers-h5", "keras", "keras-weights"):
        report = convert(tmp_path / "a", tmp_path / form, to=form)
        assert report.optimizer
        convert(tmp_path / form, tmp_path / f"{form}-back")
        state = torch.load(tmp_path / f"{form}-back" / "optimizer.pt", weights_only=True)
        [group] = state["param_groups"]
        numbers = dict(zip(group["param_names"], group["params"], strict=True))
        for index, name in enumerate(parameters):
            for moment in ("exp_avg", "exp_avg_sq"):
                assert torch.equal(state["state"][numbers[name]][moment], before[index][moment]), (form, name)
        assert not convert(tmp_path / form, tmp_path / f"{form}-without", optimizer=False).optimizer
        assert not (tmp_path / f"{form}-without" / "optimizer.pt").exists()


def test_a_state_that_cannot_be_carried_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    make_checkpoint(tmp_path / "a")
    torch.save(torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1).state_dict(), tmp_path / "a" / "optimizer.pt")
    with pytest.raises(CheckpointError, match=r"optimizer\.pt.*--no-optimizer"):
        convert(tmp_path / "a", tmp_path / "b", to="keras")
    assert not (tmp_path / "b").exists()
    convert(tmp_path / "a", tmp_path / "b", to="keras", optimizer=False)
