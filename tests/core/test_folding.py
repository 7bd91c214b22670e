"""A folded MobileBERT computes what the model computes that it was folded from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from isobert import MobileBertModel
from isobert.core import folding
from isobert.core.config import ACTIVATIONS
from isobert.core.folded import FoldedMobileBert, Run, run
from isobert.core.folding import fold_mobilebert
from support.configs import CONFIG_SEEDS, MANY_CONFIG_SEEDS, random_config
from support.weights import randomise


def random_model(seed: int, **overrides: Any) -> MobileBertModel:
    config = random_config("mobilebert", seed, **{"normalization_type": "no_norm", **overrides})
    return randomise(MobileBertModel(config).double(), seed).eval()


def tensors(model: MobileBertModel) -> dict[str, np.ndarray]:
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def fold(model: MobileBertModel, *, half: bool = False) -> FoldedMobileBert:
    return fold_mobilebert(model.config, tensors(model).__getitem__, half=half)


def hidden_states(model: MobileBertModel, ids: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        return [state[0].numpy() for state in model(torch.from_numpy(ids)[None], output_hidden_states=True)[-1]]


def worst_error(model: MobileBertModel, folded: FoldedMobileBert) -> float:
    """Return the largest relative error of a hidden state."""
    ids = np.random.default_rng(1).integers(0, model.config.vocab_size, 9)
    found = run(model.config, folded, tensors(model)["embeddings.word_embeddings.weight"][ids]).hidden_states
    expected = hidden_states(model, ids)
    assert len(found) == len(expected) == model.config.num_hidden_layers + 1
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "seed", [*CONFIG_SEEDS, *(pytest.param(seed, marks=pytest.mark.slow) for seed in MANY_CONFIG_SEEDS)]
)
def test_every_hidden_state_is_the_same(seed: int, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # So little that every channel is divided.
    monkeypatch.setattr(folding, "HALF_PEAK", -6)
    model = random_model(seed)
    assert worst_error(model, fold(model, half=half)) < 1e-12


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_the_same(activation: str) -> None:
    model = random_model(3, hidden_act=activation)
    assert worst_error(model, fold(model)) < 1e-12


def change(model: MobileBertModel, ending: str, factor: float, *, channels: slice = slice(None)) -> None:
    """Multiply every parameter whose name ends so."""
    found = [parameter for name, parameter in model.named_parameters() if name.endswith(ending)]
    assert found, ending
    with torch.no_grad():
        for parameter in found:
            parameter[channels] *= factor


OUTER, INNER = "output.bottleneck.LayerNorm.weight", "output.LayerNorm.weight"


@pytest.mark.parametrize("factor", [0.0, -1.0, 2.0**-9, 2.0**7])
@pytest.mark.parametrize("overrides", [{"use_bottleneck": True}, {"use_bottleneck": False}, {"trigram_input": False}])
def test_norms_that_delete_negate_shrink_or_enlarge_channels_fold_too(factor: float, overrides: dict[str, Any]) -> None:
    model = random_model(11, num_hidden_layers=3, num_feedforward_networks=4, hidden_act="tanh", **overrides)
    if not model.config.trigram_input:
        change(model, "embeddings.LayerNorm.weight", factor, channels=slice(2, 4))
    for ending in [OUTER, INNER] if model.config.use_bottleneck else [INNER]:
        change(model, ending, factor, channels=slice(1, 3))
    folded = fold(model)
    assert worst_error(model, folded) < 1e-12
    added = [layer.exit or layer.feed_forward[-1][1] for layer in folded.layers]
    scales = np.concatenate([np.abs(units.scale) for units in folded.units])
    assert scales.min() >= 2.0**-12
    assert scales.max() <= 2.0**12
    assert (factor == -1.0) == all(addition.rescale is None for addition in added)


def rescaled(folded: FoldedMobileBert) -> list[str]:
    """Return the sums after which a stream is rescaled."""
    found = []
    for i, layer in enumerate(folded.layers):
        sums = {"context": layer.context, "exit": layer.exit}
        sums |= {f"feed_forward.{j}": contract for j, (_, contract) in enumerate(layer.feed_forward)}
        found += [f"encoder.layer.{i}.{name}" for name, each in sums.items() if each and each.rescale is not None]
    return found


def test_in_float16_every_stream_stays_within_range_where_the_true_one_leaves_it() -> None:
    model = random_model(2, num_hidden_layers=3, use_bottleneck=True, hidden_act="relu", num_feedforward_networks=4)
    ids = np.random.default_rng(1).integers(0, model.config.vocab_size, 9)
    change(model, "layer.0.output.bottleneck.dense.weight", 1e6)
    change(model, "layer.1.output.bottleneck.LayerNorm.weight", 1e-6)
    change(model, "layer.0.ffn.0.output.dense.weight", 1e5)
    assert np.abs(hidden_states(model, ids)[1]).max() > 65504
    words = tensors(model)["embeddings.word_embeddings.weight"][ids]
    plain, half = (run(model.config, fold(model, half=half), words) for half in (False, True))

    def peak(found: Run) -> float:
        peaks = found.peaks
        wide = [peak for layer in peaks.intermediate for peak in layer]
        inner = [peak for layer in peaks.inner for peak in layer]
        return max(values.max() for values in [*peaks.stream, *inner, *peaks.shared, *peaks.value, *wide])

    assert peak(plain) > 65504
    assert peak(half) < 2**10
    # Units of other sizes are no reason to rescale elsewhere.
    assert rescaled(fold(model, half=True)) == rescaled(fold(model)) == ["encoder.layer.1.exit"]
