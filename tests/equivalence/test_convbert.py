"""ConvBERT alone: padding at its convolutions, its heads, and no copy of the values for each place of a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from isobert.core.registry import model_class
from isobert.pt.convbert import dynamic_convolution
from support.configs import random_config
from support.weights import randomise

FRAMEWORKS = ("pt", "tf")
LENGTH, PADDED = 5, 9


def encoder(framework: str, **overrides: Any) -> Any:
    """Return an encoder in float64 whose convolutions reach beyond a word."""
    config = random_config("convbert", 2, **{"conv_kernel_size": 5, **overrides})
    model_type = model_class("convbert", "Model", framework)
    if framework == "pt":
        return randomise(model_type(config).double().eval(), 2)
    return randomise(model_type(config, dtype="float64"), 2)


def run(model: Any, ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    inputs = {"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": mask}
    return model.trace(inputs, gradients=False).outputs["last_hidden_state"]


def alone_and_padded(model: Any, filling: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what an example gives by itself, and what its own positions give beside a longer one."""
    ids = np.random.default_rng(0).integers(6, model.config.vocab_size, (2, PADDED))
    mask = (np.arange(PADDED) < np.array([[LENGTH], [PADDED]])).astype(np.int64)
    alone = run(model, ids[:1, :LENGTH])
    return alone, run(model, np.where(mask, ids, filling), mask)[:1, :LENGTH]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_by_default_padding_enters_the_convolutions(framework: str) -> None:
    alone, padded = alone_and_padded(encoder(framework, mask_padding=False), filling=0)
    assert np.abs(alone - padded).max() > 1e-3 * np.abs(alone).max()


@pytest.mark.parametrize("filling", [0, 7])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_with_mask_padding_an_example_does_not_depend_on_its_neighbours_lengths(framework: str, filling: int) -> None:
    alone, padded = alone_and_padded(encoder(framework, mask_padding=True), filling)
    np.testing.assert_allclose(padded, alone, rtol=0, atol=1e-12 * np.abs(alone).max())


@pytest.mark.parametrize("kernel_size", [1, 3, 9])
def test_the_dynamic_convolution_is_its_definition(kernel_size: int) -> None:
    values, kernels = torch.randn(2, 7, 3, 4).double(), torch.randn(2, 7, 3, kernel_size).double()
    expected = torch.zeros_like(values)
    for i in range(7):
        for k in range(kernel_size):
            j = i + k - kernel_size // 2
            if 0 <= j < 7:
                expected[:, i] += kernels[:, i, :, k, None] * values[:, j]
    torch.testing.assert_close(dynamic_convolution(values, kernels), expected)


def test_the_dynamic_convolution_holds_no_window_of_the_values() -> None:
    values, kernels = torch.randn(2, 64, 3, 16), torch.randn(2, 64, 3, 9)
    with torch.profiler.profile(profile_memory=True) as seen:
        dynamic_convolution(values, kernels)
    largest = max(event.self_cpu_memory_usage for event in seen.events())
    # The padded values alone; windows would be nine times as large.
    assert values.numel() * 4 <= largest < 1.5 * values.numel() * 4


@pytest.mark.parametrize(("head_ratio", "heads"), [(1, 4), (2, 2), (4, 1), (8, 1)])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_head_ratio_leaves_that_many_attention_heads(framework: str, head_ratio: int, heads: int) -> None:
    model = encoder(framework, num_attention_heads=4, hidden_size=32, head_ratio=head_ratio, num_groups=1)
    found = model.trace({"input_ids": np.ones((1, 3), np.int64)}, gradients=False).outputs["attentions.0"]
    assert found.shape == (1, heads, 3, 3)
