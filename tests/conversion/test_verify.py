"""Verification: it passes what is equal, and catches and places what is not. The models here are NumPy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from isobert import MobileBertConfig
from isobert.conversion.inputs import random_inputs, random_labels
from isobert.conversion.verify import Verification, compare, place_of, verify
from isobert.core.outputs import Trace
from isobert.core.registry import FAMILIES
from isobert.errors import InputError, UnknownNameError

LAYERS = 3
Change = Callable[[Trace], object]


class MobileBertForMaskedLM:
    """A stand-in: a stack of random layers, with as much noise as rounding makes, and a change of its trace."""

    def __init__(self, noise: float = 0.0, change: Change | None = None, dtype: str = "float64") -> None:
        self.config = MobileBertConfig(vocab_size=40, max_position_embeddings=16)
        self.noise, self.change, self.dtype = noise, change, dtype

    def trace(self, inputs: Mapping[str, np.ndarray], gradients: bool = True) -> Trace:
        random, noise = np.random.default_rng(0), np.random.default_rng(1)
        ids = inputs["input_ids"]

        def tensor(*shape: int) -> np.ndarray:
            exact = random.normal(size=shape)
            return (exact * (1 + self.noise * noise.uniform(-1, 1, shape))).astype(self.dtype)

        outputs = {"logits": tensor(*ids.shape, 40)}
        outputs |= {f"hidden_states.{i}": tensor(*ids.shape, 8) for i in range(LAYERS + 1)}
        outputs |= {f"attentions.{i}": tensor(ids.shape[0], 2, 4, 4) for i in range(LAYERS)}
        names = [f"mobilebert.encoder.layer.{i}.attention.self.key" for i in range(LAYERS)]
        names += ["mobilebert.embeddings.word_embeddings", "cls.predictions.transform.dense"]
        slopes = {f"{name}.{leaf}": tensor(4, 4) for name in names for leaf in ("weight", "bias")} if gradients else {}
        trace = Trace(outputs, float(tensor(1)[0]) + float(inputs["labels"].sum()), slopes)
        if self.change is not None:
            self.change(trace)
        return trace


class TFMobileBertForMaskedLM(MobileBertForMaskedLM):
    """Its twin."""


class MobileBertModel(MobileBertForMaskedLM):
    """Another head."""


def text_of(renderable: Any) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def failed(found: Verification) -> set[str]:
    return {row.name for row in found.rows if not row.ok}


@pytest.mark.parametrize(("dtype", "noise"), [("float64", 1e-13), ("float32", 3e-7)])
def test_two_models_that_differ_by_rounding_are_equal(dtype: str, noise: float) -> None:
    found = verify(MobileBertForMaskedLM(noise, dtype=dtype), TFMobileBertForMaskedLM(dtype=dtype))
    assert found.passed
    assert found.dtype == dtype
    assert 0 < found.largest_error <= 4 * noise
    assert len(found.of_kind("output")) == 2 * LAYERS + 2
    assert len(found.of_kind("gradient")) == 2 * (LAYERS + 2)
    assert len(found.of_kind("loss")) == 1


@pytest.mark.parametrize(("dtype", "noise"), [("float64", 1e-9), ("float32", 1e-4)])
def test_a_difference_above_the_tolerance_is_caught(dtype: str, noise: float) -> None:
    found = verify(MobileBertForMaskedLM(noise, dtype=dtype), TFMobileBertForMaskedLM(dtype=dtype))
    assert not found.passed
    assert verify(
        MobileBertForMaskedLM(noise, dtype=dtype), TFMobileBertForMaskedLM(dtype=dtype), tolerance=1e-2
    ).passed


def shift(kind: str, name: str, by: float) -> Change:
    def change(trace: Trace) -> None:
        getattr(trace, kind)[name].flat[3] += by

    return change


@pytest.mark.parametrize(
    ("kind", "name", "place"),
    [
        ("outputs", "hidden_states.2", "layer 2"),
        ("outputs", "attentions.2", "layer 3"),
        ("outputs", "hidden_states.0", "embeddings"),
        ("outputs", "logits", "head"),
        ("gradients", "mobilebert.encoder.layer.1.attention.self.key.weight", "layer 2"),
        ("gradients", "mobilebert.embeddings.word_embeddings.weight", "embeddings"),
        ("gradients", "cls.predictions.transform.dense.bias", "head"),
    ],
)
def test_one_perturbed_number_is_caught_and_placed(kind: str, name: str, place: str) -> None:
    found = verify(MobileBertForMaskedLM(1e-13, shift(kind, name, 1e-8)), MobileBertForMaskedLM())
    assert failed(found) == {name}
    worst = found.worst()
    assert worst is not None
    assert (worst.name, worst.place) == (name, place)
    assert worst.difference == pytest.approx(1e-8, rel=1e-3)
    table = text_of(found.table())
    assert [line for line in table.splitlines() if "NO " in line and place in line]
    assert name in text_of(found.worst_table())


def test_another_loss_is_caught() -> None:
    def change(trace: Trace) -> None:
        assert trace.loss is not None
        trace.loss *= 1 + 1e-9

    assert failed(verify(MobileBertForMaskedLM(0, change), MobileBertForMaskedLM())) == {"loss"}


def nan(trace: Trace) -> None:
    trace.outputs["logits"][0, 0, 0] = np.nan


def other_shape(trace: Trace) -> None:
    trace.outputs["logits"] = trace.outputs["logits"][:, :1]


def absent(trace: Trace) -> None:
    del trace.outputs["logits"]


@pytest.mark.parametrize(("change", "said"), [(nan, "not finite"), (other_shape, "shape"), (absent, "has none")])
@pytest.mark.parametrize("in_a", [True, False])
def test_what_cannot_be_compared_is_never_equal(change: Change, said: str, in_a: bool) -> None:
    models = MobileBertForMaskedLM(0, change), MobileBertForMaskedLM()
    found = verify(*(models if in_a else models[::-1]), tolerance=1e9)
    assert failed(found) == {"logits"}
    assert said in text_of(found.worst_table())
    assert json.loads(found.to_json())["passed"] is False


def test_a_nan_in_both_models_is_not_equality() -> None:
    found = verify(MobileBertForMaskedLM(0, nan), MobileBertForMaskedLM(0, nan))
    assert failed(found) == {"logits"}
    assert "not finite" in text_of(found.worst_table())


def test_a_gradient_that_only_one_model_has_is_caught() -> None:
    name = "cls.predictions.transform.dense.bias"
    found = verify(MobileBertForMaskedLM(0, lambda trace: trace.gradients.pop(name)), MobileBertForMaskedLM())
    assert failed(found) == {name}


def test_a_gradient_is_measured_by_the_largest_of_its_module() -> None:
    weight, bias = np.array([1.0, -200.0]), np.array([1e-20])
    a = Trace({"logits": weight}, 1.0, {"key.weight": weight, "key.bias": -bias, "other.bias": -bias})
    b = Trace({"logits": weight}, 1.0, {"key.weight": weight, "key.bias": bias, "other.bias": bias})
    found = {row.name: row.relative for row in compare(a, b).of_kind("gradient")}
    assert found == {"key.weight": 0, "key.bias": pytest.approx(1e-22), "other.bias": pytest.approx(2.0)}


def test_a_keys_bias_is_measured_by_its_whole_attention() -> None:
    tiny, value = np.full(2, 1e-9), np.full(2, 1e-2)
    slopes = {
        "attention.self.key.weight": tiny,
        "attention.self.key.bias": np.zeros(2),
        "attention.self.value.bias": value,
    }
    changed = {**slopes, "attention.self.key.bias": np.full(2, 1e-12)}
    found = compare(Trace({"logits": value}, 1.0, changed), Trace({"logits": value}, 1.0, slopes)).of_kind("gradient")
    assert {row.name: row.relative for row in found}["attention.self.key.bias"] == pytest.approx(1e-10)
    wrong = {**slopes, "attention.self.value.bias": value + 1e-12, "attention.self.key.weight": 2 * tiny}
    found = compare(Trace({"logits": value}, 1.0, wrong), Trace({"logits": value}, 1.0, slopes)).of_kind("gradient")
    assert {row.name: row.relative for row in found}["attention.self.key.weight"] == pytest.approx(1.0)


def test_rounding_in_the_place_of_zero_gradients_of_queries_and_keys_is_measured_by_their_attention() -> None:
    def trace(query: float, value: float = 1e-2) -> Trace:
        slopes = {"attention.self.query.weight": np.full(2, query), "attention.self.value.bias": np.full(2, value)}
        return Trace({"logits": np.ones(2)}, 1.0, slopes)

    assert compare(trace(-3e-18), trace(1e-18)).passed
    assert not compare(trace(1e-7), trace(1e-18)).passed
    assert not compare(trace(1e-18), trace(1e-7)).passed
    assert not compare(trace(1e-18, value=1e-18), trace(-1e-18, value=1e-18)).passed


def test_zero_against_zero_is_equal_and_against_anything_else_is_not() -> None:
    zero, some = Trace({"logits": np.zeros(3)}), Trace({"logits": np.full(3, 1e-30)})
    assert compare(zero, zero).passed
    assert not compare(some, zero).passed
    assert compare(some, zero).largest_error == math.inf


def test_models_get_inputs_of_their_own() -> None:
    class Careless(MobileBertForMaskedLM):
        def trace(self, inputs: Mapping[str, np.ndarray], gradients: bool = True) -> Trace:
            found = super().trace(inputs, gradients)
            inputs["labels"][:] = 0
            return found

    inputs = random_inputs(MobileBertConfig(vocab_size=40), "ForMaskedLM")
    assert verify(Careless(), MobileBertForMaskedLM(), inputs).passed
    assert inputs["labels"].any()


def test_without_gradients_none_are_compared() -> None:
    found = verify(MobileBertForMaskedLM(), MobileBertForMaskedLM(), gradients=False)
    assert found.passed
    assert not found.of_kind("gradient")


def test_models_of_different_heads_are_refused_without_inputs() -> None:
    with pytest.raises(InputError, match=r"'Model' and b 'ForMaskedLM'"):
        verify(MobileBertModel(), MobileBertForMaskedLM())


def test_a_model_that_computes_nothing_is_not_equal_to_one_that_computes_nothing() -> None:
    empty = MobileBertForMaskedLM(0, lambda trace: trace.outputs.clear())
    with pytest.raises(InputError, match="computed no outputs"):
        verify(empty, empty)


def test_models_are_called_by_their_classes() -> None:
    found = verify(MobileBertForMaskedLM(), TFMobileBertForMaskedLM())
    assert "MobileBertForMaskedLM against TFMobileBertForMaskedLM, float64" in text_of(found.table())


def test_outputs_come_in_the_order_of_the_computation() -> None:
    names = [row.name for row in verify(MobileBertForMaskedLM(), MobileBertForMaskedLM()).of_kind("output")]
    expected = ["hidden_states.0", *(n for i in range(LAYERS) for n in (f"attentions.{i}", f"hidden_states.{i + 1}"))]
    assert names == [*expected, "logits"]


@pytest.mark.parametrize("change", [None, nan, shift("outputs", "logits", 1.0), lambda trace: trace.gradients.clear()])
def test_results_are_saved_as_strict_json_and_as_a_picture(tmp_path: Path, change: Change | None) -> None:
    pytest.importorskip("matplotlib")
    found = verify(MobileBertForMaskedLM(0, change), MobileBertForMaskedLM())
    found.save(tmp_path / "out")
    # Python reads NaN; the JSON standard does not.
    content = json.loads((tmp_path / "out" / "verification.json").read_text(), parse_constant=pytest.fail)
    assert content["passed"] is (change is None)
    assert len(content["rows"]) == len(found.rows)
    assert (tmp_path / "out" / "verification.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_names_every_place_and_the_tolerance(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        verify(MobileBertForMaskedLM(1e-13), MobileBertForMaskedLM()).plot(tmp_path / "picture.svg")
    svg = (tmp_path / "picture.svg").read_text()
    for text in (
        "embeddings",
        "layer 1",
        "layer 3",
        "head",
        "hidden states",
        "attentions",
        "gradients",
        "tolerance 1e-10",
    ):
        assert text in svg


def test_places_are_told_from_names_of_outputs_and_parameters() -> None:
    assert place_of("mobilebert.encoder.layer.11.bottleneck.input.dense.weight") == "layer 12"
    assert place_of("embeddings.LayerNorm.weight") == "embeddings"
    assert place_of("pooler.dense.weight") == place_of("last_hidden_state") == place_of("classifier.bias") == "head"


# Random inputs.


@pytest.mark.parametrize("head", FAMILIES["mobilebert"].heads)
def test_random_inputs_are_legal_padded_and_reproducible(head: str) -> None:
    config = MobileBertConfig(
        vocab_size=30, max_position_embeddings=10, type_vocab_size=2, pad_token_id=7, num_labels=3
    )
    inputs = random_inputs(config, head, seed=5)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert ids.shape == ((3, 3, 10) if head == "ForMultipleChoice" else (3, 10))
    assert ids.min() >= 0
    assert ids.max() < 30
    assert 0 < mask.mean() < 1
    assert mask.reshape(-1, 10)[0].all()
    assert (ids[mask == 0] == 7).all()
    again = random_inputs(config, head, seed=5)
    assert all((again[name] == value).all() for name, value in inputs.items())
    assert (random_inputs(config, head, seed=6)["input_ids"] != ids).any()
    assert (len(inputs) > 3) == (head != "Model")


@pytest.mark.parametrize(
    ("fields", "dtype", "shape"),
    [
        ({"num_labels": 1}, "float32", (3,)),
        ({"num_labels": 4}, "int64", (3,)),
        ({"num_labels": 4, "problem_type": "regression"}, "float32", (3, 4)),
        ({"num_labels": 4, "problem_type": "multi_label_classification"}, "float32", (3, 4)),
    ],
)
def test_labels_of_sequences_suit_the_problem(fields: dict[str, Any], dtype: str, shape: tuple[int, ...]) -> None:
    labels = random_inputs(MobileBertConfig(**fields), "ForSequenceClassification")["labels"]
    assert (labels.dtype.name, labels.shape) == (dtype, shape)


def test_labels_need_a_known_head_and_the_right_rank() -> None:
    ids = {"input_ids": np.ones((2, 5), np.int64)}
    with pytest.raises(UnknownNameError, match="ForPoetry"):
        random_labels(MobileBertConfig(), "ForPoetry", ids)
    with pytest.raises(InputError, match=r"\[2, 5\]"):
        random_labels(MobileBertConfig(), "ForMultipleChoice", ids)
