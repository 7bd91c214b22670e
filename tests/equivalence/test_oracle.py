"""Every head computes what transformers 4.57.6 computes from the same checkpoint, in both frameworks.

The checkpoints and the numbers are those of `tests/oracle/make_fixtures.py`. Transformers' PyTorch classes ran in
float64, so they also tell whether float64 is right; its TensorFlow classes ran in float32.
"""

from __future__ import annotations

import json
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import isobert
from isobert.conversion.names import family_names
from isobert.core.registry import FAMILIES, family_of, model_class
from isobert.core.squeezebert import GROUPS
from support.compare import TOLERANCES, assert_close, gradient_errors, relative_errors

FIXTURES = Path(__file__).parents[1] / "oracle" / "fixtures"
# A BERT's checkpoint, which is read as a SqueezeBERT's.
BERT = "bert-as-squeezebert"
CASES = sorted(path.parent.name for path in FIXTURES.glob("*/pytorch.npz") if path.parent.name != BERT)
TENSORFLOW_CASES = sorted(path.parent.name for path in FIXTURES.glob("*/tensorflow.npz"))


@cache
def oracle(case: str, framework: str) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Return what the oracle's framework computed: by call, by kind ("outputs", ...), by name."""
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    with np.load(FIXTURES / case / f"{framework}.npz") as file:
        for key in file.files:
            call, kind, *name = key.split("/")
            found.setdefault(call, {}).setdefault(kind, {})["/".join(name) or kind] = file[key]
    return found


def config_of(case: str) -> dict[str, Any]:
    """Return the case's config as transformers wrote it."""
    found: dict[str, Any] = json.loads((FIXTURES / case / "config.json").read_text())
    return found


def calls_of(cases: list[str], framework: str) -> list[tuple[str, str]]:
    """Return each case with each of its calls."""
    return [(case, call) for case in cases for call in oracle(case, framework)]


def tensors_for(case: str, head: str, base_prefix: str) -> dict[str, np.ndarray]:
    """Return the tensors that a head needs: its own, if it has any, take the place of the recorded head's."""
    tensors = load_file(FIXTURES / case / "model.safetensors")
    own = load_file(FIXTURES / case / "heads.safetensors")
    own = {name.partition("/")[2]: value for name, value in own.items() if name.startswith(f"{head}/")}
    if own:
        tensors = {name: value for name, value in tensors.items() if name.startswith(f"{base_prefix}.")}
    return tensors | own


def open_checkpoint(case: str, head: str, framework: str, dtype: str, folder: Path) -> Any:
    """Open the case's checkpoint, put together with the tensors that only this head has."""
    config = config_of(case)
    tensors = tensors_for(case, head, family_names(config["model_type"]).base_prefix)
    return open_written(tensors, config, head, framework, dtype, folder)


def open_written(
    tensors: dict[str, np.ndarray], config: dict[str, Any], head: str, framework: str, dtype: str, folder: Path
) -> Any:
    """Write a checkpoint and open it; nothing that the model has may be missing."""
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    model_type = model_class(config["model_type"], head, framework)
    model, info = model_type.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    assert not info.missing
    assert not info.mismatched
    return model


def assert_equals(trace: Any, expected: dict[str, dict[str, np.ndarray]], dtype: str) -> None:
    """Fail unless outputs, loss and gradients are the expected ones, as far as there are any."""
    tolerance = TOLERANCES[dtype]
    assert {value.dtype.name for value in trace.outputs.values()} == {dtype}
    assert_close(relative_errors(trace.outputs, expected["outputs"]), tolerance)
    if "loss" in expected:
        assert_close(relative_errors({"loss": np.asarray(trace.loss)}, expected["loss"]), tolerance)
    if "gradients" in expected:
        assert_close(gradient_errors(trace.gradients, expected["gradients"]), tolerance)


def test_every_head_of_every_family_was_recorded() -> None:
    recorded = {(config_of(case)["model_type"], call.partition("+")[0]) for case, call in calls_of(CASES, "pytorch")}
    assert recorded == {(name, head) for name, family in FAMILIES.items() for head in family.heads}


def test_every_case_holds_every_head_with_a_loss_and_gradients() -> None:
    for case in CASES:
        family = family_of(config_of(case)["model_type"])
        calls = oracle(case, "pytorch")
        assert {call.partition("+")[0] for call in calls} == set(family.heads)
        assert all("gradients" in kinds and "loss" in kinds for call, kinds in calls.items() if call.startswith("For"))


def test_tensorflow_was_recorded_wherever_transformers_can_run_it() -> None:
    def runs(config: dict[str, Any]) -> bool:
        # No TensorFlow SqueezeBERT exists, and its ConvBERT has wrong shapes where half of the heads are not left.
        return config["model_type"] in ("mobilebert", "rembert") or config.get("head_ratio") == 2

    assert [case for case in CASES if runs(config_of(case))] == TENSORFLOW_CASES
    for case in TENSORFLOW_CASES:
        assert set(oracle(case, "tensorflow")) == set(family_of(config_of(case)["model_type"]).heads)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("framework", ["pt", "tf"])
@pytest.mark.parametrize(("case", "call"), calls_of(CASES, "pytorch"))
def test_outputs_loss_and_gradients_are_those_of_transformers_in_pytorch(
    case: str, call: str, framework: str, dtype: str, tmp_path: Path
) -> None:
    expected = oracle(case, "pytorch")[call]
    model = open_checkpoint(case, call.partition("+")[0], framework, dtype, tmp_path)
    assert_equals(model.trace(expected["inputs"], gradients=True), expected, dtype)


@pytest.mark.parametrize("framework", ["pt", "tf"])
@pytest.mark.parametrize(("case", "call"), calls_of(TENSORFLOW_CASES, "tensorflow"))
def test_outputs_and_loss_are_those_of_transformers_in_tensorflow(
    case: str, call: str, framework: str, tmp_path: Path
) -> None:
    expected = oracle(case, "tensorflow")[call]
    model = open_checkpoint(case, call, framework, "float32", tmp_path)
    assert_equals(model.trace(expected["inputs"], gradients=False), expected, "float32")


# How SqueezeBERT calls BERT's tensors, applied in order.
BERT_TO_SQUEEZEBERT = (
    (r"^bert\.", "transformer."),
    (r"encoder\.layer\.", "encoder.layers."),
    (r"attention\.self\.", "attention."),
    (r"attention\.output\.dense", "post_attention.conv1d"),
    (r"attention\.output\.LayerNorm", "post_attention.layernorm"),
    (r"\.(intermediate|output)\.dense", r".\1.conv1d"),
    (r"\.output\.LayerNorm", ".output.layernorm"),
)


def as_squeezebert(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return BERT's tensors as SqueezeBERT's: renamed, dense layers' weights as those of convolutions one wide."""
    found = {}
    for name, value in tensors.items():
        for pattern, replacement in BERT_TO_SQUEEZEBERT:
            name = re.sub(pattern, replacement, name)
        found[name] = value[..., None] if "encoder.layers." in name and value.ndim == 2 else value
    return found


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("framework", ["pt", "tf"])
@pytest.mark.parametrize("call", oracle(BERT, "pytorch"))
def test_squeezebert_with_groups_of_one_everywhere_computes_exactly_bert(
    call: str, framework: str, dtype: str, tmp_path: Path
) -> None:
    expected = dict(oracle(BERT, "pytorch")[call])
    if "gradients" in expected:
        expected["gradients"] = as_squeezebert(expected["gradients"])
    config = config_of(BERT)
    config |= {"model_type": "squeezebert", "embedding_size": config["hidden_size"], **dict.fromkeys(GROUPS, 1)}
    head = call.partition("+")[0]
    tensors = as_squeezebert(tensors_for(BERT, head, "bert"))
    model = open_written(tensors, config, head, framework, dtype, tmp_path)
    assert_equals(model.trace(expected["inputs"], gradients=True), expected, dtype)


@pytest.mark.parametrize("framework", ["pt", "tf"])
@pytest.mark.parametrize("case", CASES)
def test_a_folder_saved_by_transformers_opens_without_a_word(
    case: str, framework: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(case)
    family = family_of(config["model_type"])
    head = config["architectures"][0].removeprefix(family.prefix)
    with caplog.at_level(logging.WARNING, logger="isobert"):
        model_class(family.model_type, head, framework).from_pretrained(FIXTURES / case)
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
