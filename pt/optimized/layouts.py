"""Weights laid out as oneDNN's products read them.

A product that gets a weight as it lies in memory lays it out anew in each call, which takes a tenth of its time for
eight texts and up to half of it for one. So an optimized model's weights are laid out once, when they are used for the
second time, and what was made is kept as long as they live.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Of larger weights, a second copy takes more memory than a tenth of a single text's time is worth.
MOST_NUMBERS = 3 * 2**20


class _Known(NamedTuple):
    """What is known of a weight.

    Attributes:
        state: where its numbers lie, and how often they were changed.
        shape: of the values that it was last used with, where its layout depends on them.
        layout: the weight as it is read for these; None until it is used with them for the second time in a row.
    """

    state: tuple[int, int]
    shape: torch.Size | None
    layout: Tensor | None


_known: dict[int, _Known] = {}


def for_product(weight: Tensor) -> Tensor:
    """Return a weight `[out, in]` as `mkldnn._linear_pointwise` reads it best, for values of any shape."""
    layout = _layout(weight, None, lambda: torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None))
    return weight if layout is None else layout


def for_convolution(weight: Tensor, groups: int, shape: torch.Size) -> Tensor:
    """Return a weight `[out, in / groups]` as `mkldnn._convolution_pointwise` of size 1 reads it best.

    Read for images of another shape, it would be many times slower than one that is not laid out.
    """
    kernel = weight[..., None, None]

    def lay_out() -> Tensor:
        layout: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            kernel.detach(), [0, 0], [1, 1], [1, 1], groups, shape
        )
        return layout

    layout = _layout(weight, shape, lay_out)
    return kernel if layout is None else layout


def _layout(weight: Tensor, shape: torch.Size | None, lay_out: Callable[[], Tensor]) -> Tensor | None:
    # Nothing tells whether an inference tensor was changed.
    if weight.numel() > MOST_NUMBERS or weight.is_inference():
        return None
    key, state = id(weight), (weight.data_ptr(), weight._version)
    known = _known.get(key)
    if known is None:
        weakref.finalize(weight, _known.pop, key, None)
    if known is None or (known.state, known.shape) != (state, shape):
        _known[key] = _Known(state, shape, None)
        return None
    if known.layout is None:
        known = _known[key] = known._replace(layout=lay_out())
    return known.layout
