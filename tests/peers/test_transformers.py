"""What isobert writes, transformers 4.57.6 opens and computes alike; what that writes, isobert opens.

`make test-peers` runs it. Transformers is in an environment of its own, in which one process does all cases.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isobert.conversion.checkpoint import open_checkpoint
from isobert.conversion.convert import convert
from isobert.core.registry import FAMILIES, model_class
from support.compare import TOLERANCES, assert_close, relative_errors
from support.configs import random_config
from support.inputs import random_inputs
from support.weights import parameters, randomise

ROOT = Path(__file__).parents[2]
PEER = ROOT / ".peers" / "bin" / "python"

pytestmark = pytest.mark.peers


@dataclass(frozen=True)
class Case:
    """A config and the heads that are built on it.

    Attributes:
        family: its name.
        fields: what is not random.
        heads: none given, all of the family.
        forms: those that it is written in.
    """

    family: str
    fields: dict[str, Any]
    heads: tuple[str, ...] = ()
    forms: tuple[str, ...] = ("safetensors", "torch-bin", "transformers-h5")


# What transformers has too. Its layer norms in MobileBERT have torch's default epsilon in PyTorch, the config's in
# TensorFlow; its scores of answers number as many as the labels.
COMMON: dict[str, Any] = {"num_labels": 2, "num_hidden_layers": 2, "problem_type": None, "hidden_act": "gelu"}
MOBILEBERT = COMMON | {"normalization_type": "no_norm", "mask_padding": False, "attention_mask_value": None}
NARROW = {"hidden_size": 24, "embedding_size": 7, "use_bottleneck": True, "num_attention_heads": 2}
CONVBERT = COMMON | {"num_attention_heads": 4, "head_ratio": 2, "mask_padding": False, "tie_word_embeddings": True}
REMBERT = COMMON | {"is_decoder": False, "add_cross_attention": False}

CASES = {
    "mobilebert": Case("mobilebert", MOBILEBERT | NARROW | {"key_query_shared_bottleneck": True}),
    "mobilebert-untied": Case(
        "mobilebert",
        MOBILEBERT | NARROW | {"use_bottleneck_attention": True, "tie_word_embeddings": False, "trigram_input": False},
        ("Model", "ForPreTraining"),
    ),
    "mobilebert-layer-norm-no-bottleneck": Case(
        "mobilebert",
        MOBILEBERT
        | {"normalization_type": "layer_norm", "layer_norm_eps": 1e-5, "use_bottleneck": False}
        | {"hidden_size": 24, "embedding_size": 24, "num_attention_heads": 2, "classifier_activation": False},
        ("Model", "ForMaskedLM", "ForTokenClassification"),
    ),
    # As many layers as the published models: the list of their tensors is longer than one attribute can hold. After so
    # many of them transformers' own rounding in PyTorch is 7e-6.
    "mobilebert-deep": Case(
        "mobilebert",
        MOBILEBERT | NARROW | {"num_hidden_layers": 24, "num_feedforward_networks": 4},
        ("ForSequenceClassification",),
        ("transformers-h5",),
    ),
    "convbert": Case("convbert", CONVBERT | {"num_groups": 1, "summary_use_proj": False, "summary_type": "last"}),
    "convbert-grouped": Case(
        "convbert",
        CONVBERT | {"num_groups": 2, "embedding_size": 9, "summary_use_proj": True, "summary_type": "mean"},
        ("Model", "ForMaskedLM", "ForMultipleChoice"),
    ),
    "rembert": Case("rembert", REMBERT | {"tie_word_embeddings": False}),
    # Transformers never ties them. Its TensorFlow file has both tables, of the same numbers here.
    "rembert-tied": Case(
        "rembert",
        REMBERT | {"tie_word_embeddings": True, "input_embedding_size": 8, "output_embedding_size": 8},
        ("ForMaskedLM",),
        ("transformers-h5",),
    ),
    "rembert-decoder": Case(
        "rembert",
        REMBERT | {"is_decoder": True, "add_cross_attention": True},
        ("ForCausalLM", "ForTokenClassification"),
    ),
    "squeezebert": Case("squeezebert", COMMON, forms=("safetensors", "torch-bin")),
}

ALL = [(name, head) for name, case in CASES.items() for head in case.heads or FAMILIES[case.family].heads]
IN_TENSORFLOW = [(name, head) for name, head in ALL if "transformers-h5" in CASES[name].forms]


@cache
def model_of(name: str, head: str) -> Any:
    """Return a PyTorch model with random weights."""
    case = CASES[name]
    config = random_config(case.family, 3, **case.fields)
    return randomise(model_class(case.family, head, "pt")(config).eval(), 3)


def inputs_of(name: str, head: str) -> dict[str, np.ndarray]:
    return random_inputs(model_of(name, head).config, head, 3, labels=False)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write every case in every form, have the peer open them, and return the folder."""
    folder = tmp_path_factory.mktemp("peer")
    for name, head in ALL:
        case = folder / f"{name}-{head}"
        model_of(name, head).save_pretrained(case / "isobert")
        for form in CASES[name].forms:
            convert(case / "isobert", case / form, to=form)
        np.savez(case / "inputs.npz", **inputs_of(name, head))
    settings = os.environ | {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [PEER, Path(__file__).with_name("peer.py"), folder], env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


@pytest.mark.parametrize(
    ("name", "head", "form"), [(name, head, form) for name, head in ALL for form in CASES[name].forms]
)
def test_transformers_opens_what_isobert_wrote_with_nothing_missing_and_computes_the_same(
    name: str, head: str, form: str, peer: Path
) -> None:
    case = peer / f"{name}-{head}"
    info = json.loads((case / f"{form}.json").read_text())
    assert not any(info.values()), info
    with np.load(case / f"{form}.npz") as file:
        expected = dict(file)
    found = model_of(name, head).trace(inputs_of(name, head), gradients=False).outputs
    assert_close(relative_errors(found, expected), TOLERANCES["float32"])


@pytest.mark.parametrize("saved", ["saved", "saved-in-shards"])
@pytest.mark.parametrize(("name", "head"), IN_TENSORFLOW)
def test_what_transformers_saves_again_from_tensorflow_is_what_isobert_wrote(
    name: str, head: str, saved: str, peer: Path
) -> None:
    with open_checkpoint(peer / f"{name}-{head}" / saved) as checkpoint:
        found = {tensor: checkpoint.read(tensor) for tensor in checkpoint.names()}
    for tensor, value in parameters(model_of(name, head)).items():
        assert found[tensor].tobytes() == np.float32(value).tobytes(), tensor
