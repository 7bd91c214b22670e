"""Keras's own `fit`, `evaluate` and `predict`, with labels among the inputs and with `compile(loss=...)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from isobert.conversion.layouts import to_hub
from isobert.errors import InputError
from isobert.tokenization.encoding import BatchEncoding
from support.configs import random_config

Make = Callable[..., Any]


def without_dropout(
    make_model: Make, head: str, dtype: str = "float32", family: str = "mobilebert", **overrides: Any
) -> Any:
    fields = {"num_hidden_layers": 1, "num_labels": 3, "problem_type": None}
    known = random_config(family, 4).to_dict()
    fields |= {name: 0.0 for name in known if "dropout" in name}
    fields |= {name: None for name in known if name == "attention_mask_value"}
    return make_model(family, head, 4, dtype, **{**fields, **overrides})


def in_single(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.astype("float32") if array.dtype.kind == "f" else array for name, array in inputs.items()}


def sgd_by_hand(model: Any, inputs: dict[str, np.ndarray], rate: float) -> dict[str, np.ndarray]:
    """Return what one step of gradient descent makes of each trained variable, by Hub name."""
    slopes = model.trace(inputs).gradients
    before = {name: (variable, layout) for name, (variable, layout) in model._hub_variables().items()}
    found = {}
    for name, slope in slopes.items():
        variable, layout = before[name]
        value = keras.ops.convert_to_numpy(variable)
        found[name] = to_hub(value, layout) - rate * slope
    return found


@pytest.mark.parametrize("task", ["ForMaskedLM", "ForSequenceClassification", "ForMultipleChoice"])
def test_fit_with_labels_among_the_inputs_takes_the_step_of_the_models_own_loss(
    family: str, task: str, make_model: Make, make_inputs: Make
) -> None:
    model = without_dropout(make_model, task, family=family)
    inputs = in_single(make_inputs(model))
    expected, loss = sgd_by_hand(model, inputs, 0.05), float(model(inputs).loss)
    model.compile(keras.optimizers.SGD(0.05), jit_compile=False)
    history = model.fit(inputs, verbose=0).history
    assert history["loss"] == [pytest.approx(loss, rel=1e-5)]
    for name, (variable, layout) in model._hub_variables().items():
        value = keras.ops.convert_to_numpy(variable)
        if name in expected:
            np.testing.assert_allclose(to_hub(value, layout), expected[name], atol=1e-5, err_msg=name)


def test_every_head_evaluates_and_predicts_a_data_set_with_labels(
    family: str, head: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, 2, "float32", num_hidden_layers=1)
    inputs = in_single(make_inputs(model, batch=4))
    expected = model(inputs, **({} if model.get_lm_head() is None else {"output_logits": True}))
    model.compile("sgd", jit_compile=False)
    predicted = model.predict(inputs, batch_size=3, verbose=0)
    # The loss is no prediction, and it could not be joined over batches.
    assert type(predicted) is type(expected)
    assert list(predicted) == [name for name in expected if name != "loss"]
    for name, value in predicted.items():
        assert isinstance(value, np.ndarray)
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)
    if "loss" in expected:
        data = tf.data.Dataset.from_tensor_slices(inputs).batch(4)
        assert model.evaluate(data, verbose=0) == pytest.approx(float(expected.loss), rel=1e-5)


def test_what_a_tokenizer_returns_goes_into_fit_evaluate_and_predict_as_it_is(make_model: Make) -> None:
    model = without_dropout(make_model, "ForSequenceClassification", num_labels=2)
    batch = BatchEncoding({"input_ids": np.arange(2, 18).reshape(4, 4), "attention_mask": np.ones((4, 4), "int64")})
    labels = np.array([0, 1, 1, 0])
    np.testing.assert_allclose(model.predict(batch, batch_size=3, verbose=0).logits, model(batch).logits, atol=1e-5)
    model.compile("sgd", jit_compile=False)
    labelled = BatchEncoding({**batch, "labels": labels})
    assert model.evaluate(labelled, batch_size=4, verbose=0) == pytest.approx(float(model(labelled).loss), rel=1e-5)
    assert np.isfinite(model.fit(labelled, batch_size=2, verbose=0).history["loss"]).all()
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    assert np.isfinite(model.fit(batch, labels, batch_size=2, validation_split=0.5, verbose=0).history["loss"]).all()


def test_fit_learns_a_task_under_xla(family: str, make_model: Make) -> None:
    # The first position of a decoder sees nothing of a text but itself.
    encoder = {"is_decoder": False} if family == "rembert" else {}
    model = without_dropout(make_model, "ForSequenceClassification", family=family, num_labels=2, **encoder)
    ids = np.random.default_rng(0).integers(2, 20, (64, 8))
    labels = (ids[:, 1] > 10).astype("int64")
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=True, weighted_metrics=["accuracy"])
    model.fit({"input_ids": ids, "labels": labels}, epochs=20, batch_size=16, verbose=0)
    loss, accuracy = model.evaluate({"input_ids": ids, "labels": labels}, verbose=0)
    assert accuracy > 0.9
    assert loss < 0.4


def test_a_compiled_loss_sees_the_logits_and_trains_as_the_models_own_does(make_model: Make, make_inputs: Make) -> None:
    losses, weights = [], []
    for compiled in (False, True):
        model = without_dropout(make_model, "ForSequenceClassification")
        inputs = make_inputs(model)
        if compiled:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.SGD(0.1), loss=loss, metrics=["accuracy"], jit_compile=False)
            history = model.fit(inputs, inputs.pop("labels"), verbose=0).history
            assert "accuracy" in history
        else:
            model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
            history = model.fit(inputs, verbose=0).history
        losses.append(history["loss"][0])
        weights.append(model.get_weights())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for mine, other in zip(*weights, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


@pytest.mark.parametrize("names", [("start_logits", "end_logits"), ("start_positions", "end_positions")])
def test_a_head_with_two_kinds_of_scores_takes_a_loss_for_each(
    names: tuple[str, str], make_model: Make, make_inputs: Make
) -> None:
    model = without_dropout(make_model, "ForQuestionAnswering")
    inputs = make_inputs(model, batch=4)
    positions = {"start": inputs.pop("start_positions"), "end": np.minimum(inputs.pop("end_positions"), 8)}
    own = model(inputs, start_positions=positions["start"], end_positions=positions["end"]).loss
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        "sgd",
        loss={"start_logits": loss, "end_logits": loss},
        loss_weights={"start_logits": 0.5, "end_logits": 0.5},
        metrics={"end_logits": ["accuracy"]},
        jit_compile=False,
    )
    logs = model.evaluate(inputs, dict(zip(names, positions.values(), strict=True)), verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(float(own), rel=1e-5)
    assert any("accuracy" in name for name in logs)


def test_weighted_metrics_leave_out_ignored_labels_among_the_inputs(make_model: Make, make_inputs: Make) -> None:
    model = without_dropout(make_model, "ForTokenClassification")
    inputs = make_inputs(model, batch=6)
    found = np.array(model(inputs).logits).argmax(-1)
    counted = inputs["labels"] != -100
    assert counted.any()
    assert not counted.all()
    metric = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    model.compile("sgd", weighted_metrics=[metric], jit_compile=False)
    logs = model.evaluate(inputs, verbose=0, return_dict=True)
    assert logs["accuracy"] == pytest.approx((found == inputs["labels"])[counted].mean(), abs=1e-6)


def test_fit_in_mixed_precision_keeps_weights_and_loss_in_single(make_model: Make, make_inputs: Make) -> None:
    model = without_dropout(make_model, "ForSequenceClassification", "mixed_bfloat16", num_labels=1)
    inputs = in_single(make_inputs(model))
    expected = float(model(inputs).loss)
    model.compile(keras.optimizers.SGD(0.05), jit_compile=False)
    history = model.fit(inputs, verbose=0, epochs=3).history["loss"]
    assert history[0] == pytest.approx(expected, rel=0.05)
    assert history[-1] < history[0]
    assert {variable.dtype for variable in model.weights} == {"float32"}


def test_a_model_called_without_training_has_no_dropout_and_fit_has(make_model: Make, make_inputs: Make) -> None:
    model = make_model("mobilebert", "ForTokenClassification")
    inputs = make_inputs(model)
    assert float(model(inputs).loss) == float(model(inputs).loss) != float(model(inputs, training=True).loss)
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    loss = model.fit(inputs, verbose=0).history["loss"][0]
    assert loss != pytest.approx(float(model(inputs).loss), rel=1e-4)
    for mine, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize(("head", "words"), [("Model", "no head"), ("ForQuestionAnswering", "'start_positions' and")])
def test_fit_without_any_labels_says_which_are_wanted(
    head: str, words: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model("mobilebert", head)
    model.compile("sgd", jit_compile=False)
    with pytest.raises(InputError, match=f"no loss to train with.*{words}"):
        model.fit(make_inputs(model, labels=False), verbose=0)


def test_a_functional_model_around_ours_trains_and_predicts(make_model: Make, make_inputs: Make) -> None:
    model = without_dropout(make_model, "Model", output_hidden_states=True)
    x = make_inputs(model, batch=4)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in x}
    encoded = model(inputs)
    assert type(encoded) is type(model(x))
    score = keras.layers.Dense(1)(encoded.last_hidden_state[:, 0])
    whole = keras.Model(inputs, {"score": score, "encoded": encoded})
    predicted = whole.predict(x, verbose=0, batch_size=3)
    assert type(predicted["encoded"]) is type(encoded)
    np.testing.assert_allclose(predicted["encoded"].hidden_states[1], model(x).hidden_states[1], rtol=1e-4, atol=1e-5)
    trained = keras.Model(inputs, score)
    trained.compile(keras.optimizers.SGD(0.01), loss="mse", jit_compile=False)
    before = keras.ops.convert_to_numpy(model.get_input_embeddings().embeddings)
    trained.fit(x, np.ones((4, 1), "float32"), verbose=0)
    assert np.abs(keras.ops.convert_to_numpy(model.get_input_embeddings().embeddings) - before).max() > 0


def test_checkpointing_is_taken_up_by_the_next_fit(
    make_model: Make, make_inputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    remat = keras.remat
    monkeypatch.setattr(keras, "remat", lambda function: calls.append(1) or remat(function))
    model = without_dropout(make_model, "ForTokenClassification")
    inputs = make_inputs(model)
    model.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    model.fit(inputs, verbose=0)
    assert not calls
    model.gradient_checkpointing_enable()
    model.fit(inputs, verbose=0)
    assert len(calls) == 1
