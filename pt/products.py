"""Products of values with weights, each by the library that computes it fastest on this machine.

PyTorch's own float32 product on a CPU is MKL's, which has its widest instructions for Intel's processors alone; oneDNN,
which PyTorch holds too, asks what the CPU can do. On others than Intel's it is about twice as fast, forward and
backward.
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

# Of fewer multiplications than this, starting oneDNN takes longer than they do.
_LEAST_MULTIPLICATIONS = 2**21

# PyTorch hands no smaller convolution to oneDNN.
_LEAST_NUMBERS = 20480


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`weight @ x + bias`.

    Args:
        values: `[..., in]`.
        weight: `[out, in]`.
        bias: `[out]`.

    Returns:
        `[..., out]`.
    """
    if _suits_onednn(values, weight) and _multiplies_slowly():
        return _onednn_if_large(values, weight, bias)
    return F.linear(values, weight, bias)


def _onednn_if_large(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` of tensors that suit oneDNN, where it pays."""
    if torch.compiler.is_compiling():  # whose lengths may be unknown
        return _product(values, weight, bias)
    if values.numel() * weight.shape[0] < _LEAST_MULTIPLICATIONS:
        return F.linear(values, weight, bias)
    if _needs_gradients(values, weight, bias):
        return _product(values, weight, bias)
    return onednn_linear(values, weight, bias)


def onednn_linear(values: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """Compute `activation(weight @ x + bias)` in one pass, without gradients.

    Args:
        values: `[..., in]`, float32.
        weight: `[out, in]`.
        bias: `[out]`.
        activation: "none", "relu" or "gelu".
    """
    algorithm = "none" if activation == "gelu" else ""
    # Where values are strided, the product is a hundred times slower than copying them.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        values.contiguous(), weight.contiguous(), bias, activation, [], algorithm
    )
    return product


@torch.library.custom_op("isobert::product", mutates_args=(), device_types="cpu")
def _product(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`onednn_linear` with gradients, and as one step of a compiled graph."""
    return onednn_linear(values, weight, bias)


@_product.register_fake
def _(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return values.new_empty((*values.shape[:-1], weight.shape[0]))


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    values, weight, bias = inputs
    ctx.save_for_backward(values, weight)
    ctx.has_bias = bias is not None


def _gradients(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of values, weight and bias, from the product's `[..., out]`."""
    values, weight = ctx.saved_tensors
    of_values, of_weight, of_bias = ctx.needs_input_grad
    rows = slope.flatten(0, -2)
    return (
        _onednn_if_large(slope, weight.t()) if of_values else None,
        _onednn_if_large(rows.t(), values.flatten(0, -2).t()) if of_weight else None,
        rows.sum(dim=0) if of_bias else None,
    )


_product.register_autograd(_gradients, setup_context=_keep)


def grouped_linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A dense map of each group of channels apart: the grouped convolution of size 1 (Iandola et al. 2020, section 3).

    Args:
        values: `[..., in]`, whose channels are split into groups in order.
        weight: `[groups, out / groups, in / groups]`.
        bias: `[out]`.

    Returns:
        `[..., out]`, the groups' results side by side.
    """
    groups = weight.shape[0]
    if groups == 1:
        return linear(values, weight[0], bias)
    if _suits_onednn(values, weight) and (
        torch.compiler.is_compiling() or values.numel() > max(_LEAST_NUMBERS, 32 * values.shape[-1])
    ):
        return _pointwise_convolution(values, weight.flatten(0, 1), bias, groups)
    grouped = torch.einsum("...gi,goi->...go", values.unflatten(-1, (groups, -1)), weight).flatten(-2)
    return grouped if bias is None else grouped + bias


def _pointwise_convolution(values: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Map `[..., in]` by `weight` `[out, in / groups]`; the channels lie last throughout, so no value is moved."""
    pixels = values.reshape(1, 1, -1, values.shape[-1]).permute(0, 3, 1, 2)
    # A kernel of size 1 has nothing to dilate; that it says so makes PyTorch choose oneDNN in a single thread too.
    mapped = F.conv2d(pixels, weight[..., None, None], bias, dilation=2, groups=groups)
    return mapped.permute(0, 2, 3, 1).reshape(*values.shape[:-1], -1)


def _suits_onednn(values: Tensor, weight: Tensor) -> bool:
    """Say whether these are plain float32 tensors on a CPU, in a graph that need not run elsewhere."""
    return (
        values.device.type == "cpu"
        and values.dtype == weight.dtype == torch.float32
        and type(weight) in PLAIN_TENSORS
        and _HAS_ONEDNN
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and (torch.compiler.is_compiling() or not _is_transformed())
    )


def _is_transformed() -> bool:
    """Say whether `torch.func` or forward-mode differentiation looks into each product; oneDNN's would hide it."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _needs_gradients(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


@cache
def _processor() -> str:
    """Return what this machine says of its CPU."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()


# A graph that is being traced cannot hold the reading of a file, nor look behind `cache`.
@torch.compiler.assume_constant_result
def _multiplies_slowly() -> bool:
    """Say whether PyTorch's float32 products leave half of this CPU unused."""
    return "AuthenticAMD" in _processor() and torch.backends.mkl.is_available()
