"""Optimized layers whose products are of 8-bit integers: oneDNN's, for CPUs that multiply bytes (VNNI).

Values go into a product as bytes and weights as signed bytes; sums are exact, in 32 bits, and come out as float32. What
each byte stands for is set beforehand, from the ranges that were seen on texts, so that one text's numbers do not
depend on others in its batch. Three things keep the rounding small:

- Each channel of the values has a middle of its own (Wei et al. 2023, "Outlier Suppression+",
  https://arxiv.org/abs/2304.09145) and a step of its own, which goes into the weights (Xiao et al. 2023, "SmoothQuant",
  https://arxiv.org/abs/2211.10438, equation 4 with alpha 0.5). Each row of weights has its own step too.
- A feed-forward network's inner values stay bytes from its first product to its second, in steps of one size.
- The few inner neurons that reach much further than all others are computed in float32 beside them (Dettmers et al.
  2022, "LLM.int8()", https://arxiv.org/abs/2208.07339, section 3.2, does so with channels).
"""

from __future__ import annotations

from collections.abc import Mapping as Table
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..layers import activation
from . import bert, convbert, mobilebert
from .mobilebert import Rescale, Summand
from .parts import Mapping, SumNorm
from .steps import FUSED, Steps

LAYERS = (bert.Layer, convbert.Layer, mobilebert.Layer)

# The largest byte, and the largest signed one.
BYTE, SIGNED = 255, 127

# A neuron reaches too far if it does so more than this many times as far as all but a hundredth of the others.
FAR = 2.0

_TINY = torch.finfo(torch.float32).tiny


class Range(NamedTuple):
    """What numbers were seen.

    Attributes:
        lowest: of each channel, `[channels]`.
        highest: the same.
    """

    lowest: Tensor
    highest: Tensor


class Grid(NamedTuple):
    """What bytes stand for: `middle + step * (byte - centre)`.

    Attributes:
        step: of each channel, `[channels]`.
        middle: the same.
        centre: of all channels.
    """

    step: Tensor
    middle: Tensor
    centre: float

    @classmethod
    def of(cls, seen: Range, weight: Tensor) -> Grid:
        """Return the grid of values that are multiplied by a weight `[out, in / groups]`."""
        groups = len(seen.lowest) // weight.shape[1]
        reach = (seen.highest - seen.lowest) / 2
        # What hardly moved on the texts that were seen may do so on others.
        reach = reach.clamp(min=max(reach.max().item() / BYTE, _TINY))
        largest = weight.abs().unflatten(0, (groups, -1)).amax(dim=1).flatten().clamp(min=_TINY)
        share = (reach / largest).sqrt()
        step = share * ((reach / share).max() / (BYTE / 2))
        return cls(step, (seen.lowest + seen.highest) / 2, BYTE / 2)

    @classmethod
    def of_hidden(cls, lowest: float, highest: float, width: int) -> Grid:
        """Return the grid of a feed-forward network's inner values: the same for all, and 0 is a byte."""
        lowest, highest = min(lowest, 0.0), max(highest, _TINY)
        step = (highest - lowest) / BYTE
        return cls(torch.full((width,), step), torch.zeros(width), round(-lowest / step))


class Entry:
    """The way of values into a product: as bytes, each group of channels apart."""

    def __init__(self, grid: Grid, groups: int) -> None:
        self.groups = groups
        self.factor = 1 / grid.step
        # Bytes are cut off, so a half more rounds them.
        self.offset = grid.centre + 0.5 - grid.middle * self.factor

    def __call__(self, values: Tensor) -> tuple[Tensor, ...]:
        """`[..., in]` -> for each group `[..., in / groups]`."""
        found = torch.addcmul(self.offset, values, self.factor).clamp_(0, BYTE).to(torch.uint8)
        return (found.contiguous(),) if self.groups == 1 else _split(found, self.groups)


def _split(values: Tensor, groups: int) -> tuple[Tensor, ...]:
    return tuple(part.contiguous() for part in values.chunk(groups, dim=-1))


class Product:
    """`weight @ x + bias` of bytes, each group of channels apart.

    Args:
        weight: `[out, in / groups]`.
        bias: `[out]` or None.
        grid: what the bytes stand for.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, grid: Grid) -> None:
        self.groups = len(grid.step) // weight.shape[1]
        rows = weight.detach().unflatten(0, (self.groups, -1))
        scaled = rows * grid.step.view(self.groups, 1, -1)
        scales = (scaled.abs().amax(dim=-1) / SIGNED).clamp(min=_TINY)
        whole = (scaled / scales[..., None]).round()
        constant = torch.einsum("goi,gi->go", rows, grid.middle.view(self.groups, -1))
        constant = constant - grid.centre * scales * whole.sum(dim=-1)
        if bias is not None:
            constant = constant + bias.detach().view(self.groups, -1)
        prepack = torch.ops.onednn.qlinear_prepack
        self.weights = [prepack(part.to(torch.int8).contiguous(), None) for part in whole]
        self.scales, self.biases = list(scales), list(constant)
        self.zeros = torch.zeros(scales.shape[1], dtype=torch.int64)

    def mapped(self, parts: Sequence[Tensor], name: str, step: float = 1.0, zero: int | None = None) -> list[Tensor]:
        """Multiply each group's bytes `[..., in / groups]`, and apply an activation of `FUSED`.

        Returns:
            `[..., out / groups]` of each group: in float32, or in bytes that stand for `step * (byte - zero)`.
        """
        kind, algorithm = FUSED[name]
        dtype = torch.float32 if zero is None else torch.uint8
        return [
            torch.ops.onednn.qlinear_pointwise(
                part, 1.0, 0, weight, scales, self.zeros, bias, step, zero or 0, dtype, kind, [], algorithm
            )
            for part, weight, scales, bias in zip(parts, self.weights, self.scales, self.biases, strict=True)
        ]

    def added(self, stream: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Return the sum of a stream `[..., out]` and the product of each group's bytes `[..., in / groups]`."""
        if self.groups > 1:
            return torch.cat(self.mapped(parts, "linear"), dim=-1).add_(stream)
        # oneDNN's fast product takes no strided summand.
        product: Tensor = torch.ops.onednn.qlinear_pointwise.binary(
            *(parts[0], 1.0, 0, self.weights[0], self.scales[0], self.zeros, stream.contiguous(), self.biases[0]),
            *(1.0, 0, torch.float32, 1.0, 0, "add", 1.0, "none", [], ""),
        )
        return product


class Int8Mapping(nn.Module):
    """Dense maps of the same values, with their results side by side: `activation(weight @ x + bias)`."""

    def __init__(self, maps: Sequence[Mapping], seen: Range) -> None:
        super().__init__()
        groups = len(seen.lowest) // maps[0].weight.shape[1]
        # Group by group, so that each group is one product.
        weight, bias = (
            torch.cat([tensor.unflatten(0, (groups, -1)) for tensor in tensors], dim=1).flatten(0, 1)
            for tensors in ([one.weight for one in maps], [one.bias for one in maps])
        )
        grid = Grid.of(seen, weight)
        self.maps = len(maps)
        self.activation = maps[0].activation
        self.entry, self.product = Entry(grid, groups), Product(weight, bias, grid)

    def forward(self, values: Tensor, steps: Steps) -> Tensor:
        """`[batch, length, in]` -> `[batch, length, out of all maps]`."""
        found = self.product.mapped(self.entry(values), self.activation if self.activation in FUSED else "linear")
        mapped = found[0] if len(found) == 1 else self.in_order(found)
        return mapped if self.activation in FUSED else activation(self.activation)(mapped)

    def in_order(self, found: Sequence[Tensor]) -> Tensor:
        """Put the groups of each map side by side, and then the maps."""
        return torch.stack([part.unflatten(-1, (self.maps, -1)) for part in found], dim=-2).flatten(-3)


class Int8Sum(nn.Module):
    """What closes each half of a layer: `end(stream + weight @ x + bias)`."""

    def __init__(self, closing: SumNorm | Summand, seen: Range) -> None:
        super().__init__()
        grid = Grid.of(seen, closing.weight)
        self.product = Product(closing.weight, getattr(closing, "bias", None), grid)
        self.entry = Entry(grid, self.product.groups)
        self.end = end_of(closing)

    def forward(self, stream: Tensor, values: Tensor, steps: Steps) -> Tensor:
        """Add to a stream `[batch, length, out]` what is made of values `[batch, length, in]`."""
        found: Tensor = self.end(self.product.added(stream, self.entry(values)))
        return found


def end_of(closing: SumNorm | Summand) -> nn.Module:
    """Return what is done to a sum."""
    if isinstance(closing, SumNorm):
        return closing.norm
    return nn.Identity() if closing.rescale is None else Rescale(closing.rescale.numpy())


class Hidden(NamedTuple):
    """The inner values of a feed-forward network.

    Attributes:
        parts: each group's bytes, `[batch, length, width / groups]`.
        far: the neurons that reach too far for bytes, in float32 `[batch, length, neurons]`; None where there are none.
    """

    parts: Sequence[Tensor]
    far: Tensor | None


class Int8Expand(nn.Module):
    """The first half of a feed-forward network: `activation(weight @ x + bias)`, which ends in bytes."""

    def __init__(self, expand: Mapping, seen: Range, hidden: Grid, far: Tensor) -> None:
        super().__init__()
        weight = expand.weight * ~far[:, None]
        grid = Grid.of(seen, weight)
        self.activation = expand.activation
        self.product = Product(weight, expand.bias, grid)
        self.entry = Entry(grid, self.product.groups)
        self.step, self.zero = hidden.step[0].item(), int(hidden.centre)
        self.far = (_whole(expand.weight, self.product.groups)[far], expand.bias[far]) if far.any() else None

    def forward(self, values: Tensor, steps: Steps) -> Hidden:
        """Map `[batch, length, in]`."""
        parts = self.product.mapped(self.entry(values), self.activation, self.step, self.zero)
        return Hidden(parts, None if self.far is None else steps.mapped(values, *self.far, self.activation))


class Int8Contract(nn.Module):
    """The second half, and the sum: `end(stream + weight @ x + bias)`."""

    def __init__(self, contract: SumNorm | Summand, hidden: Grid, far: Tensor) -> None:
        super().__init__()
        groups = len(hidden.step) // contract.weight.shape[1]
        self.far = _whole(contract.weight, groups)[:, far].t().contiguous() if far.any() else None
        # What is added in float32 is not to be added in bytes as well.
        weight = (contract.weight.unflatten(0, (groups, -1)) * ~far.view(groups, 1, -1)).flatten(0, 1)
        self.product = Product(weight, getattr(contract, "bias", None), hidden)
        self.end = end_of(contract)

    def forward(self, stream: Tensor, hidden: Hidden, steps: Steps) -> Tensor:
        """Add to a stream `[batch, length, out]`."""
        parts = hidden.parts
        if len(parts) != self.product.groups:
            parts = _split(torch.cat(list(parts), dim=-1), self.product.groups)
        if hidden.far is not None:
            assert self.far is not None
            stream = stream + hidden.far @ self.far
        found: Tensor = self.end(self.product.added(stream, parts))
        return found


def _whole(weight: Tensor, groups: int) -> Tensor:
    """Return a weight `[out, in / groups]` as `[out, in]`, with zeros between the groups."""
    return torch.block_diag(*weight.detach().chunk(groups))


def quantize_layer(layer: Any, seen: Table[nn.Module, Range]) -> int:
    """Put products of bytes into the place of an optimized layer's own.

    Args:
        layer: one of `LAYERS`.
        seen: what went into each product.

    Returns:
        How many inner neurons of feed-forward networks stay in float32.
    """
    new: dict[nn.Module, nn.Module] = {}
    neurons = 0
    for expand, contract in zip(_listed(layer.expand), _listed(layer.contract), strict=True):
        if expand.activation not in FUSED:  # oneDNN's product cannot end in it
            continue
        lowest, highest = seen[contract]
        reach = torch.maximum(highest, -lowest)
        far = reach > FAR * reach.quantile(0.99)
        hidden = Grid.of_hidden(lowest[~far].min().item(), highest[~far].max().item(), len(far))
        new[expand] = Int8Expand(expand, seen[expand], hidden, far)
        new[contract] = Int8Contract(contract, hidden, far)
        neurons += int(far.sum())
    inputs = _listed(getattr(layer, "inputs", None))
    if len(inputs) > 1 and len({one.weight.shape for one in inputs}) == 1:
        layer.inputs = nn.ModuleList([Int8Mapping(inputs, seen[inputs[0]])])
    for parent in list(layer.modules()):
        for name, child in list(parent.named_children()):
            if child in new:
                setattr(parent, name, new[child])
            elif isinstance(child, Mapping):
                setattr(parent, name, Int8Mapping([child], seen[child]))
            elif isinstance(child, SumNorm | Summand):
                setattr(parent, name, Int8Sum(child, seen[child]))
    return neurons


def _listed(part: nn.Module | None) -> list[Any]:
    return list(part) if isinstance(part, nn.ModuleList) else [part]
