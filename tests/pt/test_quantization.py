"""A quantised model computes almost what its original does, in products of bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_examples import blocks
from torch import Tensor, nn

from isobert import MobileBertModel, RemBertModel, SqueezeBertModel
from isobert.errors import InputError, OptimizedModelError
from isobert.pt import optimize, quantization, quantize
from isobert.pt.optimized.bert import Layer
from isobert.pt.optimized.int8 import Grid, Int8Mapping, Product, Range, quantize_layer
from isobert.pt.optimized.parts import Mapping, SumNorm
from isobert.pt.optimized.steps import FUSED, PLAIN
from isobert.pt.quantization import multiplies_bytes
from support.configs import CONFIG_SEEDS, random_config

Make = Callable[..., Any]

PAGE = Path(__file__).parents[2] / "docs" / "speed.md"

# Families that have layers of another kind, which are refused.
FIT = {"rembert": {"is_decoder": False}, "mobilebert": {"normalization_type": "no_norm"}}

needs_bytes = pytest.mark.skipif(not multiplies_bytes(), reason="this machine multiplies no bytes")


def texts(model: Any, batch: int = 4, length: int = 8) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(1, model.config.vocab_size, (batch, length))}


def error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def whole_weight(out: int, inner: int) -> Tensor:
    """Return a weight that bytes hold exactly: each row's largest is 127."""
    weight = torch.randint(-126, 127, (out, inner)).float()
    weight[:, 0] = 127
    return weight


@needs_bytes
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("name", FUSED)
def test_a_product_of_bytes_is_the_product_of_what_they_stand_for(name: str, groups: int) -> None:
    weight, bias = whole_weight(9, 12 // groups) / 500, torch.randn(9)
    grid = Grid(torch.full((12,), 0.01), torch.randn(12), 120.5)
    parts = torch.randint(0, 256, (2, 7, 12), dtype=torch.uint8)
    values = grid.middle + grid.step * (parts.float() - grid.centre)
    product, pieces = Product(weight, bias, grid), [part.contiguous() for part in parts.chunk(groups, dim=-1)]
    expected = PLAIN.mapped(values, weight, bias, name)
    torch.testing.assert_close(torch.cat(product.mapped(pieces, name), dim=-1), expected, rtol=1e-4, atol=1e-4)
    stream = torch.randn(2, 7, 18)[..., :9]  # strided
    before = stream.clone()
    expected = PLAIN.added(stream, values, weight, bias)
    torch.testing.assert_close(product.added(stream, pieces), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(stream, before)


@needs_bytes
def test_a_product_ends_in_bytes_of_the_step_and_the_zero_asked_for() -> None:
    weight, grid = whole_weight(9, 12) / 500, Grid(torch.full((12,), 0.01), torch.zeros(12), 128)
    parts = torch.randint(0, 256, (7, 12), dtype=torch.uint8)
    product = Product(weight, None, grid)
    [found] = product.mapped([parts], "linear", 0.02, 100)
    assert found.dtype == torch.uint8
    expected = (product.mapped([parts], "linear")[0] / 0.02 + 100).clamp(0, 255)
    assert ((found - expected).abs() <= 0.51).all()


@needs_bytes
def test_one_large_channel_does_not_coarsen_the_others() -> None:
    values = torch.randn(200, 64)
    values[:, 3] = 1000 + 100 * torch.randn(200)
    weight, bias = torch.randn(32, 64), torch.randn(32)
    weight[:, 3] /= 100
    found = Int8Mapping([Mapping(weight, bias)], Range(*torch.aminmax(values, dim=0)))(values, PLAIN)
    assert error(found, values @ weight.t() + bias) < 0.01


@needs_bytes
def test_several_maps_of_groups_lie_side_by_side() -> None:
    values, maps = torch.randn(50, 12), [Mapping(torch.randn(6, 4), torch.randn(6)) for _ in range(3)]
    found = Int8Mapping(maps, Range(*torch.aminmax(values, dim=0)))(values, PLAIN)
    expected = torch.cat([one(values, PLAIN) for one in maps], dim=-1)
    assert error(found, expected) < 0.01


@needs_bytes
@pytest.mark.parametrize("groups", [(1, 1), (2, 2), (2, 4)])
def test_a_neuron_that_reaches_far_does_not_coarsen_the_others(groups: tuple[int, int]) -> None:
    (first, second), width, inner, far = groups, 16, 400, 300
    expand = Mapping(torch.randn(inner, width // first) / 4, torch.randn(inner), "gelu")
    expand.weight[far] *= 100
    weight = torch.randn(width, inner // second)
    weight.unflatten(0, (second, -1))[far * second // inner, :, far % (inner // second)] /= 100
    contract = SumNorm(weight, torch.randn(width), nn.LayerNorm(width))
    attended = SumNorm(torch.randn(width, width), torch.randn(width), nn.LayerNorm(width))
    layer = Layer([Mapping(torch.randn(3 * width, width), torch.randn(3 * width))], 2, attended, expand, contract)
    hidden = torch.randn(4, 50, width)
    inside = expand(hidden, PLAIN)
    expected = contract(hidden, inside, PLAIN)
    given = {layer.inputs[0]: hidden, attended: hidden, expand: hidden, contract: inside}
    seen = {part: Range(*torch.aminmax(values.flatten(0, -2), dim=0)) for part, values in given.items()}
    assert quantize_layer(layer, seen) == 1
    assert error(layer.contract(hidden, layer.expand(hidden, PLAIN), PLAIN), expected) < 0.02


@needs_bytes
@pytest.mark.parametrize("seed", CONFIG_SEEDS)
def test_a_quantised_model_computes_almost_the_same(
    family: str, seed: int, make_model: Make, make_inputs: Make
) -> None:
    # Of several activations, and groups that are joined or not.
    model = make_model(family, seed=seed, **FIT.get(family, {})).float()
    inputs = make_inputs(model, seed, batch=8)
    inputs = {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}
    quantised = quantize(model, [inputs])
    assert type(quantised) is type(model)
    for wanted in ({"output_hidden_states": True}, {"output_attentions": True}, {}):
        with torch.inference_mode():
            expected, found = model(**inputs, **wanted), quantised(**inputs, **wanted)
        assert list(found) == list(expected)
        assert error(found.last_hidden_state, expected.last_hidden_state) < 0.05


@needs_bytes
def test_every_head_works(family: str, head: str, make_model: Make, make_inputs: Make) -> None:
    model = make_model(family, head, 4, **FIT.get(family, {})).float()
    inputs = make_inputs(model, 4)
    quantised = quantize(model, [inputs])
    with torch.inference_mode():
        expected, found = model(**inputs), quantised(**inputs)
    assert list(found) == list(expected)
    assert found[0].shape == expected[0].shape


@needs_bytes
def test_a_texts_numbers_do_not_depend_on_others_in_its_batch(family: str, make_model: Make) -> None:
    model = make_model(family, seed=4, **FIT.get(family, {})).float()
    quantised, inputs = quantize(model, [texts(model)]), texts(model)
    with torch.inference_mode():
        together = quantised(**inputs).last_hidden_state
        alone = torch.cat([quantised(ids[None]).last_hidden_state for ids in inputs["input_ids"]])
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-3)


@needs_bytes
def test_ranges_are_those_of_all_batches() -> None:
    model = SqueezeBertModel(random_config("squeezebert", 0)).eval()
    first, second = texts(model), texts(model)
    joint = {"input_ids": torch.cat([first["input_ids"], second["input_ids"]])}
    with torch.inference_mode():
        found = [quantize(model, batches)(**joint).last_hidden_state for batches in ([first, second], [joint])]
    torch.testing.assert_close(*found)


@needs_bytes
def test_it_tells_what_it_did_and_leaves_the_original_alone(caplog: pytest.LogCaptureFixture) -> None:
    model = SqueezeBertModel(random_config("squeezebert", 0, num_hidden_layers=2)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level(logging.INFO, logger="isobert"):
        quantised = quantize(model, [texts(model), texts(model)])
    [sentence] = [one for one in quantised.optimizations if "integers" in one]
    assert sentence.endswith("products of the layers into 8-bit integers, for the ranges of 2 batches")
    assert quantised.optimizations[: len(optimize(model).optimizations)] == optimize(model).optimizations
    assert sentence in caplog.text
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(OptimizedModelError):
        quantised.train()
    with pytest.raises(OptimizedModelError):
        quantised.save_pretrained("nowhere")


@needs_bytes
@pytest.mark.parametrize(
    ("change", "batches", "raised", "message"),
    [
        (lambda model: nn.Linear(2, 2), [{}], InputError, "a PyTorch model of isobert; it got a Linear"),
        (lambda model: model.double(), [{}], InputError, "float32 on a CPU; this SqueezeBertModel is in torch.float64"),
        (optimize, [{}], OptimizedModelError, "optimized already"),
        (lambda model: model, [], InputError, "got no batches"),
        (lambda model: model, {"input_ids": torch.tensor([[1]])}, InputError, "among them is a str"),
        (
            lambda model: model,
            [{"inputs_embeds": torch.full((1, 2, 768), torch.nan)}],
            InputError,
            "not finite",
        ),
    ],
    ids=["no model", "float64", "optimized", "no batches", "one batch", "not finite"],
)
def test_what_cannot_be_quantised_is_refused(change: Any, batches: Any, raised: Any, message: str) -> None:
    config = random_config("squeezebert", 0, hidden_size=768, embedding_size=768, num_attention_heads=12)
    with pytest.raises(raised, match=message):
        quantize(change(SqueezeBertModel(config).eval()), batches)


@needs_bytes
def test_layers_that_are_left_as_they_are_are_refused() -> None:
    decoder = RemBertModel(random_config("rembert", 0, is_decoder=True)).eval()
    normed = MobileBertModel(random_config("mobilebert", 0, normalization_type="layer_norm")).eval()
    for model, why in ((decoder, "they are a decoder's"), (normed, "layer_norm cannot be folded")):
        with pytest.raises(OptimizedModelError, match=why):
            quantize(model, [texts(model)])


def test_a_machine_that_multiplies_no_bytes_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "multiplies_bytes", lambda: False)
    model = SqueezeBertModel(random_config("squeezebert", 0)).eval()
    with pytest.raises(OptimizedModelError, match=r"Use optimize\(model\)"):
        quantize(model, [texts(model)])


@needs_bytes
def test_the_pages_example_runs() -> None:
    example = PAGE.read_text(encoding="utf-8").split("## Integers")[1].split("## ")[0]
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(example.replace("<!-- not run:", "<!-- run here:"), str(PAGE)):
        exec(block, names)
