"""Every head computes what transformers 4.57.6 computes from the same checkpoint, in both frameworks.

The checkpoints and the numbers are those of `tests/oracle/make_fixtures.py`. Transformers' PyTorch classes ran in
float64, so they also tell whether float64 is right; its TensorFlow classes ran in float32.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import isobert
from isobert.core.registry import model_class
from support.compare import TOLERANCES, assert_close, gradient_errors, relative_errors

FIXTURES = Path(__file__).parents[1] / "oracle" / "fixtures"
CASES = sorted(path.name for path in FIXTURES.iterdir() if (path / "pytorch.npz").exists())


@cache
def oracle(case: str, framework: str) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Return what the oracle's framework computed: by call, by kind ("outputs", ...), by name."""
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    with np.load(FIXTURES / case / f"{framework}.npz") as file:
        for key in file.files:
            call, kind, *name = key.split("/")
            found.setdefault(call, {}).setdefault(kind, {})["/".join(name) or kind] = file[key]
    return found


CALLS = [(case, call) for case in CASES for call in oracle(case, "pytorch")]
TENSORFLOW_CALLS = [(case, call) for case in CASES for call in oracle(case, "tensorflow")]


def open_checkpoint(case: str, head: str, framework: str, dtype: str, folder: Path) -> Any:
    """Open the case's checkpoint, put together with the tensors that only this head has."""
    own = load_file(FIXTURES / case / "heads.safetensors")
    own = {name.partition("/")[2]: value for name, value in own.items() if name.startswith(f"{head}/")}
    source = FIXTURES / case
    if own:
        tensors = load_file(source / "model.safetensors")
        tensors = {name: value for name, value in tensors.items() if not name.startswith("cls.")}
        save_file(tensors | own, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text((source / "config.json").read_text())
        source = folder
    return model_class("mobilebert", head, framework).from_pretrained(source, dtype=dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("framework", ["pt", "tf"])
@pytest.mark.parametrize(("case", "call"), CALLS)
def test_outputs_loss_and_gradients_are_those_of_transformers_in_pytorch(
    case: str, call: str, framework: str, dtype: str, tmp_path: Path
) -> None:
    expected = oracle(case, "pytorch")[call]
    model = open_checkpoint(case, call.partition("+")[0], framework, dtype, tmp_path)
    trace = model.trace(expected["inputs"], gradients=True)
    assert {value.dtype.name for value in trace.outputs.values()} == {dtype}
    assert_close(relative_errors(trace.outputs, expected["outputs"]), TOLERANCES[dtype])
    if "loss" in expected:
        assert_close(relative_errors({"loss": np.asarray(trace.loss)}, expected["loss"]), TOLERANCES[dtype])
        assert_close(gradient_errors(trace.gradients, expected["gradients"]), TOLERANCES[dtype])


@pytest.mark.parametrize("framework", ["pt", "tf"])
@pytest.mark.parametrize(("case", "call"), TENSORFLOW_CALLS)
def test_outputs_and_loss_are_those_of_transformers_in_tensorflow(
    case: str, call: str, framework: str, tmp_path: Path
) -> None:
    expected = oracle(case, "tensorflow")[call]
    model = open_checkpoint(case, call, framework, "float32", tmp_path)
    trace = model.trace(expected["inputs"], gradients=False)
    assert_close(relative_errors(trace.outputs, expected["outputs"]), TOLERANCES["float32"])
    if "loss" in expected:
        assert_close(relative_errors({"loss": np.asarray(trace.loss)}, expected["loss"]), TOLERANCES["float32"])


@pytest.mark.parametrize("framework", ["pt", "tf"])
@pytest.mark.parametrize("case", CASES)
def test_a_folder_saved_by_transformers_opens_without_a_word(
    case: str, framework: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="isobert"):
        model_class("mobilebert", "ForPreTraining", framework).from_pretrained(FIXTURES / case)
    assert not caplog.records


@pytest.mark.parametrize("framework", ["pt", "tf"])
def test_a_pytorch_model_bin_saved_by_transformers_opens_with_every_tensor(framework: str) -> None:
    model_type = model_class("mobilebert", "ForSequenceClassification", framework)
    model, info = model_type.from_pretrained(FIXTURES / "saved-as-bin", output_loading_info=True)
    assert not info
    expected = oracle("mobilebert-paper", "pytorch")["ForSequenceClassification"]
    trace = model.trace(expected["inputs"], gradients=False)
    assert_close(relative_errors(trace.outputs, expected["outputs"]), TOLERANCES["float32"])


def test_the_auto_classes_open_the_head_that_transformers_saved() -> None:
    model = isobert.AutoModelForSequenceClassification.from_pretrained(FIXTURES / "saved-as-bin")
    assert type(model) is isobert.MobileBertForSequenceClassification
