"""ConvBERT with its products joined and closed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention import padded_positions
from ..convbert import ConvBertLayer, ConvBertModel, dynamic_convolution
from .bert import Encoder
from .parts import Mapping, joined, mapping, sum_norm, weight_of
from .steps import ENDS, Mask, Steps, attention, joined_inputs


class Layer(nn.Module):
    """One layer: mixed attention and a feed-forward network, each closed by a sum and a layer norm."""

    def __init__(self, layer: ConvBertLayer, hidden_act: str) -> None:
        super().__init__()
        mixed = layer.attention.self
        self.num_heads = mixed.num_heads
        self.mask_padding = mixed.mask_padding
        # Queries, keys, values, and the values that the convolution heads see.
        self.inputs = joined(mixed.query, mixed.key, mixed.value, mixed.conv_out_layer)
        separable = mixed.key_conv_attn_layer
        self.depthwise = separable.depthwise
        self.pointwise = Mapping(weight_of(separable.pointwise), separable.bias[:, 0])
        self.kernels = mapping(mixed.conv_kernel_layer)
        self.attended = sum_norm(layer.attention.output.dense, layer.attention.output.LayerNorm)
        self.expand = mapping(layer.intermediate.dense, hidden_act)
        self.contract = sum_norm(layer.output.dense, layer.output.LayerNorm)

    def forward(
        self, hidden: Tensor, mask: Mask | None, output_attentions: bool, steps: Steps
    ) -> tuple[Tensor, Tensor | None]:
        """Map `[batch, length, H]` to the same shape; also return the attention heads' probabilities or None."""
        query, key, value, convolved = self.inputs(hidden, steps).chunk(4, dim=-1)
        context, probabilities = attention(query, key, value, self.num_heads, mask, output_attentions=output_attentions)
        convolved = self.convolve(hidden, query, convolved, mask, steps)
        hidden = self.attended(hidden, torch.cat([context, convolved], dim=-1), steps)
        return self.contract(hidden, self.expand(hidden, steps), steps), probabilities

    def convolve(self, hidden: Tensor, query: Tensor, values: Tensor, mask: Mask | None, steps: Steps) -> Tensor:
        """Return the convolution heads' context, `[batch, length, H / 2]`; `MixedAttention` tells how."""
        if self.mask_padding and mask is not None:
            padding = padded_positions(mask.full.keep[:, 0])[..., None]
            values, hidden = values.masked_fill(padding, 0.0), hidden.masked_fill(padding, 0.0)
        kernels = self.kernels(self.pointwise(self.depthwise(hidden), steps) * query, steps)
        kernels = kernels.unflatten(-1, (self.num_heads, -1)).softmax(dim=-1)
        return dynamic_convolution(values.unflatten(-1, (self.num_heads, -1)), kernels).flatten(2)


def optimized(model: ConvBertModel, dtype: torch.dtype) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the stack of layers that takes the place of a bare encoder's own, and sentences of what was done."""
    layers = [Layer(layer, model.config.hidden_act) for layer in getattr(model.encoder, model.encoder.stack_name)]
    joined_what = joined_inputs(len(layers), "queries, keys, values and the convolutions' values", 4)
    return Encoder(layers), (ENDS, joined_what)
