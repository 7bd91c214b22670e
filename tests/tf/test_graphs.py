"""Models as graphs and files: `tf.function`, XLA, `.keras`, SavedModel; the numbers are those of a plain call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

Make = Callable[..., Any]
SERVED = ("input_ids", "attention_mask", "token_type_ids")


def assert_close(found: Any, expected: Any, tolerance: float = 1e-11) -> None:
    for mine, other in zip(tf.nest.flatten(dict(found)), tf.nest.flatten(dict(expected)), strict=True):
        np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance)


def test_a_graph_of_unknown_batch_and_length_computes_the_same(
    family: str, head: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, 3)
    inputs = make_inputs(model, fully_padded_row=True)
    traced = tf.function(lambda inputs: model(inputs, output_attentions=True), reduce_retracing=True)
    signature = {name: tf.TensorSpec([None] * array.ndim, array.dtype) for name, array in inputs.items()}
    graph = traced.get_concrete_function(signature)
    for seed, batch, length in ((0, 3, 9), (1, 2, 5)):
        inputs = make_inputs(model, seed, batch=batch, length=length)
        found = traced({name: tf.constant(array) for name, array in inputs.items()})
        expected = model(inputs, output_attentions=True)
        assert type(found) is type(expected)
        assert_close(found, expected)
    assert traced.experimental_get_tracing_count() == 1
    assert graph is not None


@pytest.mark.parametrize("task", ["ForMaskedLM", "ForQuestionAnswering"])
def test_xla_computes_the_same(family: str, task: str, make_model: Make, make_inputs: Make) -> None:
    model = make_model(family, task, 3)
    inputs = make_inputs(model, fully_padded_row=True)
    found = tf.function(lambda inputs: model(inputs), jit_compile=True)(inputs)
    assert_close(found, model(inputs), 1e-10)


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_a_keras_file_loads_again_as_the_same_model(
    family: str, head: str, dtype: str, make_model: Make, make_inputs: Make, tmp_path: Path
) -> None:
    model = make_model(family, head, 4, dtype, tie_word_embeddings=head == "ForMaskedLM")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert loaded.dtype_policy.name == dtype
    inputs = make_inputs(model)
    expected = model(inputs)
    assert_close(
        {name: tf.cast(v, "float64") for name, v in loaded(inputs).items()},
        {name: tf.cast(v, "float64") for name, v in expected.items()},
        0.0,
    )


def test_training_goes_on_from_a_keras_file(make_model: Make, make_inputs: Make, tmp_path: Path) -> None:
    fields = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
    model = make_model("mobilebert", "ForTokenClassification", dtype="float32", **fields)
    inputs = make_inputs(model)
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    model.fit(inputs, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations) == 2
    for one in (model, loaded):
        one.fit(inputs, verbose=0)
    for mine, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)


def test_a_summary_counts_the_parameters(family: str, head: str, make_model: Make) -> None:
    model = make_model(family, head)
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    assert f"Total params: {model.num_parameters():,} " in "\n".join(lines)


def test_a_bare_encoder_keeps_its_pooler_or_the_lack_of_one_in_a_keras_file(make_model: Make, tmp_path: Path) -> None:
    from isobert import TFMobileBertModel

    config = make_model("mobilebert").config
    for pooler in (True, False):
        TFMobileBertModel(config, add_pooling_layer=pooler).save(tmp_path / "model.keras")
        out = keras.models.load_model(tmp_path / "model.keras")(np.array([[3, 4]]))
        assert ("pooler_output" in out) is pooler


def test_a_functional_model_around_ours_goes_through_a_keras_file(
    make_model: Make, make_inputs: Make, tmp_path: Path
) -> None:
    model = make_model("mobilebert", "ForTokenClassification", 1, "float32")
    x = make_inputs(model, labels=False)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in x}
    whole = keras.Model(inputs, keras.layers.Softmax()(model(inputs).logits))
    whole.save(tmp_path / "whole.keras")
    loaded = keras.models.load_model(tmp_path / "whole.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), whole.predict(x, verbose=0))


@pytest.mark.parametrize("task", ["Model", "ForMaskedLM", "ForMultipleChoice", "ForQuestionAnswering"])
def test_a_saved_model_serves_the_same_numbers_for_any_batch_and_length(
    family: str, task: str, make_model: Make, make_inputs: Make, tmp_path: Path
) -> None:
    asked = task == "Model"
    model = make_model(family, task, 1, output_hidden_states=asked, output_attentions=asked)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    for batch, length in ((3, 9), (1, 4)):
        given = make_inputs(model, batch=batch, length=length, labels=False)
        inputs = {name: given[name].astype("int32") for name in SERVED}
        expected = model(inputs)
        flat = {name: value for name, value in expected.items() if not isinstance(value, tuple)}
        for name in ("hidden_states", "attentions"):
            flat |= {f"{name}.{i}": value for i, value in enumerate(expected.get(name) or ())}
        assert asked is ("attentions.1" in flat)
        for found in (served.serve(inputs), served.signatures["serving_default"](**inputs)):
            assert set(found) == set(flat)
            for name, value in flat.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-11, err_msg=name)
