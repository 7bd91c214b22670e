"""`isobert.pt.products`: whichever library multiplies, the numbers are the same, and so are the gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import profile

from isobert.pt import products
from isobert.pt.products import grouped_linear, linear

ONEDNN = "mkldnn::_linear_pointwise"


@pytest.fixture(params=[False, True], ids=["MKL", "oneDNN"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let one library multiply, whatever this machine is."""
    monkeypatch.setattr(products, "multiplies_slowly", lambda: request.param)
    return "oneDNN" if request.param else "MKL"


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).to(dtype).requires_grad_()


def calls_of_onednn(call: Callable[[], Any]) -> int:
    with profile() as seen:
        call()
    return sum(event.count for event in seen.key_averages() if event.key == ONEDNN)


def assert_equal_with_gradients(
    found: Callable[..., Tensor], expected: Callable[..., Tensor], inputs: tuple[Tensor, ...]
) -> None:
    """Compare with float64 the value and the gradient of each input."""
    exact = tuple(tensor.detach().double().requires_grad_() for tensor in inputs)
    mine, theirs = found(*inputs), expected(*exact)
    slope = torch.randn_like(theirs)
    pairs = [(mine, theirs)]
    pairs += zip(
        torch.autograd.grad(mine, inputs, slope.to(mine.dtype)), torch.autograd.grad(theirs, exact, slope), strict=True
    )
    for one, other in pairs:
        assert one.dtype == inputs[0].dtype
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-7}[one.dtype]
        assert (one - other).abs().max() <= tolerance * other.abs().max()


# Too little for oneDNN; enough of it; and axes of other numbers.
SHAPES = [(2, 3), (9, 100), (800,), (2, 4, 90)]


@pytest.mark.parametrize("outer", SHAPES)
def test_a_dense_map_and_its_gradients_are_the_same_by_either_library(outer: tuple[int, ...], library: str) -> None:
    inputs = drawn(*outer, 64), drawn(48, 64), drawn(48)
    assert_equal_with_gradients(linear, F.linear, inputs)
    assert_equal_with_gradients(linear, F.linear, inputs[:2])
    with torch.no_grad():
        found = linear(*inputs)
    assert found.is_contiguous()
    torch.testing.assert_close(found, F.linear(*inputs).detach(), rtol=1e-4, atol=1e-4)


def test_a_single_vector_is_mapped_and_differentiated(library: str) -> None:
    assert_equal_with_gradients(linear, F.linear, (drawn(2048), drawn(1100, 2048), drawn(1100)))


def test_values_that_are_strided_are_mapped_as_if_they_were_not(library: str) -> None:
    wide = drawn(900, 128)
    assert_equal_with_gradients(
        lambda values, weight: linear(values[:, 32:96], weight.t()),
        lambda values, weight: values[:, 32:96] @ weight,
        (wide, drawn(64, 48)),
    )


@pytest.mark.parametrize("library", [True], indirect=True)
def test_much_goes_through_onednn_forward_and_backward(library: str) -> None:
    values, weight = drawn(2000, 64), drawn(48, 64)
    assert calls_of_onednn(lambda: linear(values, weight)) == 1
    assert calls_of_onednn(lambda: torch.autograd.grad(linear(values, weight).sum(), (values, weight))) == 3
    assert calls_of_onednn(lambda: torch.autograd.grad(linear(values.detach(), weight).sum(), weight)) == 2
    with torch.no_grad():
        assert calls_of_onednn(lambda: linear(values, weight)) == 1


@pytest.mark.parametrize("library", [True], indirect=True)
def test_what_onednn_would_not_serve_goes_the_other_way(library: str) -> None:
    values, weight = drawn(2000, 64), drawn(48, 64)
    assert not calls_of_onednn(lambda: linear(values[:20], weight))  # too little
    assert not calls_of_onednn(lambda: linear(values.double(), weight.double()))
    assert not calls_of_onednn(lambda: linear(values.bfloat16(), weight.bfloat16()))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(values, weight).dtype == torch.bfloat16


def test_a_gradient_has_a_gradient(library: str) -> None:
    values, weight = drawn(2000, 64), drawn(48, 64)

    def slope(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def of(values: Tensor, weight: Tensor) -> Tensor:
            return torch.autograd.grad(product(values, weight).square().sum(), values, create_graph=True)[0]

        return of

    assert_equal_with_gradients(slope(linear), slope(F.linear), (values, weight))


def test_transformations_of_functions_look_through_a_product(library: str) -> None:
    values, weights = drawn(2000, 64).detach(), drawn(3, 48, 64).detach()

    def energy(weight: Tensor) -> Tensor:
        return linear(values, weight).square().sum()

    expected = 2 * (F.linear(values, weights[0]).t() @ values)
    torch.testing.assert_close(torch.func.grad(energy)(weights[0]), expected, rtol=1e-4, atol=1e-2)
    assert torch.vmap(torch.func.grad(energy))(weights).shape == weights.shape
    _, tangent = torch.func.jvp(lambda given: linear(given, weights[0]), (values,), (values,))
    torch.testing.assert_close(tangent, F.linear(values, weights[0]))


@pytest.mark.parametrize("grouped", [False, True])
def test_a_compiled_product_is_the_same_forward_and_backward(grouped: bool, library: str) -> None:
    torch.compiler.reset()
    weight, bias = drawn(4, 12, 16) if grouped else drawn(48, 64), drawn(48)
    compiled = torch.compile(grouped_linear if grouped else linear, fullgraph=True)
    for rows in (900, 950):
        assert_equal_with_gradients(compiled, by_group if grouped else F.linear, (drawn(rows, 64), weight, bias))


def test_an_exported_product_is_one_that_runs_anywhere(library: str) -> None:
    class Map(torch.nn.Module):
        def forward(self, values: Tensor, weight: Tensor) -> Tensor:
            return linear(values, weight)

    with torch.no_grad():
        program = torch.export.export(Map(), (drawn(2000, 64), drawn(48, 64)))
    names = {str(node.target) for node in program.graph.nodes}
    assert "aten.linear.default" in names
    assert not [name for name in names if "mkldnn" in name or "isobert" in name]


def by_group(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Map each group of channels by its own matrix `[out, in]`, one after the other."""
    parts = values.chunk(weight.shape[0], dim=-1)
    return torch.cat([part @ matrix.T for part, matrix in zip(parts, weight, strict=True)], dim=-1) + bias


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("outer", SHAPES)
def test_a_grouped_map_is_each_group_of_channels_through_its_own_matrix(
    outer: tuple[int, ...], groups: int, dtype: torch.dtype
) -> None:
    inputs = (drawn(*outer, 64, dtype=dtype), drawn(groups, 48 // groups, 64 // groups, dtype=dtype))
    assert_equal_with_gradients(grouped_linear, by_group, (*inputs, drawn(48, dtype=dtype)))
