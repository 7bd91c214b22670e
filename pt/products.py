"""Products of values with weights, each by the library that computes it fastest on this machine.

PyTorch's own float32 product on a CPU is MKL's, which has its widest instructions for Intel's processors alone; oneDNN,
which PyTorch holds too, asks what the CPU can do. On AMD's it is about twice as fast; `benchmarks/bench.py`
measures both in every run.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

# A quantised or distributed weight knows its own product.
PLAIN_TENSORS = (Tensor, nn.Parameter)

# Asked beforehand, for a graph that is being traced cannot ask.
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

# In bfloat16, where the CPU has instructions for its products; elsewhere oneDNN widens each number first.
_HAS_BFLOAT16 = _HAS_ONEDNN and torch.cpu._is_avx512_bf16_supported()
_DTYPES = (torch.float32, torch.bfloat16) if _HAS_BFLOAT16 else (torch.float32,)

# Of fewer multiplications than this, starting oneDNN takes longer than they do.
_LEAST_MULTIPLICATIONS = 2**21


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`weight @ x + bias`.

    Args:
        values: `[..., in]`.
        weight: `[out, in]`.
        bias: `[out]`.

    Returns:
        `[..., out]`.
    """
    if values.dtype == torch.float32 and suits_onednn(values, weight) and multiplies_slowly():
        return _onednn_if_large(values, weight, bias)
    return F.linear(values, weight, bias)


def grouped_linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A dense map of each group of channels apart: the grouped convolution of size 1 (Iandola et al. 2020, section 3).

    Args:
        values: `[..., in]`, whose channels are split into groups in order.
        weight: `[groups, out / groups, in / groups]`.
        bias: `[out]`.

    Returns:
        `[..., out]`, the groups' results side by side.
    """
    if weight.shape[0] == 1:
        return linear(values, weight[0], bias)
    if suits_onednn(values, weight):
        return _onednn_if_large(values, weight.flatten(0, 1), bias)
    return _by_group(values, weight, bias)


def suits_onednn(values: Tensor, weight: Tensor) -> bool:
    """Say whether these are plain tensors on a CPU, of a dtype that it multiplies, in a graph that stays here."""
    return (
        values.device.type == "cpu"
        and values.dtype == weight.dtype
        and values.dtype in _DTYPES
        and type(weight) in PLAIN_TENSORS
        and _HAS_ONEDNN
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and (torch.compiler.is_compiling() or not is_transformed())
    )


def is_transformed() -> bool:
    """Say whether `torch.func` or forward-mode differentiation looks into each product; oneDNN's would hide it."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _onednn_if_large(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map values that suit oneDNN, by it where that pays; a weight `[out, in / groups]` maps each group apart."""
    if torch.compiler.is_compiling():  # whose lengths may be unknown
        return _product(values, weight, bias)
    if _is_small(values, weight.shape[0]):
        groups = _groups(values, weight)
        if groups > 1:
            return _by_group(values, weight.unflatten(0, (groups, -1)), bias)
        return F.linear(values, weight, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (values, weight, bias)):
        return _product(values, weight, bias)
    return _onednn(values, weight, bias)


def _is_small(values: Tensor, width: int) -> bool:
    """Say whether a map of these values to so many is over before oneDNN has started."""
    return values.numel() * width < _LEAST_MULTIPLICATIONS


def _groups(values: Tensor, weight: Tensor) -> int:
    return values.shape[-1] // weight.shape[1]


def _by_group(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    grouped = torch.einsum("...gi,goi->...go", values.unflatten(-1, (weight.shape[0], -1)), weight).flatten(-2)
    return grouped if bias is None else grouped + bias


def _onednn(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    groups = _groups(values, weight)
    # Where values are strided, the product is a hundred times slower than copying them.
    values = values.contiguous()
    if groups == 1:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")
        return product
    # A convolution of size 1. It has nothing to dilate; that it says so makes PyTorch choose oneDNN in one thread too.
    mapped = F.conv2d(_image(values), weight[..., None, None], bias, dilation=2, groups=groups)
    return _values(mapped, values.shape[:-1])


def _image(values: Tensor) -> Tensor:
    """See `[..., channels]` as an image whose pixels stand in one row; the channels still lie last."""
    return values.reshape(1, 1, -1, values.shape[-1]).permute(0, 3, 1, 2)


def _values(image: Tensor, outer: torch.Size) -> Tensor:
    """See such an image as `[*outer, channels]` again."""
    return image.permute(0, 2, 3, 1).reshape(*outer, -1)


def _shaped(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return values.new_empty((*values.shape[:-1], weight.shape[0]))


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    values, weight, _ = inputs
    ctx.save_for_backward(values, weight)


def _gradients(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of values, weight and bias, from the product's `[..., out]`."""
    values, weight = ctx.saved_tensors
    of_values, of_weight, of_bias = ctx.needs_input_grad
    rows = slope.reshape(-1, slope.shape[-1])
    return (
        _values_gradient(slope, weight, values) if of_values else None,
        _weight_gradient(rows, values.reshape(-1, values.shape[-1]), _groups(values, weight)) if of_weight else None,
        rows.sum(dim=0) if of_bias else None,
    )


def _values_gradient(slope: Tensor, weight: Tensor, values: Tensor) -> Tensor:
    """Return `slope @ weight` of each group, `[..., in]`."""
    groups = _groups(values, weight)
    if groups == 1:
        return _onednn_if_large(slope, weight.t())
    if torch.compiler.is_compiling() or _is_small(slope, values.shape[-1]):
        return _onednn_if_large(slope, weight.unflatten(0, (groups, -1)).mT.flatten(0, 1))
    # The convolution's own gradient reads the weights as they lie.
    images = _image(slope.contiguous()), _image(values.contiguous()), weight[..., None, None]
    gradient, _, _ = torch.ops.aten.convolution_backward(
        *images, None, [1, 1], [0, 0], [2, 2], False, [0, 0], groups, [True, False, False]
    )
    return _values(gradient, values.shape[:-1])


def _weight_gradient(slope: Tensor, values: Tensor, groups: int) -> Tensor:
    """Return `slope^T @ values` of each group, `[out, in / groups]`, from `[rows, out]` and `[rows, in]`."""
    if groups == 1:
        return _turned_product(slope, values)
    pairs = zip(slope.chunk(groups, dim=-1), values.chunk(groups, dim=-1), strict=True)
    # The narrower one is turned, since turning takes as long as a part of the product itself.
    if slope.shape[-1] <= values.shape[-1]:
        return torch.cat([_turned_product(s, v) for s, v in pairs])
    return torch.cat([_turned_product(v, s).t() for s, v in pairs])


def _turned_product(left: Tensor, right: Tensor) -> Tensor:
    """Return `left^T @ right`, of `[rows, ...]` each; where they lie strided, they are copied as `_onednn` does."""
    return _onednn_if_large(left.contiguous().t().contiguous(), right.contiguous().t())


# An operator of our own has gradients, and is one step of a compiled graph. It costs no more than what it calls.
torch.library.define("isobert::product", "(Tensor values, Tensor weight, Tensor? bias) -> Tensor")
torch.library.impl("isobert::product", "cpu", _onednn)
torch.library.register_fake("isobert::product", _shaped)
torch.library.register_autograd("isobert::product", _gradients, setup_context=_keep)
_product = torch.ops.isobert.product.default


@cache
def _processor() -> str:
    """Return what this machine says of its CPU."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()


# A graph that is being traced cannot hold the reading of a file, nor look behind `cache`.
@torch.compiler.assume_constant_result
def multiplies_slowly() -> bool:
    """Say whether PyTorch's float32 products leave half of this CPU unused."""
    return "AuthenticAMD" in _processor() and torch.backends.mkl.is_available()
