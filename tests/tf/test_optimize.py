"""An optimized model computes what its original does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from isobert import TFMobileBertForMaskedLM, TFMobileBertModel
from isobert.errors import InputError, OptimizedModelError
from isobert.tf import optimize
from support.compare import TOLERANCES, assert_close, relative_errors
from support.configs import CONFIG_SEEDS, MANY_CONFIG_SEEDS, random_config
from support.weights import randomise

Make = Callable[..., Any]

SEEDS = [*CONFIG_SEEDS, *(pytest.param(seed, marks=pytest.mark.slow) for seed in MANY_CONFIG_SEEDS)]
EVERYTHING = {"output_hidden_states": True, "output_attentions": True}


def arrays(output: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return an output's tensors by name; those of a tuple as `hidden_states.0` and so on."""
    found: dict[str, Any] = {}
    for name, value in output.items():
        if name != "past_key_values":
            found.update({f"{name}.{i}": v for i, v in enumerate(value)} if isinstance(value, tuple) else {name: value})
    return {name: np.asarray(tf.cast(value, "float64")) for name, value in found.items()}


def cast(inputs: dict[str, np.ndarray], dtype: str) -> dict[str, Any]:
    """Take the floating ones of a model's inputs to a dtype."""
    return {name: tf.cast(v, dtype) if v.dtype.kind == "f" else v for name, v in inputs.items()}


def assert_same(model: Any, inputs: dict[str, Any], tolerance: float) -> None:
    """Compare a model with what it is optimized to, in every kind of output."""
    optimized = optimize(model)
    assert type(optimized) is type(model)
    assert optimized.config == model.config
    for wanted in (EVERYTHING, {}):
        expected, found = model(**inputs, **wanted), optimized(**inputs, **wanted)
        assert type(found) is type(expected)
        assert list(found) == list(expected)
        assert_close(relative_errors(arrays(found), arrays(expected)), tolerance)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_model_of_any_config_computes_the_same(
    family: str, seed: int, dtype: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, seed=seed, dtype=dtype)
    inputs = make_inputs(model, seed, fully_padded_row=True, square_mask=seed % 2 == 1, position_ids=seed % 3 == 0)
    assert_same(model, cast(inputs, dtype), TOLERANCES[dtype])


def test_every_head_computes_the_same_scores_and_the_same_loss(
    family: str, head: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, 4)
    assert_same(model, make_inputs(model, 4, fully_padded_row=True), TOLERANCES["float64"])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_graphs_compute_the_same(family: str, jit_compile: bool, make_model: Make, make_inputs: Make) -> None:
    model = make_model(family, "ForQuestionAnswering", 3)
    inputs, optimized = make_inputs(model, fully_padded_row=True), optimize(model)
    graph = tf.function(lambda inputs: optimized(inputs, **EVERYTHING), jit_compile=jit_compile)
    assert_close(relative_errors(arrays(graph(inputs)), arrays(model(inputs, **EVERYTHING))), TOLERANCES["float64"])


def test_a_saved_model_serves_the_same_for_any_batch_and_length(
    family: str, make_model: Make, make_inputs: Make, tmp_path: Path
) -> None:
    model = make_model(family, "ForTokenClassification", 1, "float32")
    optimize(model).export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    for batch, length in ((3, 9), (1, 4)):
        inputs = make_inputs(model, batch=batch, length=length, labels=False)
        inputs = {
            name: tf.constant(inputs[name], "int32") for name in ("input_ids", "attention_mask", "token_type_ids")
        }
        assert_close(relative_errors(arrays(served.serve(inputs)), arrays(model(inputs))), TOLERANCES["float32"])


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16"])
@pytest.mark.parametrize("seed", CONFIG_SEEDS[:2])
def test_bfloat16_is_no_worse_than_the_plain_models(
    family: str, seed: int, policy: str, make_model: Make, make_inputs: Make
) -> None:
    exact = make_model(family, seed=seed, num_hidden_layers=3)
    plain = type(exact).from_config({**exact.get_config(), "dtype": policy})
    plain.set_weights(exact.get_weights())
    inputs = make_inputs(exact, seed, batch=8, square_mask=True)
    expected = np.asarray(exact(**inputs).last_hidden_state)

    def error(model: Any) -> float:
        found = np.asarray(tf.cast(model(**inputs).last_hidden_state, "float64"))
        return float(np.sqrt(np.mean((found - expected) ** 2)))

    optimized = optimize(exact, dtype=policy)
    if "left the layers as they are" not in optimized.optimizations[0]:
        kept = [v for v in optimized.base_model.encoder.variables if "norm" not in v.path]
        assert {v.dtype for v in kept} == {"bfloat16"}
    # Both are draws of rounding; a tenth is their scatter.
    assert error(optimized) <= 1.1 * error(plain)


def overflowing_model() -> TFMobileBertModel:
    """Return a MobileBERT whose streams leave float16's range, and whose maps that read them are small accordingly."""
    config = random_config(
        "mobilebert",
        2,
        normalization_type="no_norm",
        use_bottleneck=True,
        use_bottleneck_attention=False,
        key_query_shared_bottleneck=True,
        hidden_act="relu",
        num_hidden_layers=3,
        num_feedforward_networks=4,
    )
    model = randomise(TFMobileBertModel(config, dtype="float64"), 2)
    first, second, third = model.encoder.layer

    def scale(variable: Any, factor: float, axis: int | None = None) -> None:
        """Multiply a variable, or every third of its rows (axis 0) or columns (axis -1)."""
        factors = np.where(np.arange(config.hidden_size) % 3 == 0, factor, 1.0)
        variable.assign(variable * (factor if axis is None else factors[:, None] if axis == 0 else factors))

    # Channels of the stream, in the second layer; in the third they are back.
    scale(first.output_.bottleneck.dense.kernel, 3e3, -1)
    scale(first.output_.bottleneck.LayerNorm.weight, 3e2, -1)
    scale(second.output_.bottleneck.LayerNorm.weight, 1e-6, -1)
    for dense in (second.bottleneck.input_.dense, second.bottleneck.attention.dense, second.attention.self.value):
        scale(dense.kernel, 1e-6, 0)
    # What the first layer works with, between two of its feed-forward networks; and the values of the third.
    scale(first.ffn[0].output_.dense.kernel, 1e4)
    scale(first.ffn[0].output_.LayerNorm.weight, 1e2)
    scale(first.ffn[1].intermediate.dense.kernel, 1e-3)
    scale(first.ffn[1].output_.LayerNorm.weight, 1e-6)
    scale(third.attention.self.value.kernel, 1e5)
    scale(third.attention.output_.dense.kernel, 1e-5)
    return model


def test_float16_holds_streams_that_overflow_the_plain_model(make_inputs: Make) -> None:
    exact = overflowing_model()
    inputs = make_inputs(exact, labels=False)
    expected = exact(**inputs, output_hidden_states=True)
    assert max(np.abs(state).max() for state in expected.hidden_states) > np.finfo(np.float16).max
    plain = type(exact).from_config({**exact.get_config(), "dtype": "float16"})
    plain.set_weights(exact.get_weights())
    found = np.asarray(optimize(exact, dtype="float16")(**inputs).last_hidden_state, np.float64)
    assert not np.isfinite(plain(**inputs).last_hidden_state).all()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected.last_hidden_state, rtol=0, atol=0.02)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_original_is_unchanged_and_tables_are_in_memory_once(family: str, dtype: str, make_model: Make) -> None:
    model = make_model(family, "ForMaskedLM", 4, dtype)
    before = {variable.path: ops.convert_to_numpy(variable) for variable in model.weights}
    trained = {variable.path for variable in model.trainable_variables}
    optimized = optimize(model)
    assert {variable.path for variable in model.trainable_variables} == trained
    for variable in model.weights:
        np.testing.assert_array_equal(variable, before[variable.path])
    assert not model.optimizations
    assert not optimized.trainable_variables
    tables = [each.get_input_embeddings().embeddings for each in (model, optimized)]
    assert tables[0].value is tables[1].value
    heads = [{v.path: v for v in each.get_lm_head().variables} for each in (model, optimized)]
    assert all(heads[0][path].value is heads[1][path].value for path in heads[0])


def test_training_and_saving_are_refused(tmp_path: Path) -> None:
    model = optimize(TFMobileBertForMaskedLM(random_config("mobilebert", 4)))
    inputs = {"input_ids": np.array([[3, 4, 5]]), "labels": np.array([[3, -100, 5]])}
    model.compile("adam")
    for train in (
        lambda: model(inputs, training=True),
        lambda: model.fit(inputs, verbose=0),
        lambda: model.train_on_batch(inputs),
    ):
        with pytest.raises(OptimizedModelError, match="cannot be trained; use the model that it was made of"):
            train()
    for save in (
        lambda: model.save_pretrained(tmp_path / "folder"),
        lambda: model.save(tmp_path / "model.keras"),
    ):
        with pytest.raises(OptimizedModelError, match="cannot be saved; use the model that it was made of"):
            save()
    assert not list(tmp_path.iterdir())
    assert np.isfinite(model.predict({"input_ids": inputs["input_ids"]}, verbose=0).logits).all()


def test_a_model_is_optimized_once_and_as_it_was_made() -> None:
    model = TFMobileBertModel(random_config("mobilebert", 4))
    with pytest.raises(OptimizedModelError, match="optimized already"):
        optimize(optimize(model))
    model.encoder.layer[0].intermediate.dense.enable_lora(2)
    with pytest.raises(OptimizedModelError, match=r"layer\.0/intermediate/dense/lora_kernel_a .*Merge adapters first"):
        optimize(model)


def test_a_model_tells_what_was_done_to_it(caplog: pytest.LogCaptureFixture) -> None:
    config = random_config(
        "mobilebert",
        4,
        normalization_type="no_norm",
        hidden_act="relu",
        use_bottleneck=True,
        use_bottleneck_attention=False,
        key_query_shared_bottleneck=True,
        num_feedforward_networks=4,
        num_hidden_layers=3,
    )
    model = TFMobileBertModel(config)
    with caplog.at_level("INFO", "isobert"):
        optimized = optimize(model)
    assert "36 in the layers instead of 45" in optimized.optimizations[1]
    assert "folded 25 NoNorms" in optimized.optimizations[0]
    assert optimized.optimizations[1] in caplog.text
    # A product is two `MatMul`s of the graph, one for each half of the positions, and no norm is left in it.
    graph = tf.function(lambda ids: optimized.encoder(tf.ones((1, 4, config.hidden_size)))).get_concrete_function(0)
    kinds = [node.type for node in graph.graph.get_operations()]
    assert kinds.count("MatMul") == 2 * 36
    assert kinds.count("Mul") == 1


def test_a_decoder_is_left_as_it_is(make_model: Make) -> None:
    model = make_model("rembert", "ForCausalLM", is_decoder=True)
    optimized = optimize(model)
    assert "decoder" in optimized.optimizations[0]
    ids = np.array([[3, 4, 5]])
    np.testing.assert_array_equal(optimized(ids).logits, model(ids).logits)


def test_the_policy_is_the_originals_unless_another_is_asked_for(make_model: Make) -> None:
    model = make_model("squeezebert", dtype="float32")
    assert optimize(model).dtype_policy.name == "float32"
    assert optimize(model, dtype="mixed_float16").dtype_policy.name == "mixed_float16"
    assert optimize(model, dtype=keras.DTypePolicy("float64")).compute_dtype == "float64"


def test_what_is_no_model_or_no_dtype_is_named() -> None:
    with pytest.raises(InputError, match="it got a dict"):
        optimize({})  # type: ignore[type-var]
    model = TFMobileBertModel(random_config("mobilebert", 0))
    with pytest.raises(InputError, match="dtype is 'float3'"):
        optimize(model, dtype="float3")
    assert "bfloat16" in str(optimize(model, dtype="bfloat16").dtype_policy.name)
