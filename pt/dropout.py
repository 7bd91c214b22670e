"""Dropout (Srivastava et al. 2014), drawn on a CPU from a quarter of the random numbers.

PyTorch draws 64 random bits for each number on a CPU, one after another, and keeps a mask of the values' dtype for the
backward pass. In a training step of a model whose products are cheap, that is a sixth of the time. Sixteen bits decide
as well, and the mask needs a byte.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .products import is_transformed

# One random integer of 64 bits decides for four values, each by one of so many steps.
_STEPS = 2**16


def dropout(values: Tensor, probability: float) -> Tensor:
    """Set each value to 0 with a probability, and divide the others by what remains of 1.

    On a CPU the probability is rounded to a multiple of `2 ** -16`, and the division is by what remains of that.

    Args:
        values: any shape.
        probability: from 0, which changes nothing, to 1.

    Returns:
        The same shape.
    """
    dropped = round(probability * _STEPS)
    if probability == 0.0:
        return values
    if (
        values.device.type == "cpu"
        and 0 < dropped < _STEPS
        and not torch.compiler.is_compiling()
        and not is_transformed()
    ):
        kept: Tensor = _Dropout.apply(values, dropped)
        return kept
    return F.dropout(values, probability)


class _Dropout(torch.autograd.Function):
    """Dropout that keeps a byte for each value."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, dropped: int) -> Tensor:
        draws = torch.empty(math.ceil(values.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
        keep = draws.view(torch.int16)[: values.numel()].view(values.shape) >= dropped - _STEPS // 2
        ctx.save_for_backward(keep)
        ctx.scale = _STEPS / (_STEPS - dropped)
        return (values * keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return slope * keep * ctx.scale, None


class Dropout(nn.Dropout):
    """The same as a part of a model: at work in training mode alone."""

    def forward(self, values: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return dropout(values, self.p) if self.training else values
