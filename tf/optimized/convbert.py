"""ConvBERT with its products joined."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from ..attention import padded_positions
from ..convbert import ConvBertLayer, DepthwiseConvolution, TFConvBertModel, dynamic_convolution
from ..layers import Block
from .bert import HALVED, SCALED, Encoder, closing
from .parts import (
    FeedForward,
    Mapping,
    Mask,
    Norm,
    Product,
    array,
    attention,
    exchange,
    heads_of,
    joined,
    side_by_side,
)


class Layer(Block):
    """One layer: mixed attention and a feed-forward network, each closed by a sum and a layer norm."""

    def __init__(self, layer: ConvBertLayer, act: str, **kwargs: Any) -> None:
        # The mask's numbers keep the dtype of scores, which may not be the layer's.
        super().__init__(trainable=False, autocast=False, **kwargs)
        dtype = self.dtype_policy
        mixed = layer.attention.self
        self.num_heads = mixed.num_heads
        self.kernel_size = mixed.kernel_size
        self.mask_padding = mixed.mask_padding
        query, key, value, convolved = map(Product.of, (mixed.query, mixed.key, mixed.value, mixed.conv_out_layer))
        self.half = query.with_bias().size
        scale = 1 / math.sqrt(self.half // self.num_heads)
        # Queries, keys, values, and the values that the convolution heads see.
        inputs = joined([query.scaled(scale), key, value, convolved])
        self.inputs = Mapping(inputs, dtype=dtype, name="inputs")
        separable = mixed.key_conv_attn_layer
        depthwise = separable.depthwise
        self.depthwise = DepthwiseConvolution(depthwise.width, self.kernel_size, dtype=dtype, name="depthwise")
        self.depthwise.build()
        self.depthwise.kernel.assign(depthwise.kernel)
        self.depthwise.trainable = False
        pointwise = Product(array(separable.pointwise.weight)[0], array(separable.bias)[:, 0])
        self.pointwise = Mapping(pointwise, dtype=dtype, name="pointwise")
        # What the queries are divided by comes back here.
        kernels = Product.of(mixed.conv_kernel_layer)
        kernels = kernels._replace(weight=kernels.weight / scale)
        self.kernels = Mapping(kernels, dtype=dtype, name="kernels")
        attended, norm = closing(layer.attention.output_)
        self.attended = Mapping(Product.of(attended), dtype=dtype, name="attended")
        self.attended_norm = Norm(norm, dtype=dtype, name="attended_norm")
        contract, norm = closing(layer.output_)
        expand = Product.of(layer.intermediate.dense)
        self.network = FeedForward(expand, Product.of(contract), act, dtype=dtype, name="network")
        self.network_norm = Norm(norm, dtype=dtype, name="network_norm")

    def call(self, hidden: Any, attention_mask: Mask | None = None, output_attentions: bool = False) -> tuple[Any, Any]:
        """Map `[batch, length, H]` to the same shape; also return the attention heads' probabilities or None."""
        made = self.inputs(hidden)
        query, key, value = ops.unstack(heads_of(made[..., : 3 * self.half], 3, self.num_heads), 3)
        context, probabilities = attention(query, key, value, attention_mask, output_attentions=output_attentions)
        convolved = self.convolve(hidden, made[..., : self.half], made[..., 3 * self.half :], attention_mask)
        both = self.attended(ops.concatenate([side_by_side(context), convolved], axis=-1))
        hidden = self.attended_norm(both + hidden)
        return self.network_norm(self.network(hidden) + hidden), probabilities

    def convolve(self, hidden: Any, query: Any, values: Any, mask: Mask | None) -> Any:
        """Return the convolution heads' context, `[batch, length, H / 2]`; `MixedAttention` tells how."""
        if self.mask_padding and mask is not None:
            padding = padded_positions(mask.full.keep[:, 0])[..., None]
            values, hidden = ops.where(padding, 0.0, values), ops.where(padding, 0.0, hidden)
        kernels = self.kernels(self.pointwise(self.depthwise(hidden)) * query)
        batch, length = ops.shape(values)[:2]
        kernels = ops.softmax(ops.reshape(kernels, (batch, length, self.num_heads, self.kernel_size)), axis=-1)
        values = ops.reshape(values, (batch, length, self.num_heads, self.half // self.num_heads))
        return ops.reshape(dynamic_convolution(values, kernels), (batch, length, self.half))


def optimize(model: TFConvBertModel, original: TFConvBertModel) -> tuple[str, ...]:
    """Exchange a bare encoder's parts for ones that compute what the original's do; tell what was done."""
    config, dtype = model.config, model.dtype_policy.compute_dtype
    layers = [Layer(layer, config.hidden_act, dtype=dtype, name=layer.name) for layer in original.encoder.layer]
    exchange(model, "encoder", Encoder(layers, dtype=dtype, name="encoder"))
    what, count = "queries, keys, values and the convolutions' values", len(layers)
    joined_inputs = f"joined {what}: {count} products instead of {4 * count}"
    return SCALED, *([HALVED] if config.hidden_act == "gelu" else []), joined_inputs
