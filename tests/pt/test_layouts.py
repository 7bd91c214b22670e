"""Weights that are laid out once for oneDNN's products: the same numbers, and never those of another weight."""

from __future__ import annotations

import copy
import gc
import io

import pytest
import torch
from torch import Tensor, nn

from isobert import MobileBertConfig, MobileBertModel, SqueezeBertConfig, SqueezeBertModel
from isobert.pt import optimize
from isobert.pt.optimized import bert, layouts, mobilebert
from isobert.pt.optimized.steps import ONEDNN
from isobert.pt.products import _HAS_ONEDNN

pytestmark = pytest.mark.skipif(not _HAS_ONEDNN, reason="PyTorch has no oneDNN")

GROUPS = pytest.mark.parametrize("groups", [1, 4])


def parts(groups: int) -> tuple[Tensor, Tensor]:
    """Return a weight of so many groups and a bias, without gradients."""
    torch.manual_seed(groups)
    return nn.Parameter(torch.randn(48, 64 // groups), requires_grad=False), torch.randn(48)


def layout(weight: Tensor) -> Tensor | None:
    known = layouts._known.get(id(weight))
    return None if known is None else known.layout


def expected(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    groups = values.shape[-1] // weight.shape[1]
    mapped = [part @ w.t() for part, w in zip(values.chunk(groups, -1), weight.chunk(groups), strict=True)]
    return torch.cat(mapped, -1) + bias


@GROUPS
def test_the_second_use_lays_a_weight_out_and_changes_no_number(groups: int) -> None:
    weight, bias = parts(groups)
    values = torch.randn(3, 40, 64)
    first = ONEDNN.mapped(values, weight, bias, "gelu")
    assert layout(weight) is None
    second = ONEDNN.mapped(values, weight, bias, "gelu")
    kept = layout(weight)
    assert kept is not None
    third = ONEDNN.mapped(values, weight, bias, "gelu")
    assert layout(weight) is kept
    assert torch.equal(first, second)
    assert torch.equal(first, third)


@GROUPS
def test_values_of_another_shape_get_their_own(groups: int) -> None:
    weight, bias = parts(groups)
    for shape in ((3, 40), (3, 40), (3, 40), (1, 33), (8, 128), (8, 128), (8, 128), (1, 7)):
        values = torch.randn(*shape, 64)
        found = ONEDNN.mapped(values, weight, bias, "linear")
        torch.testing.assert_close(found, expected(values, weight, bias), atol=1e-4, rtol=1e-4)
    # A convolution's serves one shape, which was another before; a product's serves all.
    assert (layout(weight) is None) == (groups > 1)


@GROUPS
@pytest.mark.parametrize("how", ["in place", "by other memory", "by another dtype and back"])
def test_a_changed_weight_is_laid_out_anew(groups: int, how: str) -> None:
    weight, bias = parts(groups)
    values = torch.randn(3, 40, 64)
    for _ in range(3):
        ONEDNN.mapped(values, weight, bias, "linear")
    if how == "in place":
        weight.mul_(2.0)
    elif how == "by other memory":
        weight.data = weight.data * 2.0
    else:
        weight.data = weight.data.to(torch.bfloat16).float()
    for _ in range(3):
        found = ONEDNN.mapped(values, weight, bias, "linear")
        torch.testing.assert_close(found, expected(values, weight, bias), atol=1e-4, rtol=1e-4)
    assert layout(weight) is not None


def test_what_was_made_lives_as_long_as_its_weight() -> None:
    weight, bias = parts(1)
    values = torch.randn(3, 40, 64)
    for _ in range(3):
        ONEDNN.mapped(values, weight, bias, "linear")
    key = id(weight)
    assert key in layouts._known
    del weight
    gc.collect()
    assert key not in layouts._known


def test_large_weights_and_inference_tensors_are_left_as_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias = parts(1)
    values = torch.randn(3, 40, 64)
    with torch.inference_mode():
        unknown = weight.clone()
    monkeypatch.setattr(layouts, "MOST_NUMBERS", weight.numel() - 1)
    for _ in range(3):
        ONEDNN.mapped(values, weight, bias, "linear")
    assert layout(weight) is None
    monkeypatch.setattr(layouts, "MOST_NUMBERS", weight.numel())
    for _ in range(3):
        ONEDNN.mapped(values, unknown, bias, "linear")
        ONEDNN.mapped(values, weight, bias, "linear")
    assert layout(unknown) is None
    assert layout(weight) is not None


@pytest.mark.parametrize("name", ["mobilebert", "squeezebert"])
def test_a_model_in_use_can_be_copied_pickled_and_compiled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bert, mobilebert):
        monkeypatch.setattr(module, "steps_for", lambda values, weight: ONEDNN)
    torch.manual_seed(0)
    plain: nn.Module = (
        MobileBertModel(MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=1)).eval()
        if name == "mobilebert"
        else SqueezeBertModel(SqueezeBertConfig(num_hidden_layers=1)).eval()
    )
    model = optimize(plain)  # type: ignore[type-var]
    ids = torch.randint(1000, (2, 32))
    with torch.no_grad():
        first = model(ids).last_hidden_state
        assert all(torch.equal(model(ids).last_hidden_state, first) for _ in range(2))
        assert any(layout(parameter) is not None for parameter in model.parameters())
        assert torch.equal(copy.deepcopy(model)(ids).last_hidden_state, first)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        opened = torch.load(file, weights_only=False)
        assert all(torch.equal(opened(ids).last_hidden_state, first) for _ in range(3))
        compiled = torch.compile(copy.deepcopy(model), fullgraph=True)
        for _ in range(3):
            torch.testing.assert_close(compiled(ids).last_hidden_state, first, atol=1e-4, rtol=1e-4)
