"""The blocks that all families share compute the equations of their papers."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from isobert.core.config import ACTIVATIONS
from isobert.pt.attention import AttentionMask, SelfAttention, attend, padded_positions
from isobert.pt.layers import (
    AddNorm,
    Dense,
    Embedding,
    GroupedConvolution,
    GroupedDense,
    Intermediate,
    LayerNorm,
    NoNorm,
    activation,
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


def test_every_legal_activation_is_tested() -> None:
    assert set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_its_formula(name: str) -> None:
    points = [-7.0, -2.5, -0.3, 0.0, 0.4, 3.0, 8.0]
    found = activation(name)(torch.tensor(points, dtype=torch.float64))
    np.testing.assert_allclose(found, [FORMULAS[name](x) for x in points], rtol=1e-12, atol=1e-15)


def test_no_norm_scales_and_shifts_each_channel() -> None:
    norm = NoNorm(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0, 5.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(norm(torch.tensor([[1.0, -1.0, 10.0]])), torch.tensor([[2.1, -2.8, 50.3]]))


@pytest.mark.parametrize(("kind", "epsilon"), [("layer_norm", 0.5), ("manual_layer_norm", 1e-6)])
def test_a_layer_norm_has_the_epsilon_of_its_kind(kind: str, epsilon: float) -> None:
    values = torch.tensor([1.0, 2.0, 6.0])
    expected = (values - 3) / torch.sqrt(torch.tensor(14 / 3 + epsilon))
    torch.testing.assert_close(normalization(kind, 3, 0.5)(values), expected)


def test_new_dense_weights_have_the_deviation_asked_for_and_stay_within_two() -> None:
    torch.manual_seed(0)
    dense = Dense(300, 300, std=0.1)
    # Cutting a normal distribution at two deviations leaves 0.8796 of its deviation.
    assert dense.weight.std().item() == pytest.approx(0.08796, rel=0.01)
    assert 0.19 < dense.weight.abs().max().item() <= 0.2
    assert not dense.bias.any()


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float64, 0.0), (torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)]
)
def test_new_weights_are_normal_numbers_cut_off_at_two_deviations(dtype: torch.dtype, bound: float) -> None:
    torch.manual_seed(0)
    weight = Embedding(1000, 1000, std=0.1).to(dtype)
    weight.reset_parameters()
    drawn = weight.weight.detach().double().flatten()
    whole = math.erf(math.sqrt(2.0))
    for deviations in (-1.9, -1.0, -0.3, 0.0, 0.5, 1.5):
        share = (math.erf(deviations / math.sqrt(2.0)) + whole) / (2 * whole)
        assert (drawn < 0.1 * deviations).double().mean().item() == pytest.approx(share, abs=2e-3), deviations
    assert drawn.abs().max().item() <= 0.2 * (1 + bound)
    assert len(drawn.unique()) > 2000


def test_a_new_embedding_has_a_padding_row_of_zeros_that_a_look_up_does_not_train() -> None:
    table = Embedding(5, 4, std=0.1, padding_idx=2)
    assert not table.weight[2].any()
    assert table.weight[[0, 1, 3, 4]].all()
    table(torch.tensor([2, 3])).sum().backward()
    assert table.weight.grad[2].tolist() == [0.0] * 4
    assert table.weight.grad[3].tolist() == [1.0] * 4


@pytest.mark.parametrize("block", [Dense(3, 3, 0.1), Embedding(3, 3, 0.1), NoNorm(3), LayerNorm(3, 0.1)])
def test_a_block_draws_its_weights_anew_when_told_to(block: Any) -> None:
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.fill_(math.nan)
    block.reset_parameters()
    assert all(parameter.isfinite().all() for parameter in block.parameters())


def masks(batch: int, length: int) -> dict[str, torch.Tensor | None]:
    """Masks of every kind; in all but the first, the last row sees nothing, and in the square ones one query more."""
    lengths = torch.tensor([length, length // 2, 0])[:batch]
    flat = (torch.arange(length) < lengths[:, None]).long()
    causal = flat[:, None, :] * torch.ones(length, length, dtype=torch.long).tril()
    causal[0, 3] = 0
    kinds = {"flat": flat, "square": causal, "bool": flat.bool(), "float": flat.double(), "int32": causal.int()}
    return {"none": None, **kinds}


def attention_inputs(length: int = 6) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(3, 2, length, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("kind", masks(3, 6))
def test_the_fused_and_the_explicit_attention_are_equal_forward_and_backward(kind: str) -> None:
    inputs = attention_inputs()
    mask = AttentionMask.of(masks(3, 6)[kind], torch.float64)
    weights = torch.randn(3, 2, 6, 4, dtype=torch.float64)
    fused, nothing = attend(*inputs, mask)
    explicit, probabilities = attend(*inputs, mask, output_attentions=True)
    assert nothing is None
    torch.testing.assert_close(fused, explicit, rtol=0, atol=1e-13)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3, 2, 6, dtype=torch.float64))
    slopes = (torch.autograd.grad((out * weights).sum(), inputs) for out in (fused, explicit))
    for mine, other in zip(*slopes, strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_that_sees_no_key_attends_to_all_alike(dtype: torch.dtype) -> None:
    query, key, value = (tensor.to(dtype) for tensor in attention_inputs())
    mask = AttentionMask.of(masks(3, 6)["flat"], dtype)
    mean = value[2].mean(dim=-2, keepdim=True).expand(2, 6, 4)
    for wanted in (False, True):
        context, _ = attend(query, key, value, mask, output_attentions=wanted)
        torch.testing.assert_close(context[2], mean, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-2)


def test_attention_is_the_papers_equation() -> None:
    query, key, value = (tensor.detach().numpy() for tensor in attention_inputs())
    scores = np.einsum("bhqd,bhkd->bhqk", query, key) / 2.0
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    for wanted in (False, True):
        context, _ = attend(*attention_inputs(), None, output_attentions=wanted)
        np.testing.assert_allclose(context.detach(), weights @ value, atol=1e-13)


def test_a_masked_key_has_no_weight_and_a_softly_masked_one_the_weight_of_its_score() -> None:
    query, key, value = attention_inputs()
    mask = AttentionMask.of(torch.tensor([[1, 1, 1, 1, 1, 0]] * 3), torch.float64)
    hard = attend(query, key, value, mask, output_attentions=True)[1]
    assert not hard[..., 5].any()
    soft = attend(query, key, value, mask, mask_value=-6.0, output_attentions=True)[1]
    scores = query @ key.transpose(-1, -2) / 2
    scores[..., 5] = -6.0
    torch.testing.assert_close(soft, scores.softmax(-1))
    context, _ = attend(query, key, value, mask, mask_value=-6.0)
    torch.testing.assert_close(context, soft @ value)


@pytest.mark.parametrize("output_attentions", [False, True])
def test_dropout_of_attention_keeps_the_mean_and_changes_the_draw(output_attentions: bool) -> None:
    inputs = [torch.randn(1, 1, 4, 4) for _ in range(2)]
    value = torch.ones(1, 1, 4, 20_000)
    torch.manual_seed(0)
    first, second = (attend(*inputs, value, None, dropout=0.4, output_attentions=output_attentions)[0] for _ in "ab")
    assert not torch.equal(first, second)
    draws = [attend(*inputs, value, None, dropout=0.4, output_attentions=output_attentions)[0] for _ in range(400)]
    assert torch.stack(draws)[..., 0].mean().item() == pytest.approx(1.0, abs=0.1)


def self_attention(query_width: int, value_width: int, *, dropout: float) -> SelfAttention:
    """Return an attention of three heads, each 2 wide."""
    query, key = Dense(query_width, 6, std=0.5), Dense(query_width, 6, std=0.5)
    return SelfAttention(query, key, Dense(value_width, 6, std=0.5), num_heads=3, dropout=dropout)


@pytest.mark.parametrize(("queries", "values"), list(product([5, 8], [5, 8])))
def test_self_attention_takes_queries_and_values_of_their_own_widths(queries: int, values: int) -> None:
    attention = self_attention(queries, values, dropout=0.0)
    hidden = torch.randn(2, 7, queries)
    context, probabilities = attention(hidden, hidden, torch.randn(2, 7, values), output_attentions=True)
    assert context.shape == (2, 7, 6)
    assert probabilities.shape == (2, 3, 7, 7)


def test_heads_are_neighbouring_channels() -> None:
    attention = self_attention(6, 6, dropout=0.0)
    hidden = torch.randn(1, 4, 6)
    context, probabilities = attention(hidden, hidden, hidden, output_attentions=True)
    value = attention.value(hidden)
    for head in range(3):
        channels = slice(2 * head, 2 * head + 2)
        torch.testing.assert_close(context[..., channels], probabilities[:, head] @ value[..., channels])


def test_add_norm_adds_the_residual_before_the_norm_and_drops_only_the_dense_part() -> None:
    block = AddNorm(Dense(3, 4, std=1.0), LayerNorm(4, 1e-12), dropout=0.999999)
    values, residual = torch.randn(2, 3), torch.randn(2, 4)
    torch.testing.assert_close(block.train()(values, residual), block.LayerNorm(residual))
    torch.testing.assert_close(block.eval()(values, residual), block.LayerNorm(block.dense(values) + residual))


def test_an_intermediate_block_is_a_dense_map_and_its_activation() -> None:
    block = Intermediate(Dense(3, 5, std=1.0), "relu")
    values = torch.randn(2, 3)
    torch.testing.assert_close(block(values), torch.relu(values @ block.dense.weight.T + block.dense.bias))


def test_a_position_is_padded_when_no_query_sees_it() -> None:
    assert padded_positions(torch.tensor([[1, 1, 0]])).tolist() == [[False, False, True]]
    square = torch.tensor([[[1, 0, 0], [0, 1, 0], [0, 0, 0]]])
    assert padded_positions(square).tolist() == [[False, False, True]]


def test_resizing_keeps_what_was_there_and_draws_the_rest() -> None:
    parameter = nn.Parameter(torch.arange(1.0, 7).reshape(2, 3), requires_grad=False)
    assert resized(parameter, 2, 0.1, axis=1).tolist() == [[1, 2], [4, 5]]
    grown = resized(parameter, 5, 0.1, axis=1)
    assert grown[:, :3].equal(parameter)
    assert grown[:, 3:].all()
    assert grown.abs()[:, 3:].max() <= 0.2
    assert not grown.requires_grad
    assert not resized(parameter, 4, 0.0)[2:].any()


def test_a_mask_value_beyond_half_precision_masks_all_the_same() -> None:
    query, key, value = torch.randn(3, 1, 2, 5, 4).half()
    mask = AttentionMask.of(torch.tensor([[1, 1, 1, 0, 0]]), torch.float16)
    context, probabilities = attend(query, key, value, mask, mask_value=-1e9, output_attentions=True)
    assert context.dtype == probabilities.dtype == torch.float16
    assert context.isfinite().all()
    assert not probabilities[..., 3:].any()


def test_both_ways_to_store_a_grouped_map_hold_the_same_matrices() -> None:
    dense, convolution = GroupedDense(8, 12, 4, std=1.0), GroupedConvolution(8, 12, 4, std=1.0)
    assert dense.weight.shape == (4, 2, 3)
    assert convolution.weight.shape == (12, 2, 1)
    with torch.no_grad():
        convolution.weight.copy_(dense.weight.mT.reshape(12, 2, 1))
        convolution.bias.copy_(dense.bias.normal_())
    values = torch.randn(2, 3, 8)
    torch.testing.assert_close(dense(values), convolution(values))
    expected = nn.functional.conv1d(values.mT, convolution.weight, convolution.bias, groups=4).mT
    torch.testing.assert_close(convolution(values), expected)
    assert GroupedConvolution(8, 12, 4, std=1.0, bias=False).bias is None
