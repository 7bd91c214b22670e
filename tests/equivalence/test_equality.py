"""A Keras model opened from a PyTorch model's checkpoint equals it: every layer's output, loss and gradients.

Over every head and random legal configs, in float64, where rounding cannot hide a mistake, and in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isobert.conversion.verify import verify
from isobert.core.registry import FAMILIES, model_class
from support.configs import CONFIG_SEEDS, MANY_CONFIG_SEEDS, random_config
from support.inputs import Inputs, random_inputs
from support.weights import parameters, randomise

FAMILIES_WITH_MODELS = [family for family, entry in FAMILIES.items() if entry.heads]
PAIRS = [(family, head) for family, entry in FAMILIES.items() for head in entry.heads]
DTYPES = ("float64", "float32")


def twins(config: Any, head: str, dtype: str, seed: int, folder: Path) -> tuple[Any, Any]:
    """Return a PyTorch model with random weights, and the Keras model opened from its checkpoint."""
    import torch

    pt = model_class(config.model_type, head, "pt")(config).to(getattr(torch, dtype)).eval()
    randomise(pt, seed).save_pretrained(folder)
    tf = model_class(config.model_type, head, "tf").from_pretrained(folder, dtype=dtype)
    return pt, tf


def varied_inputs(config: Any, head: str, seed: int) -> Inputs:
    """Return a batch that, from seed to seed, differs in what is given and how."""
    length = min(9, config.max_position_embeddings)
    return random_inputs(
        config,
        head,
        seed,
        length=length,
        fully_padded_row=seed % 2 == 0,
        square_mask=seed % 4 == 1 and head != "ForMultipleChoice",
        position_ids=seed % 3 == 0,
    )


def check(family: str, head: str, seed: int, dtype: str, folder: Path) -> None:
    config = random_config(family, seed)
    pt, tf = twins(config, head, dtype, seed, folder)
    result = verify(tf, pt, varied_inputs(config, head, seed), names=("Keras", "PyTorch"))
    assert result.dtype == dtype
    assert result.passed, _failures(result)
    kinds = {row.kind for row in result.rows}
    assert kinds == ({"output"} if head == "Model" else {"output", "loss", "gradient"})
    if head != "Model":
        assert {row.name for row in result.of_kind("gradient")} == trainable(pt)


def trainable(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def _failures(result: Any) -> str:
    rows = [row for row in result.rows if not row.ok]
    return result.summary() + "".join(f"\n  {row.kind} {row.name}: {row.relative:.1e} {row.note}" for row in rows[:20])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", CONFIG_SEEDS)
@pytest.mark.parametrize(("family", "head"), PAIRS)
def test_keras_and_pytorch_are_equal(family: str, head: str, seed: int, dtype: str, tmp_path: Path) -> None:
    check(family, head, seed, dtype, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", MANY_CONFIG_SEEDS)
@pytest.mark.parametrize(("family", "head"), PAIRS)
def test_keras_and_pytorch_are_equal_on_many_configs(
    family: str, head: str, seed: int, dtype: str, tmp_path: Path
) -> None:
    check(family, head, seed, dtype, tmp_path)


@pytest.mark.parametrize("family", FAMILIES_WITH_MODELS)
def test_word_vectors_in_place_of_ids_give_the_same_in_both(family: str, tmp_path: Path) -> None:
    config = random_config(family, 3)
    pt, tf = twins(config, "Model", "float64", 3, tmp_path)
    inputs = random_inputs(config, "Model", 3)
    table = parameters(pt)["embeddings.word_embeddings.weight"]
    inputs["inputs_embeds"] = table[inputs.pop("input_ids")]
    assert verify(tf, pt, inputs).passed


@pytest.mark.parametrize("family", FAMILIES_WITH_MODELS)
def test_a_model_called_with_ids_alone_gives_the_same_in_both(family: str, tmp_path: Path) -> None:
    config = random_config(family, 4)
    pt, tf = twins(config, "Model", "float64", 4, tmp_path)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (2, 7))
    assert verify(tf, pt, {"input_ids": ids}).passed


@pytest.mark.filterwarnings("ignore:You are using a softmax")
@pytest.mark.parametrize("family", FAMILIES_WITH_MODELS)
def test_gradients_are_equal_where_each_position_sees_itself_alone(family: str, tmp_path: Path) -> None:
    config = random_config(family, 5)
    pt, tf = twins(config, "ForTokenClassification", "float64", 5, tmp_path)
    inputs = random_inputs(config, "ForTokenClassification", 5, length=1)
    assert verify(tf, pt, inputs).passed


def test_a_bare_mobilebert_may_have_words_wider_than_its_stream(tmp_path: Path) -> None:
    config = random_config("mobilebert", 0, hidden_size=6, num_attention_heads=2, embedding_size=10)
    pt, tf = twins(config, "Model", "float64", 0, tmp_path)
    assert verify(tf, pt, random_inputs(config, "Model", 0)).passed


def test_one_weight_of_one_layer_is_enough_to_be_unequal(tmp_path: Path) -> None:
    import torch

    config = random_config("mobilebert", 1)
    pt, tf = twins(config, "ForMaskedLM", "float32", 1, tmp_path)
    inputs = random_inputs(config, "ForMaskedLM", 1)
    assert verify(tf, pt, inputs).passed
    with torch.no_grad():
        pt.mobilebert.encoder.layer[0].output.dense.weight[0, 0] *= 1.01
    assert not verify(tf, pt, inputs).passed
