"""What padding does to an example: by default what it did to published checkpoints, and nothing with `mask_padding`.

And the authors' own soft mask, against a NumPy reference written from their formula.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isobert.core.registry import model_class
from support.configs import random_config
from support.weights import parameters, randomise

FRAMEWORKS = ("pt", "tf")
LENGTH, PADDED = 5, 9


def encoder(framework: str, **overrides: Any) -> Any:
    """Return an encoder in float64 whose positions see their neighbours."""
    config = random_config("mobilebert", 2, **{"trigram_input": True, "attention_mask_value": None, **overrides})
    model_type = model_class("mobilebert", "Model", framework)
    if framework == "pt":
        return randomise(model_type(config).double().eval(), 2)
    return randomise(model_type(config, dtype="float64"), 2)


def run(model: Any, ids: np.ndarray, mask: np.ndarray | None = None, name: str = "last_hidden_state") -> np.ndarray:
    inputs = {"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": mask}
    return model.trace(inputs, gradients=False).outputs[name]


def alone_and_padded(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return what an example gives by itself, and what its own positions give when it is padded."""
    random = np.random.default_rng(0)
    ids = random.integers(6, model.config.vocab_size, (1, LENGTH))
    padded = np.full((1, PADDED), model.config.pad_token_id)
    padded[:, :LENGTH] = ids
    mask = (np.arange(PADDED) < LENGTH).astype(np.int64)[None]
    return run(model, ids), run(model, padded, mask)[:, :LENGTH]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_by_default_the_trigram_sees_the_padding_next_to_the_last_word(framework: str) -> None:
    model = encoder(framework, mask_padding=False)
    alone, padded = alone_and_padded(model)
    assert np.abs(alone - padded).max() > 1e-3 * np.abs(alone).max()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_with_mask_padding_an_example_does_not_depend_on_its_padding(framework: str) -> None:
    model = encoder(framework, mask_padding=True)
    alone, padded = alone_and_padded(model)
    np.testing.assert_allclose(padded, alone, rtol=0, atol=1e-12 * np.abs(alone).max())


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_with_mask_padding_it_does_not_matter_what_stands_in_the_padding(framework: str) -> None:
    model = encoder(framework, mask_padding=True)
    random = np.random.default_rng(0)
    mask = (np.arange(PADDED) < LENGTH).astype(np.int64)[None]
    ids, other = random.integers(0, model.config.vocab_size, (2, 1, PADDED))
    other[:, :LENGTH] = ids[:, :LENGTH]
    assert np.array_equal(run(model, ids, mask)[:, :LENGTH], run(model, other, mask)[:, :LENGTH])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_a_trigram_padding_makes_no_difference(framework: str) -> None:
    model = encoder(framework, trigram_input=False, mask_padding=False)
    alone, padded = alone_and_padded(model)
    np.testing.assert_allclose(padded, alone, rtol=0, atol=1e-12 * np.abs(alone).max())


@pytest.mark.parametrize("value", [None, -6.0])
@pytest.mark.parametrize("mask_padding", [False, True])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_fully_padded_row_attends_uniformly_and_gives_no_nan(
    framework: str, mask_padding: bool, value: float | None
) -> None:
    model = encoder(framework, mask_padding=mask_padding, attention_mask_value=value)
    ids = np.zeros((2, PADDED), np.int64)
    mask = np.zeros((2, PADDED), np.int64)
    mask[0] = 1
    assert np.isfinite(run(model, ids, mask)).all()
    np.testing.assert_allclose(run(model, ids, mask, "attentions.0")[1], 1 / PADDED, rtol=1e-12)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_masked_positions_get_no_attention_by_default(framework: str) -> None:
    model = encoder(framework)
    mask = (np.arange(PADDED) < LENGTH).astype(np.int64)[None]
    probabilities = run(model, np.ones((1, PADDED), np.int64), mask, "attentions.0")
    assert (probabilities[..., LENGTH:] == 0).all()
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-12)


def softly_masked_attention(model: Any, stream: np.ndarray, mask: np.ndarray, value: float) -> np.ndarray:
    """Return the first layer's probabilities by the authors' formula: `scores * mask + value * (1 - mask)`.

    For a model with bottlenecked attention and without norms, whose queries and keys come from one linear map of the
    stream followed by an element-wise one.
    """
    held = {name: array for name, array in parameters(model).items() if name.startswith("encoder.layer.0.")}
    held = {name.removeprefix("encoder.layer.0."): array for name, array in held.items()}

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ held[f"{name}.weight"].T + held[f"{name}.bias"]

    inside = dense("bottleneck.input.dense", stream)
    inside = inside * held["bottleneck.input.LayerNorm.weight"] + held["bottleneck.input.LayerNorm.bias"]
    heads = model.config.num_attention_heads
    batch, length, width = inside.shape

    def split(x: np.ndarray) -> np.ndarray:
        return x.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)

    query, key = (split(dense(f"attention.self.{name}", inside)) for name in ("query", "key"))
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(width // heads)
    kept = mask[:, None, None, :].astype(scores.dtype)
    scores = scores * kept + value * (1 - kept)
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.mark.parametrize("value", [-6.0, -1.5])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_soft_mask_is_the_authors(framework: str, value: float) -> None:
    switches = {"use_bottleneck": True, "use_bottleneck_attention": True, "normalization_type": "no_norm"}
    model = encoder(framework, **switches, attention_mask_value=value)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (3, PADDED))
    mask = (np.arange(PADDED) < np.array([[PADDED], [LENGTH], [2]])).astype(np.int64)
    expected = softly_masked_attention(model, run(model, ids, mask, "hidden_states.0"), mask, value)
    assert expected[1, ..., LENGTH:].max() > 1e-4
    np.testing.assert_allclose(run(model, ids, mask, "attentions.0"), expected, rtol=1e-10)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_soft_mask_changes_the_output_only_where_something_is_masked(framework: str) -> None:
    soft, hard = encoder(framework, attention_mask_value=-6.0), encoder(framework)
    ids = np.random.default_rng(0).integers(0, soft.config.vocab_size, (1, PADDED))
    everything, some = np.ones((1, PADDED), np.int64), (np.arange(PADDED) < LENGTH).astype(np.int64)[None]
    same = run(hard, ids, everything)
    np.testing.assert_allclose(run(soft, ids, everything), same, rtol=0, atol=1e-12 * np.abs(same).max())
    assert np.abs(run(soft, ids, some) - run(hard, ids, some)).max() > 1e-6
