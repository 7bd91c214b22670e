"""Every model with every head: what goes in, what comes out, and which ways to the same numbers there are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from isobert import TFMobileBertModel
from isobert.conversion.layouts import hub_shape
from isobert.core.registry import FAMILIES, model_class
from isobert.errors import ConfigError
from isobert.tf.losses import cross_entropy
from support.configs import CONFIG_SEEDS, attention_heads, random_config

Make = Callable[..., Any]

LM_HEADS = [(f, h) for f, entry in FAMILIES.items() for h in entry.heads if h in ("ForMaskedLM", "ForPreTraining")]


def assert_same_outputs(found: Any, expected: Any, tolerance: float = 1e-11) -> None:
    assert type(found) is type(expected)
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


def loss_and_gradients(model: Any, inputs: Any, *, training: bool = False) -> tuple[Any, list[Any]]:
    """Return the loss, or of a bare encoder something that hangs on its output, and the gradients of all variables."""
    with tf.GradientTape() as tape:
        out = model(inputs, training=training)
        loss = out["loss"] if "loss" in out else tf.reduce_mean(out["last_hidden_state"] ** 2)
    sources = [variable.value for variable in model.trainable_variables]
    slopes = tape.gradient(loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return loss, [tf.convert_to_tensor(slope) for slope in slopes]


@pytest.mark.parametrize("seed", CONFIG_SEEDS[:2])
def test_a_dict_and_arguments_by_name_and_in_order_are_one_call(
    family: str, head: str, seed: int, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, seed)
    inputs = make_inputs(model, seed, position_ids=True)
    expected = model(inputs)
    assert expected[0] is (expected["loss"] if "loss" in expected else expected["last_hidden_state"])
    assert_same_outputs(model(**inputs), expected)
    ids, mask = inputs.pop("input_ids"), inputs.pop("attention_mask")
    assert_same_outputs(model(ids, mask, **inputs), expected)


@pytest.mark.parametrize("seed", CONFIG_SEEDS[:4])
def test_a_fully_padded_row_gives_no_nan(
    family: str, head: str, seed: int, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, seed)
    square = seed % 2 == 1 and head != "ForMultipleChoice"
    inputs = make_inputs(model, seed, fully_padded_row=True, square_mask=square)
    assert all(np.isfinite(value).all() for value in model(inputs).values())
    loss, slopes = loss_and_gradients(model, inputs)
    assert np.isfinite(loss)
    assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("seed", CONFIG_SEEDS[:2])
def test_asking_for_hidden_states_and_attentions_gives_one_of_each_layer(
    family: str, head: str, seed: int, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, seed, num_hidden_layers=2)
    inputs = make_inputs(model, seed)
    config, (*batch, length) = model.config, inputs["input_ids"].shape
    rows = int(np.prod(batch))
    plain = model(inputs)
    assert not {"hidden_states", "attentions"} & set(plain)
    out = model(inputs, output_hidden_states=True, output_attentions=True)
    assert [tuple(h.shape) for h in out.hidden_states] == [(rows, length, config.hidden_size)] * 3
    assert [tuple(a.shape) for a in out.attentions] == [(rows, attention_heads(config), length, length)] * 2
    for layer in out.attentions:
        np.testing.assert_allclose(np.array(layer).sum(-1), 1.0, atol=1e-12)
    for earlier, later in pairwise(out.hidden_states):
        assert not np.array_equal(earlier, later)


def test_the_config_says_what_is_returned_and_a_call_overrules_it(make_model: Make) -> None:
    model = make_model("mobilebert", output_hidden_states=True, output_attentions=True)
    ids = np.array([[3, 4]])
    assert {"hidden_states", "attentions"} <= set(model(ids))
    assert not {"hidden_states", "attentions"} & set(model(ids, output_hidden_states=False, output_attentions=False))


@pytest.mark.parametrize("dtype", ["bool", "int32", "float32", "float64"])
@pytest.mark.parametrize("square", [False, True])
def test_a_mask_may_be_of_any_dtype(dtype: str, square: bool, make_model: Make, make_inputs: Make) -> None:
    model = make_model("mobilebert", "ForTokenClassification", 1)
    inputs = make_inputs(model, square_mask=square)
    expected = model(inputs)
    inputs["attention_mask"] = inputs["attention_mask"].astype(dtype)
    assert_same_outputs(model(inputs), expected)


def test_a_mask_leaves_no_mask_of_keras_behind(make_model: Make, make_inputs: Make) -> None:
    # Keras would weight compiled losses and metrics by it.
    model = make_model("mobilebert", "ForTokenClassification")
    assert getattr(model(make_inputs(model, fully_padded_row=True)).logits, "_keras_mask", None) is None


def test_a_mask_of_ones_and_segments_and_positions_by_default_change_nothing(family: str, make_model: Make) -> None:
    model = make_model(family)
    ids = np.array([[3, 4, 5, 6], [7, 8, 9, 2]])
    spelled_out = model(ids, np.ones((2, 4)), np.zeros_like(ids), np.arange(4)[None])
    assert_same_outputs(model(ids), spelled_out)


def test_word_vectors_in_place_of_ids_give_the_same(
    family: str, head: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, 3)
    inputs = make_inputs(model)
    expected = model(inputs)
    inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids"))
    assert_same_outputs(model(inputs), expected)
    assert_same_outputs(model(**inputs), expected)


def test_word_vectors_are_taken_to_the_models_dtype(make_model: Make) -> None:
    model = make_model("mobilebert", trigram_input=False, embedding_size=12, hidden_size=12)
    vectors = np.random.default_rng(0).normal(size=(1, 4, 12)).astype("float32")
    assert model(inputs_embeds=vectors).last_hidden_state.dtype == "float64"


@pytest.mark.parametrize("task", ["Model", "ForTokenClassification"])
def test_checkpointing_gives_the_same_loss_and_gradients_with_the_same_dropout(
    family: str, task: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, task, 1)
    inputs = make_inputs(model)

    def run() -> tuple[Any, list[Any]]:
        for layer in model._flatten_layers():
            if getattr(layer, "rate", 0.0) > 0:
                layer.seed_generator.state.assign([7, 11])
        return loss_and_gradients(model, inputs, training=True)

    (loss, slopes), (still, _) = run(), loss_and_gradients(model, inputs)
    assert float(loss) != float(still)
    model.gradient_checkpointing_enable()
    for found in (run(), tf.function(run)()):
        assert float(found[0]) == pytest.approx(float(loss), rel=1e-12)
        for mine, other in zip(found[1], slopes, strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12)


def test_checkpointing_runs_each_layer_a_second_time_in_the_backward_pass(make_model: Make) -> None:
    model = make_model("mobilebert", num_hidden_layers=2)
    ids, runs = {"input_ids": np.array([[3, 4]])}, []
    for layer in model.encoder.layer:
        layer.intermediate.activation = lambda values: runs.append(1) or tf.tanh(values)
    for enable, expected in ((False, 2), (True, 4), (False, 2)):
        (model.gradient_checkpointing_enable if enable else model.gradient_checkpointing_disable)()
        runs.clear()
        loss_and_gradients(model, ids, training=True)
        assert len(runs) == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16"])
def test_a_model_in_bfloat16_has_its_loss_in_float32(
    family: str, head: str, dtype: str, make_model: Make, make_inputs: Make
) -> None:
    exact = make_model(family, head, 5)
    inputs = make_inputs(exact, fully_padded_row=True)
    expected = exact(inputs)
    model = make_model(family, head, 5, dtype=dtype)
    assert {variable.dtype for variable in model.weights} == {"float32" if dtype == "mixed_bfloat16" else dtype}
    for name, value in model(inputs).items():
        assert value.dtype == ("float32" if name == "loss" else "bfloat16")
        error = (
            np.abs(ops.convert_to_numpy(value).astype("float64") - expected[name]).max() / np.abs(expected[name]).max()
        )
        assert error < 0.3, name
    assert all(np.isfinite(ops.convert_to_numpy(slope)).all() for slope in loss_and_gradients(model, inputs)[1])


def test_labels_of_a_regression_are_not_rounded_to_the_compute_dtype(make_model: Make) -> None:
    model = make_model(
        "mobilebert", "ForSequenceClassification", dtype="mixed_bfloat16", num_labels=1, problem_type=None
    )
    ids = np.array([[3, 4]])
    logit = float(model(ids).logits[0, 0])
    label = np.array([logit + 1.001], "float32")  # bfloat16 has no number near 1.001 but 1
    assert float(model(ids, labels=label).loss) == pytest.approx(1.001**2, rel=1e-4)


def test_both_labels_of_pretraining_are_needed_for_a_loss_and_it_is_their_sum(
    make_model: Make, make_inputs: Make
) -> None:
    model = make_model("mobilebert", "ForPreTraining")
    inputs = make_inputs(model)
    out = model(inputs, output_logits=True)
    expected = cross_entropy(out.prediction_logits, inputs["labels"]) + cross_entropy(
        out.seq_relationship_logits, inputs["next_sentence_label"]
    )
    assert float(out.loss) == pytest.approx(float(expected), rel=1e-12)
    del inputs["labels"]
    assert model(inputs).loss is None


@pytest.mark.parametrize(("kind", "task"), LM_HEADS)
def test_a_loss_of_words_comes_without_their_scores_unless_these_are_asked_for(
    kind: str, task: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(kind, task, 1)
    name = "prediction_logits" if task == "ForPreTraining" else "logits"
    labelled, bare = make_inputs(model), make_inputs(model, labels=False)
    out = model(labelled, output_logits=True)
    without = model(labelled)
    assert name in out
    assert name not in without
    assert float(without.loss) == pytest.approx(float(out.loss), rel=1e-12)
    np.testing.assert_allclose(model(bare)[name], out[name])
    assert name not in model(bare, output_logits=False)
    if task == "ForMaskedLM":
        assert float(out.loss) == pytest.approx(float(cross_entropy(out.logits, labelled["labels"])), rel=1e-12)
    # A loss or metrics that `compile` is given are computed from scores.
    for given in ({"metrics": ["accuracy"]}, {"loss": "sparse_categorical_crossentropy"}):
        model.compile("sgd", **({k: {name: v} for k, v in given.items()} if task == "ForPreTraining" else given))
        assert name in model(labelled)


def test_next_sentence_labels_have_two_names(make_model: Make, make_inputs: Make) -> None:
    model = make_model("mobilebert", "ForNextSentencePrediction")
    inputs = make_inputs(model)
    expected = model(inputs).loss
    inputs["next_sentence_label"] = inputs.pop("labels")
    assert float(model(inputs).loss) == float(expected)


def test_a_choice_does_not_depend_on_the_others(family: str, make_model: Make, make_inputs: Make) -> None:
    model = make_model(family, "ForMultipleChoice")
    inputs = make_inputs(model, labels=False)
    logits = np.array(model(inputs).logits)
    some = {name: values[:, 1:3] for name, values in inputs.items()}
    np.testing.assert_allclose(model(some).logits, logits[:, 1:3], rtol=1e-10)


def test_every_variable_is_at_the_path_of_its_hub_name(family: str, head: str) -> None:
    config = random_config(family, 3, num_hidden_layers=2)
    torch_model = model_class(family, head, "pt")(config)
    expected = {name: tuple(value.shape) for name, value in torch_model.named_parameters()}
    model = model_class(family, head, "tf")(config, name="any_name")
    found = model._hub_variables()
    assert {name: hub_shape(tuple(v.shape), layout) for name, (v, layout) in found.items()} == expected
    assert all(variable.path.startswith("any_name/") for variable in model.weights)
    assert found[
        "embeddings.LayerNorm.bias" if head == "Model" else f"{model.base_model_prefix}.embeddings.LayerNorm.bias"
    ]


def test_a_model_made_inside_another_scope_has_the_same_hub_names(family: str, head: str) -> None:
    import keras

    model_type, config = model_class(family, head, "tf"), random_config(family, 0, num_hidden_layers=1)
    with keras.name_scope("outer"):
        inner = model_type(config)
    assert set(inner._hub_variables()) == set(model_type(config)._hub_variables())


def test_all_variables_exist_once_the_model_is_made(
    family: str, head: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head)
    before = [variable.path for variable in model.variables]
    model(make_inputs(model), training=True)
    assert [variable.path for variable in model.variables] == before


def test_a_map_that_has_nothing_to_do_is_not_trained(make_model: Make) -> None:
    model = make_model("mobilebert", trigram_input=False, embedding_size=12, hidden_size=12)
    assert not model.embeddings.embedding_transformation.trainable_variables
    assert model.num_parameters() - model.num_parameters(trainable_only=True) == 12 * 12 + 12


def test_a_model_takes_only_a_config_of_its_own_family() -> None:
    from isobert.core.config import PretrainedConfig

    with pytest.raises(ConfigError, match="takes a MobileBertConfig; it got a PretrainedConfig"):
        TFMobileBertModel(PretrainedConfig())
