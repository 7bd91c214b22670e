"""What is particular to SqueezeBERT: its grouped convolutions, its pooler, its norms and its attentions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from isobert.core.registry import model_class
from isobert.core.squeezebert import GROUPS
from support.configs import random_config
from support.inputs import random_inputs
from support.weights import parameters, randomise

FRAMEWORKS = ("pt", "tf")
# Heads that have no use for the vector of the whole sequence.
TOKEN_LEVEL = ("ForMaskedLM", "ForTokenClassification", "ForQuestionAnswering")
SEQUENCE_LEVEL = ("ForSequenceClassification", "ForMultipleChoice")
LENGTH, PADDED = 5, 9


def make(framework: str, head: str = "Model", **overrides: Any) -> Any:
    """Return a model in float64 with random weights, without dropout."""
    config = random_config("squeezebert", 2, **overrides)
    model_type = model_class("squeezebert", head, framework)
    if framework == "pt":
        return randomise(model_type(config).double().eval(), 2)
    return randomise(model_type(config, dtype="float64"), 2)


def run(model: Any, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Return everything that a model computes from these inputs."""
    return model.trace(inputs, gradients=False).outputs


def ids_for(model: Any, length: int = PADDED, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, model.config.vocab_size, (batch, length))


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def without_groups(weight: np.ndarray, groups: int) -> np.ndarray:
    """Write a grouped weight `[out, in / groups, 1]` as the block-diagonal one of a single group, `[out, in, 1]`."""
    width_out, width_in, _ = weight.shape
    whole = np.zeros((width_out, groups * width_in, 1))
    rows = width_out // groups
    for group in range(groups):
        here = slice(group * rows, (group + 1) * rows)
        whole[here, group * width_in : (group + 1) * width_in] = weight[here]
    return whole


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_groups_are_one_group_whose_weights_are_zero_between_groups(framework: str, tmp_path: Path) -> None:
    numbers = dict(zip(GROUPS, (2, 3, 2, 3, 3, 2), strict=True))
    model = make(framework, **numbers)
    model.save_pretrained(tmp_path)
    owners = {
        "attention.query": "q_groups",
        "attention.key": "k_groups",
        "attention.value": "v_groups",
        "post_attention.conv1d": "post_attention_groups",
        "intermediate.conv1d": "intermediate_groups",
        "output.conv1d": "output_groups",
    }
    tensors = load_file(tmp_path / "model.safetensors")
    changed = 0
    for name, value in tensors.items():
        owner = next((field for part, field in owners.items() if name.endswith(f"{part}.weight")), None)
        if owner:
            tensors[name] = without_groups(value, numbers[owner])
            changed += 1
    assert changed == 6 * model.config.num_hidden_layers
    save_file(tensors, tmp_path / "model.safetensors")
    model.config.replace(**dict.fromkeys(GROUPS, 1)).save_pretrained(tmp_path)
    whole = model_class("squeezebert", "Model", framework).from_pretrained(tmp_path, dtype="float64")
    found, expected = (run(m, input_ids=ids_for(model))["last_hidden_state"] for m in (whole, model))
    assert_same(found, expected)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("head", TOKEN_LEVEL)
def test_a_head_for_tokens_holds_the_pooler_and_neither_computes_nor_trains_it(head: str, framework: str) -> None:
    model = make(framework, head, num_labels=3, problem_type=None)
    pooler = {"transformer.pooler.dense.weight", "transformer.pooler.dense.bias"}
    assert pooler <= parameters(model).keys()
    inputs = random_inputs(model.config, head, 0)
    trace = model.trace(inputs, gradients=True)
    assert parameters(model).keys() - trace.gradients.keys() == pooler
    assert "pooler_output" not in run(model.base_model, input_ids=inputs["input_ids"])


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("head", SEQUENCE_LEVEL)
def test_a_head_for_sequences_trains_the_pooler(head: str, framework: str) -> None:
    model = make(framework, head, num_labels=3, problem_type="single_label_classification")
    trace = model.trace(random_inputs(model.config, head, 0), gradients=True)
    assert trace.gradients.keys() == parameters(model).keys()
    assert trace.gradients["transformer.pooler.dense.weight"].any()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_epsilon_of_the_config_is_the_embeddings_and_not_the_layers(framework: str) -> None:
    model, other = (make(framework, layer_norm_eps=epsilon) for epsilon in (1e-12, 0.5))
    ids = ids_for(model)
    found, changed = run(model, input_ids=ids), run(other, input_ids=ids)
    assert np.abs(found["hidden_states.0"] - changed["hidden_states.0"]).max() > 1e-2
    # A layer norm with epsilon 1e-12 has a mean of 0 and a variance of 1 before it is scaled and shifted.
    held = parameters(other)
    last = f"encoder.layers.{other.config.num_hidden_layers - 1}.output.layernorm"
    plain = (changed["last_hidden_state"] - held[f"{last}.bias"]) / held[f"{last}.weight"]
    np.testing.assert_allclose(plain.mean(-1), 0, atol=1e-10)
    np.testing.assert_allclose(plain.var(-1), 1, rtol=1e-10)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_attentions_are_probabilities(framework: str) -> None:
    model = make(framework)
    mask = (np.arange(PADDED) < np.array([[PADDED], [LENGTH]])).astype(np.int64)
    found = run(model, input_ids=ids_for(model), attention_mask=mask)
    for layer in range(model.config.num_hidden_layers):
        probabilities = found[f"attentions.{layer}"]
        np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-12)
        assert (probabilities >= 0).all()
        assert (probabilities[1, ..., LENGTH:] == 0).all()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_example_does_not_depend_on_its_padding(framework: str) -> None:
    model = make(framework)
    ids = ids_for(model, LENGTH, 1)
    padded = np.full((1, PADDED), model.config.pad_token_id)
    padded[:, :LENGTH] = ids
    mask = (np.arange(PADDED) < LENGTH).astype(np.int64)[None]
    found = run(model, input_ids=padded, attention_mask=mask)
    expected = run(model, input_ids=ids)
    assert_same(found["last_hidden_state"][:, :LENGTH], expected["last_hidden_state"])
    assert_same(found["pooler_output"], expected["pooler_output"])


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("head", [*SEQUENCE_LEVEL, "ForTokenClassification"])
def test_the_dropout_before_a_classifier_is_that_of_the_hidden_states(head: str, framework: str) -> None:
    dropout = make(framework, head, hidden_dropout_prob=0.15).dropout
    assert (dropout.p if framework == "pt" else dropout.rate) == 0.15
