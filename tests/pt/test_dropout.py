"""Dropout: how often it drops, what it keeps, and that its gradient knows which."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from isobert.pt.dropout import Dropout, dropout


def seeded(seed: int = 0) -> None:
    torch.manual_seed(seed)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_it_drops_with_the_probability_and_keeps_the_mean(probability: float) -> None:
    seeded()
    values = torch.ones(1000, 1001)
    dropped = dropout(values, probability)
    share = (dropped == 0).double().mean().item()
    deviation = math.sqrt(probability * (1 - probability) / values.numel())
    assert abs(share - probability) < 5 * deviation + 2**-17
    assert dropped[dropped != 0].unique().numel() == 1
    assert abs(dropped.double().mean().item() - 1.0) < 5 * deviation / (1 - probability)


def test_each_position_is_drawn_apart() -> None:
    """Four neighbours are decided by one random integer, which must not tie them."""
    seeded()
    kept = (dropout(torch.ones(250_000, 4), 0.5) != 0).double()
    correlations = torch.corrcoef(kept.T)
    assert (correlations - torch.eye(4)).abs().max() < 5 / math.sqrt(250_000)
    assert (kept.mean(dim=0) - 0.5).abs().max() < 5 * 0.5 / math.sqrt(250_000)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 7])
def test_any_dtype_and_size(dtype: torch.dtype, size: int) -> None:
    seeded()
    values = torch.randn(size, dtype=dtype)
    dropped = dropout(values, 0.25)
    assert dropped.dtype == dtype
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], values[kept] / 0.75)


def test_the_gradient_passes_where_values_were_kept_to_the_second_order() -> None:
    values = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)

    def same_draws(values: torch.Tensor) -> torch.Tensor:
        seeded(3)
        return dropout(values, 0.3) ** 2

    assert torch.autograd.gradcheck(same_draws, (values,))
    assert torch.autograd.gradgradcheck(same_draws, (values,))


def test_a_seed_repeats_it_and_the_state_moves_on() -> None:
    values = torch.ones(100)
    seeded(1)
    first, second = dropout(values, 0.5), dropout(values, 0.5)
    seeded(1)
    assert torch.equal(dropout(values, 0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_nothing_and_everything(probability: float) -> None:
    values = torch.randn(10)
    assert torch.equal(dropout(values, probability), values * (1 - probability))


def test_strided_values_are_dropped_where_they_stand() -> None:
    seeded()
    values = torch.randn(6, 8).t()
    dropped = dropout(values, 0.5)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * values[kept])


def test_the_module_is_at_work_in_training_alone() -> None:
    module, values = Dropout(0.5), torch.ones(100)
    assert isinstance(module, nn.Dropout)
    assert torch.equal(module.eval()(values), values)
    seeded()
    assert (module.train()(values) == 0).any()


def test_compiled_and_transformed_code_drops_too() -> None:
    values = torch.ones(10_000)
    compiled = torch.compile(lambda values: dropout(values, 0.5), fullgraph=True, backend="aot_eager")
    assert abs((compiled(values) == 0).double().mean().item() - 0.5) < 0.05
    mapped = torch.func.vmap(lambda row: dropout(row, 0.5), randomness="different")(values.view(100, 100))
    assert abs((mapped == 0).double().mean().item() - 0.5) < 0.05


def test_what_is_kept_for_the_gradient_is_a_byte_for_each_value() -> None:
    sizes: list[int] = []

    def packed(saved: torch.Tensor) -> torch.Tensor:
        sizes.append(saved.element_size())
        return saved

    values = torch.randn(8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(packed, lambda saved: saved):
        dropout(values, 0.5)
    assert sizes == [1]
    sizes.clear()
    with torch.autograd.graph.saved_tensors_hooks(packed, lambda saved: saved):
        F.dropout(values, 0.5)
    assert sizes != [1]
