"""Modules of optimized layers. Their parameters have no gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers import GroupedConvolution, GroupedDense
from .steps import Steps


def fixed(values: Tensor) -> nn.Parameter:
    """Return numbers as a parameter without gradients, which shares their memory."""
    return nn.Parameter(values.detach(), requires_grad=False)


class Mapping(nn.Module):
    """A dense map with an activation: `activation(weight @ x + bias)`.

    Args:
        weight: `[out, in]`, or `[out, in / groups]` of a map of each group apart.
        bias: `[out]`.
        activation: its name.
    """

    def __init__(self, weight: Tensor, bias: Tensor, activation: str = "linear") -> None:
        super().__init__()
        self.activation = activation
        self.weight = fixed(weight)
        self.bias = fixed(bias)

    def forward(self, values: Tensor, steps: Steps) -> Tensor:
        """`[batch, length, in]` -> `[batch, length, out]`."""
        return steps.mapped(values, self.weight, self.bias, self.activation)


class SumNorm(nn.Module):
    """What closes each half of a layer: `layer_norm(weight @ x + bias + residual)`; a weight is as in `Mapping`."""

    def __init__(self, weight: Tensor, bias: Tensor, norm: nn.Module) -> None:
        super().__init__()
        self.weight = fixed(weight)
        self.bias = fixed(bias)
        self.norm = norm

    def forward(self, residual: Tensor, values: Tensor, steps: Steps) -> Tensor:
        """Add to a residual `[batch, length, out]` what is made of values `[batch, length, in]`."""
        return self.norm(steps.added(residual, values, self.weight, self.bias))


def weight_of(dense: nn.Module) -> Tensor:
    """Return a dense map's weight as `[out, in]`, or `[out, in / groups]`."""
    weight: Tensor = dense.weight  # type: ignore[assignment]
    if isinstance(dense, GroupedConvolution):
        return weight[..., 0]
    if isinstance(dense, GroupedDense):
        return weight.mT.flatten(0, 1)
    return weight


def mapping(dense: nn.Module, activation: str = "linear") -> Mapping:
    """Return the same map with an activation after it."""
    return Mapping(weight_of(dense), dense.bias, activation)  # type: ignore[arg-type]


def joined(*maps: nn.Module) -> Mapping:
    """Return the map whose results are those of several maps of the same numbers, side by side."""
    weight = torch.cat([weight_of(dense) for dense in maps])
    return Mapping(weight, torch.cat([dense.bias for dense in maps]))  # type: ignore[misc]


def sum_norm(dense: nn.Module, norm: nn.Module) -> SumNorm:
    """Return the same map with a sum and a layer norm after it."""
    return SumNorm(weight_of(dense), dense.bias, norm)  # type: ignore[arg-type]
