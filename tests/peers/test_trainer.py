"""Transformers' `Trainer` trains PyTorch models of isobert, and `peft` adapts them, as `docs/with-others.md` says.

`make test-peers` runs it. One process does all of it in the peer's environment, and these tests read what it found.
"""

from __future__ import annotations

import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isobert
from isobert.conversion.checkpoint import open_checkpoint
from isobert.core.registry import FAMILIES, model_class

ROOT = Path(__file__).parents[2]
PEER = ROOT / ".peers" / "bin" / "python"
HEADS = ("ForSequenceClassification", "ForMaskedLM")

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let the peer do all cases, and return the folder."""
    folder = tmp_path_factory.mktemp("peer")
    # The package is the repository's root, whatever that is called.
    path = tmp_path_factory.mktemp("path")
    (path / "isobert").symlink_to(ROOT)
    settings = os.environ | {"PYTHONPATH": os.pathsep.join([str(path), str(ROOT / "tests")])}
    page = ROOT / "docs" / "with-others.md"
    command = [PEER, Path(__file__).with_name("others.py"), page, folder]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


@pytest.fixture(scope="module")
def results(peer: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((peer / "results.json").read_text())
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trainer_learns_and_has_its_best_model_at_the_end(family: str, results: dict[str, Any]) -> None:
    found = results[f"trainer-{family}-ForSequenceClassification"]
    assert found["losses"][-1] < 0.5 * found["losses"][0]
    *evaluations, last = found["eval_losses"]
    assert last == min(evaluations)
    assert found["best"] == f"checkpoint-{6 * (1 + evaluations.index(last))}"
    assert found["metrics"]["eval_accuracy"] > 0.9


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trainer_teaches_a_model_words(family: str, results: dict[str, Any]) -> None:
    found = results[f"trainer-{family}-ForMaskedLM"]
    assert found["losses"][-1] < 0.9 * found["losses"][0]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_goes_on_from_a_checkpoint_to_the_same_weights_without_a_warning(
    family: str, head: str, results: dict[str, Any]
) -> None:
    found = results[f"trainer-{family}-{head}"]
    assert found["resumed_apart"] == 0.0
    assert found["warnings"] == []


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_trainer_saves_is_a_checkpoint_with_its_tokenizer(
    family: str, head: str, peer: Path, results: dict[str, Any]
) -> None:
    folder = peer / f"trainer-{family}-{head}"
    best = folder / results[folder.name]["best"]
    for opened in (best, folder / "best"):
        _, report = model_class(family, head, "pt").from_pretrained(opened, output_loading_info=True)
        assert not report
        assert len(isobert.AutoTokenizer.from_pretrained(opened)("the river is bright")["input_ids"]) == 6
    with open_checkpoint(best) as one, open_checkpoint(folder / "best") as other:
        assert one.names() == other.names()
        for name in one.names():
            np.testing.assert_array_equal(one.read(name), other.read(name))


def test_tensors_that_transformers_saves_by_itself_have_the_hubs_names(results: dict[str, Any]) -> None:
    model = isobert.SqueezeBertForSequenceClassification(
        isobert.SqueezeBertConfig(hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=4)
    )
    assert results["tensors"] == sorted(model.state_dict())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_of_queries_and_values_learns(family: str, head: str, results: dict[str, Any]) -> None:
    found = results[f"lora-{family}-{head}"]
    assert found["begins_apart"] == 0.0
    losses = found["losses"]
    assert all(later < earlier for earlier, later in pairwise(losses))
    # Two matrices for each projection of each layer, and of a classifier its own new copy.
    adapted = [name for name in found["trained"] if ".lora_" in name]
    assert len(adapted) == 8
    assert all(".query." in name or ".value." in name for name in adapted)
    others = set(found["trained"]) - set(adapted)
    assert all(".classifier." in name for name in others)
    assert bool(others) == (head == "ForSequenceClassification")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_opens_again_and_merges_into_a_plain_checkpoint(
    family: str, head: str, peer: Path, results: dict[str, Any]
) -> None:
    folder = peer / f"lora-{family}-{head}"
    found = results[folder.name]
    assert found["opened_apart"] == 0.0
    assert found["merged_apart"] < 1e-5
    assert found["class"] == model_class(family, head, "pt").__name__
    opened = model_class(family, head, "pt").from_pretrained(folder / "merged")
    with np.load(folder / "inputs.npz") as inputs:
        logits = opened.trace(dict(inputs), gradients=False).outputs["logits"]
    np.testing.assert_allclose(logits, np.load(folder / "logits.npy"), rtol=1e-4, atol=1e-5)
