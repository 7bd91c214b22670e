"""An optimized model computes what its original does, with less work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

from isobert import ConvBertModel, MobileBertForMaskedLM, MobileBertModel, RemBertModel, SqueezeBertModel
from isobert.core.config import ACTIVATIONS
from isobert.errors import InputError, OptimizedModelError
from isobert.pt import optimize
from isobert.pt.optimized import bert, mobilebert
from isobert.pt.optimized.steps import ONEDNN, PLAIN, Steps
from isobert.pt.products import _HAS_ONEDNN
from support.compare import TOLERANCES, assert_close, relative_errors
from support.configs import CONFIG_SEEDS, MANY_CONFIG_SEEDS, random_config
from support.weights import randomise

Make = Callable[..., Any]
Tensors = dict[str, torch.Tensor]

SEEDS = [*CONFIG_SEEDS, *(pytest.param(seed, marks=pytest.mark.slow) for seed in MANY_CONFIG_SEEDS)]
ALL_STEPS = [PLAIN, pytest.param(ONEDNN, marks=pytest.mark.skipif(not _HAS_ONEDNN, reason="PyTorch has no oneDNN"))]
STEP_NAMES = ["plain", "onednn"]


def take(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every optimized model take these steps, whatever this machine and the size of the batch suggest."""
    for module in (bert, mobilebert):
        monkeypatch.setattr(module, "steps_for", lambda values, weight: steps)


def arrays(output: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return an output's tensors by name; those of a tuple as `hidden_states.0` and so on."""

    def flat() -> Iterator[tuple[str, torch.Tensor]]:
        for name, value in output.items():
            if isinstance(value, torch.Tensor):
                yield name, value
            elif name != "past_key_values":
                yield from ((f"{name}.{i}", member) for i, member in enumerate(value))

    return {name: value.detach().double().numpy() for name, value in flat()}


def cast(inputs: Tensors, dtype: torch.dtype) -> Tensors:
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def assert_same(model: Any, inputs: Tensors, tolerance: float) -> None:
    """Compare a model with what it is optimized to, in every kind of output."""
    optimized = optimize(model)
    assert isinstance(optimized, type(model))
    for wanted in ({"output_hidden_states": True}, {"output_attentions": True}, {}):
        with torch.no_grad():
            expected, found = model(**inputs, **wanted), optimized(**inputs, **wanted)
        assert type(found) is type(expected)
        assert list(found) == list(expected)
        assert_close(relative_errors(arrays(found), arrays(expected)), tolerance)


@pytest.mark.parametrize("steps", ALL_STEPS, ids=STEP_NAMES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_float32_model_computes_the_same(
    family: str, seed: int, steps: Steps, make_model: Make, make_inputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(steps, monkeypatch)
    model = make_model(family, seed=seed).float()
    inputs = make_inputs(model, seed, fully_padded_row=True, square_mask=seed % 2 == 1, position_ids=seed % 3 == 0)
    assert_same(model, cast(inputs, torch.float32), TOLERANCES["float32"])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_float64_model_computes_the_same(family: str, seed: int, make_model: Make, make_inputs: Make) -> None:
    model = make_model(family, seed=seed)
    inputs = make_inputs(model, seed, fully_padded_row=True, square_mask=seed % 2 == 0, position_ids=seed % 3 == 1)
    assert_same(model, inputs, TOLERANCES["float64"])


def test_every_head_computes_the_same_scores_and_the_same_loss(
    family: str, head: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, 4)
    assert_same(model, make_inputs(model, 4, fully_padded_row=True), TOLERANCES["float64"])


@pytest.mark.parametrize("seed", CONFIG_SEEDS)
def test_a_mask_that_hides_nothing_is_as_none(family: str, seed: int, make_model: Make) -> None:
    model = make_model(family, seed=seed)
    optimized, ids = optimize(model), torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])
    with torch.no_grad():
        expected = model(ids).last_hidden_state
        for mask in (None, torch.ones_like(ids)):
            torch.testing.assert_close(optimized(ids, attention_mask=mask).last_hidden_state, expected)


@pytest.mark.skipif(not _HAS_ONEDNN, reason="PyTorch has no oneDNN")
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_onednn_computes_the_same_steps(activation: str, groups: int) -> None:
    values, stream = torch.randn(2, 7, 24)[..., :12], torch.randn(2, 7, 18)[..., :9]  # both strided
    weight, bias = torch.randn(9, 12 // groups), torch.randn(9)
    expected = PLAIN.mapped(values.double(), weight.double(), bias.double(), activation)
    torch.testing.assert_close(ONEDNN.mapped(values, weight, bias, activation).double(), expected, rtol=0, atol=5e-6)
    expected = PLAIN.added(stream.double(), values.double(), weight.double(), bias.double())
    before = stream.clone()
    torch.testing.assert_close(ONEDNN.added(stream, values, weight, bias).double(), expected, rtol=0, atol=5e-6)
    assert torch.equal(stream, before)


def test_gradients_still_reach_the_word_vectors(family: str, make_model: Make) -> None:
    # Enough of them that oneDNN would be asked, which gives no gradients.
    model = make_model(family, seed=4).float()
    table = model.get_input_embeddings().weight
    slopes = []
    for each in (model, optimize(model)):
        words = table[torch.arange(40).view(4, 10) % 20].detach().requires_grad_()
        slopes.append(torch.autograd.grad((each(inputs_embeds=words).last_hidden_state ** 2).sum(), words)[0])
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", CONFIG_SEEDS)
def test_bfloat16_is_no_worse_than_the_plain_models(
    family: str, seed: int, make_model: Make, make_inputs: Make
) -> None:
    exact = make_model(family, seed=seed, num_hidden_layers=3)
    inputs = make_inputs(exact, seed, batch=8, square_mask=True)
    half = cast(inputs, torch.bfloat16)
    with torch.no_grad():
        expected = exact(**inputs).last_hidden_state
        optimized = optimize(exact, dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in optimized.parameters()} == {torch.bfloat16}
        found = optimized(**half).last_hidden_state
        plain = exact.bfloat16()(**half).last_hidden_state

    def error(values: torch.Tensor) -> float:
        return (values.double() - expected).pow(2).mean().sqrt().item()

    # Both are draws of rounding; a tenth is their scatter.
    assert error(found) <= 1.1 * error(plain)


def overflowing_model() -> MobileBertModel:
    """Return a MobileBERT whose streams leave float16's range, and whose maps that read them are small accordingly."""
    config = random_config(
        "mobilebert",
        2,
        normalization_type="no_norm",
        use_bottleneck=True,
        use_bottleneck_attention=False,
        key_query_shared_bottleneck=True,
        hidden_act="relu",
        num_hidden_layers=3,
        num_feedforward_networks=4,
    )
    model = randomise(MobileBertModel(config), 2).eval()
    first, second, third = model.encoder.layer
    with torch.no_grad():
        # Channels of the stream, in the second layer; in the third they are back.
        first.output.bottleneck.dense.weight[::3] *= 3e3
        first.output.bottleneck.LayerNorm.weight[::3] *= 3e2
        second.output.bottleneck.LayerNorm.weight[::3] *= 1e-6
        for dense in (second.bottleneck.input.dense, second.bottleneck.attention.dense, second.attention.self.value):
            dense.weight[:, ::3] *= 1e-6
        # What the first layer works with, between two of its feed-forward networks; and the values of the third.
        first.ffn[0].output.dense.weight *= 1e4
        first.ffn[0].output.LayerNorm.weight *= 1e2
        first.ffn[1].intermediate.dense.weight *= 1e-3
        first.ffn[1].output.LayerNorm.weight *= 1e-6
        third.attention.self.value.weight *= 1e5
        third.attention.output.dense.weight *= 1e-5
    return model


def test_float16_holds_streams_that_overflow_the_plain_model(make_inputs: Make) -> None:
    model = overflowing_model()
    inputs = make_inputs(model, labels=False)
    with torch.no_grad():
        expected = model.double()(**inputs, output_hidden_states=True)
        assert max(state.abs().max() for state in expected.hidden_states) > torch.finfo(torch.float16).max
        found = optimize(model.float(), dtype=torch.float16)(**inputs).last_hidden_state
        plain = model.half()(**inputs).last_hidden_state
    assert not plain.isfinite().all()
    assert found.isfinite().all()
    torch.testing.assert_close(found.double(), expected.last_hidden_state, rtol=0, atol=0.02)


def test_the_original_is_unchanged_and_tables_are_in_memory_once(family: str, make_model: Make) -> None:
    model = make_model(family, "ForMaskedLM", 4).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimized = optimize(model)
    optimized.base_model.embeddings.position_embeddings.weight.requires_grad_(False)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trained
    assert model.training
    assert not model.optimizations
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
    words = [each.get_input_embeddings().weight for each in (model, optimized)]
    assert words[0].data_ptr() == words[1].data_ptr()
    heads = [
        each.get_lm_head().decoder if hasattr(each.get_lm_head(), "decoder") else each.get_lm_head()
        for each in (model, optimized)
    ]
    assert heads[0].weight.data_ptr() == heads[1].weight.data_ptr()


def test_training_and_saving_are_refused(tmp_path: Path) -> None:
    model = optimize(MobileBertForMaskedLM(random_config("mobilebert", 4)))
    with pytest.raises(OptimizedModelError, match="An optimized MobileBertForMaskedLM cannot be trained"):
        model.train()
    with pytest.raises(OptimizedModelError, match="cannot be saved; use the model that it was made of"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    assert model.eval() is model
    with pytest.raises(OptimizedModelError, match="is optimized already"):
        optimize(model)


def test_a_model_whose_parts_were_exchanged_is_refused(family: str, make_model: Make) -> None:
    model = make_model(family, seed=4)
    name, dense = next((n, m) for n, m in model.encoder.named_modules() if hasattr(m, "std"))
    parent, _, child = name.rpartition(".")
    setattr(model.encoder.get_submodule(parent), child, nn.Sequential(dense))
    with pytest.raises(OptimizedModelError, match=rf"encoder\.{name} of this \w+Model is not as its config has it"):
        optimize(model)


def test_a_model_without_a_pooler_and_with_other_words_is_optimized(make_inputs: Make) -> None:
    model = MobileBertModel(random_config("mobilebert", 4), add_pooling_layer=False).double().eval()
    model.set_input_embeddings(nn.Embedding(*model.get_input_embeddings().weight.shape).double())
    assert_same(model, make_inputs(model), TOLERANCES["float64"])


@pytest.mark.parametrize(
    ("model_class", "config", "products"),
    [
        (MobileBertModel, {"normalization_type": "no_norm", "use_bottleneck": True}, 12),
        (ConvBertModel, {"num_groups": 2}, 6),
        (SqueezeBertModel, {"q_groups": 2, "k_groups": 2, "v_groups": 2}, 6),
        (SqueezeBertModel, {"q_groups": 1, "k_groups": 1, "v_groups": 1}, 4),
        (RemBertModel, {"is_decoder": False, "add_cross_attention": False}, 4),
    ],
)
def test_a_layer_is_no_more_than_its_products(
    model_class: Any, config: dict[str, Any], products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(ONEDNN, monkeypatch)
    family = model_class.config_class.model_type
    shape = {"num_hidden_layers": 3, "hidden_act": "relu"}
    if family == "mobilebert":
        shape |= {
            "use_bottleneck_attention": False,
            "key_query_shared_bottleneck": True,
            "num_feedforward_networks": 4,
            "attention_mask_value": None,
            "trigram_input": True,
        }
    model = optimize(model_class(random_config(family, 1, **config, **shape)))
    graphs = []

    def keep(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    with torch.no_grad():
        torch.compile(model, fullgraph=True, backend=keep)(torch.tensor([[1, 2, 3]]))
    called = [str(node.target) for node in graphs[0].graph.nodes if node.op == "call_function"]
    assert sum("isobert.mapped" in name or "isobert.added" in name for name in called) == 3 * products
    assert not any("relu" in name or "dropout" in name for name in called)
    if family == "mobilebert":
        # The way back to the last hidden state's true numbers.
        assert sum("addcmul" in name for name in called) == 1
        assert not any("norm" in name for name in called)


def test_it_tells_what_it_did(caplog: pytest.LogCaptureFixture) -> None:
    config = MobileBertModel.config_class.from_size("mobilebert-uncased", num_hidden_layers=2, vocab_size=50)
    with caplog.at_level(logging.INFO, "isobert"):
        model = optimize(MobileBertModel(config))
    assert model.optimizations[:2] == (
        "folded 17 NoNorms into the weights",
        "joined products of the same numbers: 24 in the layers instead of 30",
    )
    assert all(sentence in caplog.text for sentence in model.optimizations)


@pytest.mark.parametrize("steps", ALL_STEPS, ids=STEP_NAMES)
def test_it_compiles_without_a_graph_break(
    family: str, steps: Steps, make_model: Make, make_inputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(steps, monkeypatch)
    model = make_model(family, "ForTokenClassification", 4).float()
    inputs = make_inputs(model, fully_padded_row=True)
    torch.compiler.reset()
    with torch.no_grad():
        found = torch.compile(optimize(model), fullgraph=True, backend="aot_eager")(**inputs)
        assert_close(relative_errors(arrays(found), arrays(model(**inputs))), TOLERANCES["float32"])


def test_it_exports_for_other_batches_and_lengths(family: str, make_model: Make, make_inputs: Make) -> None:
    model = make_model(family, "ForTokenClassification", 4).float()
    example = make_inputs(model, batch=5, labels=False)
    shapes = {name: {0: Dim.AUTO, 1: Dim.AUTO} for name in example}
    exported = torch.export.export(optimize(model), (), example, dynamic_shapes=shapes)
    assert "isobert" not in str(exported.graph)
    other = make_inputs(model, 1, batch=7, length=7, labels=False)
    with torch.no_grad():
        assert_close(relative_errors(arrays(exported.module()(**other)), arrays(model(**other))), TOLERANCES["float32"])


def test_what_is_no_model_or_no_dtype_is_named() -> None:
    with pytest.raises(InputError, match="it got a dict"):
        optimize({})  # type: ignore[type-var]
    model = MobileBertModel(random_config("mobilebert", 0))
    with pytest.raises(InputError, match="dtype is 'float3'"):
        optimize(model, dtype="float3")
    assert "bfloat16" in str(optimize(model, dtype="bfloat16").dtype)
