"""What an optimized layer is made of: dense maps that end in an activation or a sum, and attention.

Where PyTorch's own float32 product leaves half of a CPU unused (see `pt/products.py`), both are oneDNN's, each in one
pass over its result; elsewhere they are PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..attention import AttentionMask, attend
from ..inputs import values_are_cheap
from ..layers import activation
from ..products import grouped_linear, multiplies_slowly, suits_onednn
from .layouts import for_convolution, for_product

# Activations that oneDNN applies to a product's result while it is at hand: its name and its algorithm.
FUSED = {
    "linear": ("none", ""),
    "relu": ("relu", ""),
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_fast": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
}


# Of more keys than this, all heads' scores at once take too much memory.
MOST_KEYS = 512

# Of fewer positions than this, starting oneDNN's products takes longer than they save.
LEAST_ROWS = 32


class Steps(NamedTuple):
    """The two kinds of dense maps of a layer. No gradients pass through oneDNN's.

    A weight is `[out, in]`. One that is `[out, in / groups]` is of a map of each group of channels apart.

    Attributes:
        mapped: `(values, weight, bias, activation)` -> `activation(weight @ x + bias)`, of values `[..., in]` and the
            name of an activation.
        added: `(stream, values, weight, bias or None)` -> `stream + weight @ x + bias`, of a stream `[..., out]`.
    """

    mapped: Callable[[Tensor, Tensor, Tensor, str], Tensor]
    added: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def steps_for(values: Tensor, weight: Tensor) -> Steps:
    """Return the steps to take with values like these and weights like this one."""
    if not suits_onednn(values, weight) or (values.dtype == torch.float32 and not multiplies_slowly()):
        return PLAIN
    if not torch.compiler.is_compiling() and values.shape[:-1].numel() < LEAST_ROWS:  # a graph's may be unknown
        return PLAIN
    # An optimized model has no gradients of its own, but its inputs may.
    return PLAIN if torch.is_grad_enabled() and values.requires_grad else ONEDNN


def _product(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    groups = values.shape[-1] // weight.shape[1]
    if groups == 1:
        return F.linear(values, weight, bias)
    return grouped_linear(values, weight.unflatten(0, (groups, -1)), bias)


def _plain_mapped(values: Tensor, weight: Tensor, bias: Tensor, name: str) -> Tensor:
    return activation(name)(_product(values, weight, bias))


def _plain_added(stream: Tensor, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None and values.shape[-1] == weight.shape[1]:
        return torch.addmm(stream.flatten(0, -2), values.flatten(0, -2), weight.t()).view(stream.shape)
    return stream + _product(values, weight, bias)


# Operators of our own, so that a compiled graph takes each as one step. They cost no more than what they call.
torch.library.define("isobert::mapped", "(Tensor values, Tensor weight, Tensor bias, str activation) -> Tensor")
torch.library.define("isobert::added", "(Tensor stream, Tensor values, Tensor weight, Tensor? bias) -> Tensor")

# How a convolution of size 1 goes over an image: padding, stride, dilation.
_EVERYWHERE = ([0, 0], [1, 1], [1, 1])


def _onednn_mapped(values: Tensor, weight: Tensor, bias: Tensor | None, name: str) -> Tensor:
    kind, algorithm = FUSED.get(name, FUSED["linear"])
    groups = values.shape[-1] // weight.shape[1]
    # Where values are strided, the product is a hundred times slower than copying them.
    values = values.contiguous()
    if groups == 1:
        product = torch.ops.mkldnn._linear_pointwise(values, for_product(weight), bias, kind, [], algorithm)
    else:
        image = _image(values)
        product = torch.ops.mkldnn._convolution_pointwise(
            image, for_convolution(weight, groups, image.shape), bias, *_EVERYWHERE, groups, kind, [], algorithm
        )
        product = _values(product)
    return product if name in FUSED else activation(name)(product)


def _onednn_added(stream: Tensor, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if values.shape[-1] != weight.shape[1]:
        # oneDNN would leave a grouped convolution that ends in a sum to others.
        return _onednn_mapped(values, weight, bias, "linear").add_(stream)
    product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
        values.contiguous(), stream, for_product(weight), bias, "add"
    )
    return product


def _image(values: Tensor) -> Tensor:
    """See `[batch, length, channels]` as an image of that height and width; the channels still lie last."""
    return values[None].permute(0, 3, 1, 2)


def _values(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1)[0]


torch.library.impl("isobert::mapped", "cpu", _onednn_mapped)
torch.library.impl("isobert::added", "cpu", _onednn_added)


@torch.library.register_fake("isobert::mapped")
def _(values: Tensor, weight: Tensor, bias: Tensor, name: str) -> Tensor:
    return values.new_empty((*values.shape[:-1], weight.shape[0]))


@torch.library.register_fake("isobert::added")
def _(stream: Tensor, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return stream.new_empty(stream.shape)


PLAIN = Steps(_plain_mapped, _plain_added)
ONEDNN = Steps(torch.ops.isobert.mapped.default, torch.ops.isobert.added.default)


# What these steps do, for `optimizations`.
ENDS = "let products end in the activation or the sum that follows them"


def joined_inputs(layers: int, what: str = "queries, keys and values", count: int = 3) -> str:
    """Return the sentence that tells of joined products."""
    return f"joined {what}: {layers} products instead of {count * layers}"


class Mask(NamedTuple):
    """Which keys may be attended to, looked at once for all layers.

    Attributes:
        full: what `attend` takes.
        bias: added to the scores, `[batch, 1, 1 or length, length]`.
        blind: where a query may attend to no key, `[batch, 1, 1 or length, 1]`; None if there surely is none.
    """

    full: AttentionMask
    bias: Tensor
    blind: Tensor | None

    @classmethod
    def of(cls, mask: AttentionMask | None) -> Mask | None:
        """Make one; None where nothing is masked, as far as that can be seen without waiting for a device."""
        if mask is None or not values_are_cheap(mask.keep):
            return None if mask is None else cls(mask, mask.bias, mask.blind)
        if mask.keep.all():
            return None
        return cls(mask, mask.bias, mask.blind if mask.blind.any() else None)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    mask: Mask | None,
    *,
    mask_value: float | None = None,
    output_attentions: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attend as `pt.attention.attend` does.

    Args:
        query: all heads side by side, `[batch, length, width]`; it may be strided.
        key: the same of the keys.
        value: the same of the values.
        num_heads: number of heads.
        mask: which keys may be attended to; None is all.
        mask_value: see `attend`.
        output_attentions: whether to return the probabilities.

    Returns:
        The context `[batch, length, width]`, and the probabilities `[batch, heads, length, length]` or None.
    """
    query, key, value = (part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in (query, key, value))
    if output_attentions or (mask_value is not None and mask is not None):
        context, probabilities = attend(
            query,
            key,
            value,
            None if mask is None else mask.full,
            mask_value=mask_value,
            output_attentions=output_attentions,
        )
        return context.transpose(1, 2).flatten(2), probabilities
    bias = None
    if mask is not None:
        bias = mask.bias
        # A zero query scores 0 everywhere, which is attending to all keys alike.
        query = query if mask.blind is None else query.masked_fill(mask.blind, 0.0)
    if query.dtype == torch.bfloat16 and key.shape[2] <= MOST_KEYS and suits_onednn(query, key):
        # The fused kernel's products are not oneDNN's: these three steps take half of its time.
        scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
        scores = scores if bias is None else scores + bias
        return (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).flatten(2), None
    return F.scaled_dot_product_attention(query, key, value, bias).transpose(1, 2).flatten(2), None
