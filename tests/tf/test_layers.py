"""The blocks that all families share compute the equations of their papers."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from isobert.conversion.formats.base import aligned, aligned_empty
from isobert.core.config import ACTIVATIONS
from isobert.tf import layers
from isobert.tf.attention import AttentionMask, SelfAttention, attend, padded_positions
from isobert.tf.layers import (
    AddNorm,
    Dense,
    Embedding,
    GroupedConvolution,
    GroupedDense,
    Intermediate,
    LayerNorm,
    NoNorm,
    activation,
    adopted,
    normalization,
    resized,
)

FORMULAS = {
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_new": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "linear": lambda x: x,
}
FORMULAS |= {
    "gelu_fast": FORMULAS["gelu_new"],
    "gelu_pytorch_tanh": FORMULAS["gelu_new"],
    "swish": FORMULAS["silu"],
}
RANDOM = np.random.default_rng(0)


def same(values: Any) -> Any:
    """No dropout."""
    return values


def build(layer: Any) -> Any:
    """Make a layer's variables, and its weights and biases larger than new ones are."""
    layer.build()
    for variable in layer.trainable_variables:
        variable.assign(RANDOM.normal(size=variable.shape))
    return layer


def test_every_legal_activation_is_tested() -> None:
    assert set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_its_formula(name: str) -> None:
    points = [-7.0, -2.5, -0.3, 0.0, 0.4, 3.0, 8.0]
    found = activation(name)(ops.convert_to_tensor(np.array(points)))
    np.testing.assert_allclose(found, [FORMULAS[name](x) for x in points], rtol=1e-12, atol=1e-14)


def test_no_norm_scales_and_shifts_each_channel() -> None:
    norm = build(NoNorm(3))
    norm.weight.assign([2.0, 3.0, 5.0])
    norm.bias.assign([0.1, 0.2, 0.3])
    np.testing.assert_allclose(norm(np.array([[1.0, -1.0, 10.0]])), [[2.1, -2.8, 50.3]], rtol=1e-6)


@pytest.mark.parametrize(("kind", "epsilon"), [("layer_norm", 0.5), ("manual_layer_norm", 1e-6)])
def test_a_layer_norm_has_the_epsilon_of_its_kind(kind: str, epsilon: float) -> None:
    values = np.array([1.0, 2.0, 6.0])
    norm = normalization(kind, 3, 0.5, dtype="float64")
    norm.build()
    np.testing.assert_allclose(norm(values[None])[0], (values - 3) / math.sqrt(14 / 3 + epsilon), rtol=1e-12)


def test_new_dense_weights_have_the_deviation_asked_for_and_stay_within_two() -> None:
    dense = Dense(300, 300, std=0.1)
    dense.build()
    kernel = ops.convert_to_numpy(dense.kernel)
    # Cutting a normal distribution at two deviations leaves 0.8796 of its deviation.
    assert kernel.std() == pytest.approx(0.08796, rel=0.01)
    assert 0.19 < np.abs(kernel).max() <= 0.2
    assert not ops.convert_to_numpy(dense.bias).any()


def test_what_is_drawn_in_parts_is_as_if_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_DRAWN_AT_ONCE", 700)  # two rows of 300, and the last one alone
    dense = Dense(301, 300, std=0.1)
    dense.build()
    kernel = ops.convert_to_numpy(dense.kernel)
    assert len(np.unique(kernel)) > 0.99 * kernel.size  # no part is drawn twice
    assert kernel.std(axis=1) == pytest.approx(0.08796, rel=0.25)
    assert 0.19 < np.abs(kernel).max() <= 0.2


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(5, 3), (0, 3), (3, 0)])
def test_a_tensor_that_adopts_an_array_has_its_numbers(dtype: str, shape: tuple[int, ...]) -> None:
    array = aligned_empty(shape, np.dtype(dtype))
    array[...] = np.arange(array.size).reshape(shape)
    tensor = adopted(array)
    assert keras.backend.standardize_dtype(tensor.dtype) == dtype
    assert np.array_equal(ops.convert_to_numpy(tensor), np.arange(array.size).reshape(shape))


def test_a_variable_that_adopted_an_array_is_trained_as_any_other() -> None:
    table = Embedding(5, 4, std=0.1)
    table.build()
    table.embeddings.assign(adopted(aligned(np.ones((5, 4)), np.dtype(np.float32))))
    for _ in range(2):
        table.embeddings.assign_add(np.ones((5, 4)))
    assert np.array_equal(ops.convert_to_numpy(table.embeddings), np.full((5, 4), 3.0))


def test_a_new_embedding_has_a_padding_row_of_zeros_that_a_look_up_does_not_train() -> None:
    table = Embedding(5, 4, std=0.1, padding_idx=2)
    table.build()
    assert not ops.convert_to_numpy(table.embeddings)[2].any()
    assert ops.convert_to_numpy(table.embeddings)[[0, 1, 3, 4]].all()
    with tf.GradientTape() as tape:
        total = ops.sum(table(np.array([2, 3])))
    slope = tf.convert_to_tensor(tape.gradient(total, table.embeddings.value)).numpy()
    assert slope[2].tolist() == [0.0] * 4
    assert slope[3].tolist() == [1.0] * 4


@pytest.mark.parametrize(
    "layer",
    [Dense(3, 4, 0.1, bias=False), Embedding(3, 4, 0.1, padding_idx=1), LayerNorm(3, 0.5), NoNorm(3, dtype="float64")],
)
def test_a_layer_is_made_anew_from_its_config(layer: Any) -> None:
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    for one in (layer, again):
        one.build()
    mine, other = ([(v.path, v.shape, v.dtype) for v in one.variables] for one in (again, layer))
    assert mine == other


def masks(length: int) -> dict[str, np.ndarray | None]:
    """Masks of every kind; in all but the first, the last row sees nothing, and in the square ones one query more."""
    flat = (np.arange(length) < np.array([length, length // 2, 0])[:, None]).astype("int64")
    causal = flat[:, None, :] * np.tril(np.ones((length, length), "int64"))
    causal[0, 3] = 0
    return {"none": None, "flat": flat, "square": causal, "bool": flat.astype(bool), "float": flat / 1.0}


def attention_inputs(length: int = 6) -> list[np.ndarray]:
    return list(np.random.default_rng(1).normal(size=(3, 3, 2, length, 4)))


@pytest.mark.parametrize("kind", masks(6))
def test_attention_is_the_papers_equation_with_finite_gradients(kind: str) -> None:
    inputs = [tf.constant(array) for array in attention_inputs()]
    given = masks(6)[kind]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        context, probabilities = attend(*inputs, AttentionMask.of(given), dropout=same, output_attentions=True)
    query, key, value = attention_inputs()
    scores = np.exp(np.einsum("bhqd,bhkd->bhqk", query, key) / 2.0)
    if given is not None:
        keep = np.broadcast_to(given[:, None, None] if given.ndim == 2 else given[:, None], scores.shape).astype(bool)
        # A query that sees no key attends to all alike.
        scores = np.where(keep.any(-1, keepdims=True), scores * keep, 1.0)
    weights = scores / scores.sum(-1, keepdims=True)
    np.testing.assert_allclose(probabilities, weights, atol=1e-14)
    np.testing.assert_allclose(context, weights @ value, atol=1e-13)
    assert all(np.isfinite(slope).all() for slope in tape.gradient(context, inputs))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_query_that_sees_no_key_attends_to_all_alike_in_every_dtype(dtype: str) -> None:
    query, key, value = (ops.cast(array, dtype) for array in attention_inputs())
    context, _ = attend(query, key, value, AttentionMask.of(masks(6)["flat"]), dropout=same)
    assert context.dtype == dtype
    mean = ops.convert_to_numpy(value).astype("float64")[2].mean(axis=-2, keepdims=True)
    np.testing.assert_allclose(context[2], np.broadcast_to(mean, (2, 6, 4)), atol=2e-2 if dtype != "float32" else 1e-6)


def test_a_masked_key_has_no_weight_and_a_softly_masked_one_the_weight_of_its_score() -> None:
    query, key, value = attention_inputs()
    mask = AttentionMask.of(np.array([[1, 1, 1, 1, 1, 0]] * 3))
    hard = attend(query, key, ops.convert_to_tensor(value), mask, dropout=same, output_attentions=True)[1]
    assert not ops.convert_to_numpy(hard)[..., 5].any()
    soft = attend(
        query, key, ops.convert_to_tensor(value), mask, dropout=same, mask_value=-6.0, output_attentions=True
    )[1]
    scores = np.einsum("bhqd,bhkd->bhqk", query, key) / 2.0
    scores[..., 5] = -6.0
    np.testing.assert_allclose(soft, np.exp(scores) / np.exp(scores).sum(-1, keepdims=True), atol=1e-14)


def self_attention(query_width: int, value_width: int, *, dropout: float, dtype: str = "float32") -> SelfAttention:
    """Return an attention of three heads, each 2 wide."""
    query, key = Dense(query_width, 6, std=0.5, dtype=dtype), Dense(query_width, 6, std=0.5, dtype=dtype)
    value = Dense(value_width, 6, std=0.5, dtype=dtype)
    return SelfAttention(query, key, value, num_heads=3, dropout=dropout, dtype=dtype)


def test_dropout_drops_probabilities_in_training_and_not_what_is_returned_of_them() -> None:
    attention = build(self_attention(5, 5, dropout=0.5))
    hidden = RANDOM.normal(size=(2, 7, 5)).astype("float32")
    still, expected = attention(hidden, hidden, hidden, output_attentions=True)
    moved, probabilities = attention(hidden, hidden, hidden, output_attentions=True, training=True)
    assert not np.allclose(still, moved)
    np.testing.assert_array_equal(probabilities, expected)


@pytest.mark.parametrize(("queries", "values"), list(product([5, 8], [5, 8])))
def test_self_attention_takes_queries_and_values_of_their_own_widths(queries: int, values: int) -> None:
    attention = build(self_attention(queries, values, dropout=0.0))
    hidden = RANDOM.normal(size=(2, 7, queries))
    context, probabilities = attention(hidden, hidden, RANDOM.normal(size=(2, 7, values)), output_attentions=True)
    assert context.shape == (2, 7, 6)
    assert probabilities.shape == (2, 3, 7, 7)


def test_heads_are_neighbouring_channels() -> None:
    attention = build(self_attention(6, 6, dropout=0.0, dtype="float64"))
    hidden = RANDOM.normal(size=(1, 4, 6))
    context, probabilities = map(np.array, attention(hidden, hidden, hidden, output_attentions=True))
    value = ops.convert_to_numpy(attention.value(hidden))
    for head in range(3):
        channels = slice(2 * head, 2 * head + 2)
        np.testing.assert_allclose(context[..., channels], probabilities[:, head] @ value[..., channels], atol=1e-13)


def test_add_norm_adds_the_residual_before_the_norm_and_drops_only_the_dense_part() -> None:
    norm = LayerNorm(4, 1e-12, dtype="float64", name="LayerNorm")
    dense = Dense(3, 4, std=1.0, dtype="float64", name="dense")
    block = build(AddNorm(dense, norm, dropout=0.999999, dtype="float64"))
    values, residual = RANDOM.normal(size=(2, 3)), RANDOM.normal(size=(2, 4))
    np.testing.assert_allclose(block(values, residual, training=True), block.LayerNorm(residual))
    np.testing.assert_allclose(block(values, residual), block.LayerNorm(block.dense(values) + residual))


def test_an_intermediate_block_is_a_dense_map_and_its_activation() -> None:
    block = build(Intermediate(Dense(3, 5, std=1.0, dtype="float64"), "relu", dtype="float64"))
    values = RANDOM.normal(size=(2, 3))
    expected = np.maximum(values @ ops.convert_to_numpy(block.dense.kernel) + ops.convert_to_numpy(block.dense.bias), 0)
    np.testing.assert_allclose(block(values), expected)


def test_a_position_is_padded_when_no_query_sees_it() -> None:
    assert ops.convert_to_numpy(padded_positions(np.array([[1, 1, 0]]))).tolist() == [[False, False, True]]
    square = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 0]]])
    assert ops.convert_to_numpy(padded_positions(square)).tolist() == [[False, False, True]]


def test_resizing_keeps_what_was_there_and_draws_the_rest() -> None:
    variable = keras.Variable(np.arange(1.0, 7).reshape(2, 3))
    assert ops.convert_to_numpy(resized(variable, 2, 0.1, axis=1)).tolist() == [[1, 2], [4, 5]]
    grown = ops.convert_to_numpy(resized(variable, 5, 0.1, axis=1))
    np.testing.assert_array_equal(grown[:, :3], ops.convert_to_numpy(variable))
    assert grown[:, 3:].all()
    assert np.abs(grown[:, 3:]).max() <= 0.2
    assert not ops.convert_to_numpy(resized(variable, 4, 0.0))[2:].any()


def test_a_mask_value_beyond_half_precision_masks_all_the_same() -> None:
    random = np.random.default_rng(0)
    query, key, value = ops.convert_to_tensor(random.normal(size=(3, 1, 2, 5, 4)).astype("float16"))
    mask = AttentionMask.of(ops.convert_to_tensor([[1, 1, 1, 0, 0]]))
    context, probabilities = attend(
        query, key, value, mask, dropout=lambda values: values, mask_value=-1e9, output_attentions=True
    )
    assert context.dtype == probabilities.dtype == "float16"
    assert np.isfinite(context).all()
    assert not np.any(probabilities[..., 3:])


@pytest.mark.parametrize("layer_type", [GroupedDense, GroupedConvolution])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("outer", [(5,), (2, 3), (2, 3, 5)])
def test_a_grouped_map_is_each_group_of_channels_through_its_own_matrix(
    outer: tuple[int, ...], groups: int, layer_type: type[GroupedDense]
) -> None:
    layer = build(layer_type(8, 12, groups, std=1.0, dtype="float64"))
    layer.bias.assign(RANDOM.normal(size=12))
    values = RANDOM.normal(size=(*outer, 8))
    parts, matrices = np.split(values, groups, axis=-1), ops.convert_to_numpy(layer.weight)
    assert matrices.shape == (groups, 8 // groups, 12 // groups)
    expected = np.concatenate([part @ matrix for part, matrix in zip(parts, matrices, strict=True)], axis=-1)
    np.testing.assert_allclose(layer(values), expected + ops.convert_to_numpy(layer.bias), atol=1e-13)


@pytest.mark.parametrize("layer_type", [GroupedDense, GroupedConvolution])
def test_a_grouped_map_is_made_again_from_its_config(layer_type: type[GroupedDense]) -> None:
    layer = layer_type(8, 12, 4, std=0.3, bias=False, name="mapped", dtype="float64")
    again = build(layer_type.from_config(layer.get_config()))
    assert again.get_config() == layer.get_config()
    assert [tuple(variable.shape) for variable in again.weights] == [(4, 2, 3)]
    assert again.weights[0].path == f"mapped/{layer_type.weight_name}"
