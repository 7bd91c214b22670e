"""The benchmark of the part that scores words gives every side the same numbers, and counts what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lm_head
from isobert import RemBertConfig
from isobert.pt.rembert import RemBertLMPredictionHead
from runner import BenchmarkError, Timing


@pytest.mark.parametrize(
    "name",
    [
        "predictions.LayerNorm.weight",  # PyTorch, the peer's
        "LayerNorm.weight",  # PyTorch, ours
        "predictions/LayerNorm/gamma",  # Keras, ours
        "cls/predictions/LayerNorm/gamma:0",  # Keras, the peer's
    ],
)
def test_a_parameter_has_one_name_on_every_side(name: str) -> None:
    assert lm_head.hub_name(name) == "LayerNorm.weight"


def test_the_gradients_are_as_large_as_the_parameters() -> None:
    head = RemBertLMPredictionHead(RemBertConfig(vocab_size=1000, tie_word_embeddings=False))
    assert lm_head.gradient_bytes(1000) == 4 * sum(parameter.numel() for parameter in head.parameters())


def test_a_table_tells_how_many_times_ours_a_side_takes_with_the_gradients_and_without() -> None:
    own = lm_head.gradient_bytes(10)
    result = {
        "framework": "pt",
        "times": {"ours": Timing((1.0, 2.0, 3.0)), "peer": Timing((8.0, 8.0, 9.0))},
        "memory": {"ours": own + 10_000_000, "peer": 2 * own + 20_000_000},
    }
    ours, peer = lm_head.rows([result], 10)
    assert ours[1:3] == ["2.00 s", "1.00\n1.00 to 1.00"]
    assert (peer[1], peer[2].splitlines()[0]) == ("8.00 s", "4.00")
    assert (peer[4], ours[6], peer[6]) == ("2.0", "1.0", f"{(own + 20e6) / 10e6:.1f}")


def test_sides_that_compute_something_else_end_the_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "ours.npz", loss=1.0, hidden=np.ones((2, 3)))
    np.savez(tmp_path / "peer.npz", loss=1.0, hidden=np.ones((2, 3)) * 1.01)
    assert lm_head.difference(tmp_path / "ours.npz", tmp_path / "ours.npz") == 0.0
    with pytest.raises(BenchmarkError, match="peer differs from ours by 0.01"):
        lm_head.difference(tmp_path / "peer.npz", tmp_path / "ours.npz")
