"""ConvBERT alone: padding at its convolutions, its heads, and no copy of the values for each place of a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from isobert import ConvBertConfig
from isobert.core.convbert import SUMMARY_TYPES
from isobert.core.registry import model_class
from isobert.errors import ConfigError
from isobert.pt.convbert import dynamic_convolution
from support.configs import random_config
from support.weights import parameters, randomise

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


@pytest.mark.parametrize(("num_heads", "head_ratio", "heads"), [(4, 3, 1), (7, 3, 2)])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_head_ratio_that_leaves_a_remainder_is_rounded_down(
    framework: str, num_heads: int, head_ratio: int, heads: int
) -> None:
    model = encoder(framework, num_attention_heads=num_heads, hidden_size=32, head_ratio=head_ratio, num_groups=1)
    found = model.trace({"input_ids": np.ones((1, 3), np.int64)}, gradients=False).outputs["attentions.0"]
    assert found.shape == (1, heads, 3, 3)


@pytest.mark.parametrize("summary_type", SUMMARY_TYPES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_choice_is_scored_from_the_summary_of_its_text(framework: str, summary_type: str) -> None:
    config = random_config(
        "convbert", 0, summary_type=summary_type, summary_use_proj=True, summary_activation="tanh", num_hidden_layers=1
    )
    model_type = model_class("convbert", "ForMultipleChoice", framework)
    model = model_type(config).double().eval() if framework == "pt" else model_type(config, dtype="float64")
    randomise(model, 0)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (2, 3, PADDED))
    outputs = model.trace({"input_ids": ids}, gradients=False).outputs
    hidden = outputs[f"hidden_states.{config.num_hidden_layers}"]
    vectors = {"first": hidden[:, 0], "last": hidden[:, -1], "mean": hidden.mean(1), "cls_index": hidden[:, -1]}
    held = parameters(model)
    summary = vectors[summary_type] @ held["sequence_summary.summary.weight"].T + held["sequence_summary.summary.bias"]
    expected = np.tanh(summary) @ held["classifier.weight"].T + held["classifier.bias"]
    np.testing.assert_allclose(outputs["logits"], expected.reshape(2, 3), rtol=0, atol=1e-12 * np.abs(expected).max())


def test_the_gradients_written_out_in_keras_are_those_of_the_definitions() -> None:
    import tensorflow as tf

    from isobert.tf.convbert import DepthwiseConvolution, dynamic_convolution

    def of_definition(values: Any, kernels: Any) -> Any:
        """Sum over k of the padded values, shifted, times the kernel's k-th number: `kernels[..., k, None]`."""
        reach, length = kernels.shape[-1] // 2, values.shape[1]
        padded = tf.pad(values, [(0, 0), (reach, reach), (0, 0), (0, 0)])
        return sum(padded[:, k : k + length] * kernels[..., k, None] for k in range(kernels.shape[-1]))

    def slopes(function: Any, *arguments: Any) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result = tf.reduce_sum(function(*arguments) ** 3)
        return [slope.numpy() for slope in tape.gradient(result, arguments)]

    random = np.random.default_rng(0)
    values = tf.constant(random.normal(size=(2, 7, 3, 4)))
    kernels = tf.constant(random.normal(size=(2, 7, 3, 5)))
    for mine, other in zip(
        slopes(dynamic_convolution, values, kernels), slopes(of_definition, values, kernels), strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-12 * np.abs(other).max())

    layer = DepthwiseConvolution(3, 5, dtype="float64")
    layer.build()
    channels = values[..., 0]
    expected = slopes(lambda v: of_definition(v[..., None], tf.transpose(layer.kernel[:, 0])), channels)
    np.testing.assert_allclose(slopes(layer, channels)[0], expected[0], rtol=0, atol=1e-12 * np.abs(expected[0]).max())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conv_kernel_size": 4}, "conv_kernel_size is 4; it must be an odd integer"),
        ({"hidden_size": 34, "num_attention_heads": 4}, "hidden_size is 34; it must be a multiple of 4"),
        ({"num_groups": 5}, "num_groups is 5; it must divide hidden_size"),
        ({"summary_type": "attn"}, "summary_type is 'attn'"),
        ({"head_ratio": 0}, "head_ratio is 0"),
    ],
)
def test_a_config_that_no_model_can_have_says_what_is_wrong(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConvBertConfig(**fields)
