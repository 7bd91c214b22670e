"""Checkpoints, the vocabulary's size, traces and Auto classes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import isobert
from isobert import MobileBertConfig, TFMobileBertForMaskedLM, TFMobileBertForTokenClassification, TFMobileBertModel
from isobert.conversion.checkpoint import open_checkpoint, write_checkpoint
from isobert.core.outputs import OUTPUT_CLASSES
from isobert.core.registry import model_class
from isobert.errors import CheckpointError, CheckpointNotFoundError, ConfigError, InputError
from support.configs import random_config
from support.weights import parameters

Make = Callable[..., Any]


def values(model: Any) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in parameters(model).items()}


def assert_same_parameters(found: Any, expected: dict[str, np.ndarray]) -> None:
    found = values(found)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_opens_again_bit_for_bit(
    family: str, head: str, tied: bool, make_model: Make, tmp_path: Path
) -> None:
    model = make_model(family, head, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    opened, report = type(model).from_pretrained(tmp_path, dtype="float64", output_loading_info=True)
    assert not report
    assert opened.config == model.config.replace(architectures=[type(model).__name__.removeprefix("TF")])
    assert_same_parameters(opened, values(model))


def test_nothing_is_drawn_that_the_checkpoint_has(make_model: Make, tmp_path: Path, monkeypatch: Any) -> None:
    make_model("mobilebert", "Model").save_pretrained(tmp_path)
    drawn: list[tuple[int, ...]] = []
    draw = keras.initializers.TruncatedNormal.__call__

    def spy(self: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
        drawn.append(tuple(shape))
        return draw(self, shape, dtype)

    monkeypatch.setattr(keras.initializers.TruncatedNormal, "__call__", spy)
    model = TFMobileBertForTokenClassification.from_pretrained(tmp_path)
    assert drawn == [tuple(model.classifier.kernel.shape)]


def test_after_a_checkpoint_that_cannot_be_read_another_opens(make_model: Make, tmp_path: Path) -> None:
    model = make_model("mobilebert", "Model")
    model.save_pretrained(tmp_path / "good")
    model.save_pretrained(tmp_path / "bad")
    file = tmp_path / "bad" / "model.safetensors"
    for damage in (lambda data: data.replace(b'"F64"', b'"C64"'), lambda data: data[:-1]):
        file.write_bytes(damage(file.read_bytes()))
        with pytest.raises(CheckpointError):
            TFMobileBertModel.from_pretrained(tmp_path / "bad")
        assert_same_parameters(TFMobileBertModel.from_pretrained(tmp_path / "good", dtype="float64"), values(model))


@pytest.mark.parametrize("form", ["safetensors", "torch-bin"])
@pytest.mark.parametrize("max_shard_size", ["5GB", 2000])
def test_every_form_and_shards_open(form: str, max_shard_size: Any, make_model: Make, tmp_path: Path) -> None:
    model = make_model("mobilebert", "ForMaskedLM")
    model.config.save_pretrained(tmp_path)
    tensors = {name: np.ascontiguousarray(value) for name, value in values(model).items()}
    files = write_checkpoint(tmp_path, tensors, max_shard_size=max_shard_size, form=form)
    assert (len(files) > 1) is (max_shard_size == 2000)
    assert_same_parameters(TFMobileBertForMaskedLM.from_pretrained(tmp_path, dtype="float64"), values(model))


def test_a_large_model_is_saved_in_shards_on_request(make_model: Make, tmp_path: Path) -> None:
    model = make_model("mobilebert")
    model.save_pretrained(tmp_path, max_shard_size="2KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert_same_parameters(TFMobileBertModel.from_pretrained(tmp_path, dtype="float64"), values(model))


def test_a_checkpoint_of_an_encoder_opens_in_a_head_and_says_what_is_new(
    make_model: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model("mobilebert")
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger="isobert"):
        opened, report = TFMobileBertForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert report.missing == ("classifier.weight", "classifier.bias")
    assert set(report.unexpected) <= {"pooler.dense.weight", "pooler.dense.bias"}
    assert "classifier.weight" in caplog.text
    assert opened.classifier.kernel.shape == (model.config.hidden_size, model.config.num_labels)


def test_a_tensor_of_another_shape_is_refused_by_name_or_left_new_on_request(make_model: Make, tmp_path: Path) -> None:
    make_model("mobilebert", "ForTokenClassification", num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"classifier\.weight is \[3, \d+\] in the checkpoint and \[5"):
        TFMobileBertForTokenClassification.from_pretrained(tmp_path, num_labels=5)
    model, report = TFMobileBertForTokenClassification.from_pretrained(
        tmp_path, num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert {mismatch.name for mismatch in report.mismatched} == {"classifier.weight", "classifier.bias"}
    assert model(np.array([[3, 4]])).logits.shape == (1, 2, 5)


@pytest.mark.parametrize(
    ("dtype", "variables", "compute"),
    [
        (None, "float32", "float32"),
        ("auto", "float64", "float64"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("mixed_bfloat16", "float32", "bfloat16"),
    ],
)
def test_the_dtype_is_the_one_asked_for(
    dtype: str | None, variables: str, compute: str, make_model: Make, tmp_path: Path
) -> None:
    make_model("mobilebert").save_pretrained(tmp_path)
    model = TFMobileBertModel.from_pretrained(tmp_path, dtype=dtype)
    assert {variable.dtype for variable in model.weights} == {variables}
    assert model(np.array([[3, 4]])).last_hidden_state.dtype == compute


@pytest.mark.parametrize("dtype", ["float31", "int32", 7])
def test_a_dtype_that_is_none_is_refused(dtype: Any, make_model: Make, tmp_path: Path) -> None:
    make_model("mobilebert").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="dtype is .*; give"):
        TFMobileBertModel.from_pretrained(tmp_path, dtype=dtype)


def test_a_bfloat16_model_is_saved_as_bfloat16(make_model: Make, tmp_path: Path) -> None:
    make_model("mobilebert", dtype="bfloat16").save_pretrained(tmp_path)
    with open_checkpoint(tmp_path) as checkpoint:
        assert {checkpoint.dtype(name) for name in checkpoint.names()} == {"bfloat16"}


def test_a_folder_without_a_checkpoint_is_an_error(make_model: Make, tmp_path: Path) -> None:
    make_model("mobilebert").config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointNotFoundError, match="holds no checkpoint"):
        TFMobileBertModel.from_pretrained(tmp_path)


# The bare encoder, and each kind of head that scores words: MobileBERT's has a table of its own beside the shared one.
RESIZED = [(family, head) for family in ("mobilebert", "squeezebert") for head in ("Model", "ForMaskedLM")]
RESIZED += [("mobilebert", "ForPreTraining")]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("model_type", "task"), RESIZED)
@pytest.mark.parametrize("size", [23, 57])
def test_resizing_keeps_the_scores_of_the_words_that_stay(
    model_type: str, task: str, size: int, tied: bool, make_model: Make, make_inputs: Make, tmp_path: Path
) -> None:
    model = make_model(model_type, task, 1, vocab_size=37, tie_word_embeddings=tied, pad_token_id=1)
    inputs = make_inputs(model, labels=False)
    inputs["input_ids"] %= 20
    before, old_config = model(inputs)[0], model.config
    table = model.resize_token_embeddings(size)
    assert table is model.get_input_embeddings()
    assert table.embeddings.shape[0] == table.input_dim == model.config.vocab_size == size
    assert model.base_model.config is model.config
    assert old_config.vocab_size == 37
    after = model(inputs)[0]
    if task == "Model":
        np.testing.assert_allclose(after, before)
    else:
        assert after.shape[-1] == size
        np.testing.assert_allclose(after[..., : min(size, 37)], before[..., : min(size, 37)])
        assert ("cls.predictions.decoder.weight" in values(model)) is not tied
        assert not values(model)["cls.predictions.bias"][37:].any()
    model.save_pretrained(tmp_path / "folder")
    opened, report = type(model).from_pretrained(tmp_path / "folder", dtype="float64", output_loading_info=True)
    assert not report
    assert_same_parameters(opened, values(model))
    model.save(tmp_path / "model.keras")
    assert_same_parameters(keras.models.load_model(tmp_path / "model.keras"), values(model))


def test_a_resized_model_learns_the_new_words(make_model: Make) -> None:
    model = make_model("mobilebert", "ForMaskedLM", vocab_size=37, dtype="float32")
    model.resize_token_embeddings(40)
    before = values(model)
    ids = np.array([[38, 39, 4]])
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    model.fit({"input_ids": ids, "labels": ids}, verbose=0)
    after = values(model)
    for name in ("mobilebert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
        assert after[name].shape[0] == 40
        assert (after[name][38:] != before[name][38:]).all()


def test_a_new_size_is_rounded_up_and_new_vectors_are_drawn(make_model: Make) -> None:
    model = make_model("mobilebert", vocab_size=37)
    table = model.resize_token_embeddings(38, pad_to_multiple_of=8)
    assert table.input_dim == 40
    new = keras.ops.convert_to_numpy(table.embeddings)[37:]
    assert new.all()
    assert np.abs(new).max() <= 2 * model.config.initializer_range


def test_a_size_that_is_not_legal_changes_nothing(make_model: Make) -> None:
    model = make_model("mobilebert", "ForMaskedLM", vocab_size=37, pad_token_id=5)
    for size in (0, 5):
        with pytest.raises(ConfigError):
            model.resize_token_embeddings(size)
    assert model.get_input_embeddings().embeddings.shape[0] == model.config.vocab_size == 37


def test_a_new_table_of_words_is_shared_by_the_head_and_must_fit(make_model: Make) -> None:
    from isobert.tf.layers import Embedding

    model = make_model("mobilebert", "ForMaskedLM", tie_word_embeddings=True)
    config, ids = model.config, np.array([[3, 4]])
    table, wrong = (Embedding(config.vocab_size + extra, config.embedding_size, 0.5) for extra in (0, 1))
    table.build()
    wrong.build()
    before = model(ids).logits
    model.set_input_embeddings(table)
    np.testing.assert_array_equal(model.get_input_embeddings().embeddings, table.embeddings)
    assert not np.allclose(model(ids).logits, before)
    with pytest.raises(InputError, match="new table of word embeddings"):
        model.set_input_embeddings(wrong)


def test_parameters_are_counted_once_and_frozen_ones_on_request(make_model: Make) -> None:
    tied, loose = (
        make_model("mobilebert", "ForMaskedLM", hidden_size=12, embedding_size=5, tie_word_embeddings=tie)
        for tie in (True, False)
    )
    assert loose.num_parameters() - tied.num_parameters() == tied.config.vocab_size * 5
    tied.get_input_embeddings().trainable = False
    assert tied.num_parameters() - tied.num_parameters(trainable_only=True) == tied.config.vocab_size * 5


def test_new_weights_are_the_same_for_the_same_seed_and_of_the_configs_deviation() -> None:
    config = MobileBertConfig(vocab_size=50, num_hidden_layers=1, initializer_range=0.3)
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(7)
        models.append(values(TFMobileBertForMaskedLM(config)))
    first, second = models
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert first["mobilebert.embeddings.embedding_transformation.weight"].std() == pytest.approx(0.88 * 0.3, rel=0.05)
    assert not first["mobilebert.embeddings.word_embeddings.weight"][config.pad_token_id].any()
    for name, value in first.items():
        if name.endswith("bias"):
            assert not value.any(), name
        elif "LayerNorm" in name:
            assert (value == 1).all(), name


def test_a_trace_is_what_the_model_computes(family: str, head: str, make_model: Make, make_inputs: Make) -> None:
    model = make_model(family, head, 6)
    inputs = make_inputs(model)
    scores = {} if model.get_lm_head() is None else {"output_logits": True}
    out = model(inputs, output_hidden_states=True, output_attentions=True, **scores)
    expected = {name: value for name, value in out.items() if not isinstance(value, tuple) and name != "loss"}
    for name in ("hidden_states", "attentions", "cross_attentions"):
        expected |= {f"{name}.{i}": value for i, value in enumerate(out.get(name) or ())}
    trace = model.trace(inputs)
    assert set(trace.outputs) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(trace.outputs[name], value, err_msg=name)
    if head == "Model":
        assert trace.loss is None
        assert trace.gradients == {}
        return
    assert trace.loss == float(out["loss"])
    trained = {name: layout for name, (variable, layout) in model._hub_variables().items() if variable.trainable}
    assert set(trace.gradients) == set(trained)
    shapes = {name: value.shape for name, value in values(model).items()}
    assert all(slope.shape == shapes[name] for name, slope in trace.gradients.items())
    assert model.trace(inputs, gradients=False).gradients == {}


def test_a_traced_gradient_is_the_slope_of_the_loss(make_model: Make, make_inputs: Make) -> None:
    model = make_model("mobilebert", "ForMaskedLM", hidden_act="tanh")
    inputs = make_inputs(model)
    slopes = model.trace(inputs).gradients
    random = np.random.default_rng(0)
    for name in ("mobilebert.embeddings.word_embeddings.weight", "cls.predictions.transform.dense.weight"):
        variable, layout = model._hub_variables()[name]
        direction = random.normal(size=variable.shape)
        # Row by row, looking up the padding id does not train its vector, though scores do.
        direction[model.config.pad_token_id if "embeddings" in name else 0] = 0
        losses = []
        for step in (1e-5, -2e-5):
            variable.assign_add(step * direction)
            losses.append(model.trace(inputs, gradients=False).loss)
        slope = (direction.T if layout == "reversed" else direction) * slopes[name]
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(slope.sum(), rel=1e-4)
        variable.assign_add(1e-5 * direction)


def test_a_trace_of_a_bfloat16_model_is_in_single_precision(make_model: Make, make_inputs: Make) -> None:
    model = make_model("mobilebert", "ForMaskedLM", dtype="bfloat16")
    trace = model.trace(make_inputs(model))
    assert {array.dtype for array in (*trace.outputs.values(), *trace.gradients.values())} == {np.dtype("float32")}


@pytest.mark.parametrize("output_class", OUTPUT_CLASSES)
def test_keras_sees_the_tensors_inside_an_output(output_class: Any) -> None:
    first, last = output_class.fields[0], output_class.fields[-1]
    output = output_class(**{last: (np.ones(1), np.ones(2)), first: np.zeros(1)})
    doubled = keras.tree.map_structure(lambda tensor: tensor + 1, output)
    assert type(doubled) is output_class
    assert doubled[first].tolist() == [1.0]
    assert [tensor.tolist() for tensor in doubled[last]] == [[2.0], [2.0, 2.0]]


def test_the_auto_classes_open_the_family_of_a_checkpoint(
    family: str, head: str, make_model: Make, tmp_path: Path
) -> None:
    auto = getattr(isobert, "TFAutoModel" if head == "Model" else f"TFAutoModel{head}")
    model = make_model(family, head)
    model.save_pretrained(tmp_path)
    opened, report = auto.from_pretrained(tmp_path, output_loading_info=True, dtype="float64")
    assert type(opened) is type(model) is model_class(family, head, "tf")
    assert not report
    assert_same_parameters(opened, values(model))
    assert type(auto.from_config(model.config)) is type(model)
    assert type(type(model).from_config(model.config)) is type(model)


def test_a_config_given_overrules_the_checkpoints_own(make_model: Make, tmp_path: Path) -> None:
    model = make_model("mobilebert", "ForMaskedLM")
    model.save_pretrained(tmp_path)
    opened = TFMobileBertForMaskedLM.from_pretrained(tmp_path, config=model.config, hidden_act="tanh")
    assert opened.config.hidden_act == "tanh"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_model_states_its_dtype_where_its_config_did(dtype: str, tmp_path: Path) -> None:
    model = TFMobileBertModel(random_config("mobilebert", 0).replace(torch_dtype="float16"), dtype=dtype)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == dtype


def test_a_resized_model_predicts_with_the_new_words(make_model: Make) -> None:
    model = make_model("mobilebert", "ForMaskedLM")
    size = model.config.vocab_size
    model.predict({"input_ids": np.array([[1, 2]])}, verbose=0)
    model.resize_token_embeddings(size + 3)
    scores = model.predict({"input_ids": np.array([[size, size + 2]])}, verbose=0).logits
    assert scores.shape == (1, 2, size + 3)
