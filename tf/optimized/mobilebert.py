"""MobileBERT without a norm, from `core/folding.py`."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from ...conversion.layouts import to_hub
from ...core import folding
from ...core.mobilebert import MobileBertConfig
from ..attention import AttentionMask
from ..layers import Block, EncoderOutput, activation, replace_weight
from ..mobilebert import TFMobileBertModel
from .parts import Mapping, Mask, Product, array, attention, exchange, fixed, heads_of, side_by_side


def transposed(product: folding.Product) -> Product:
    """Return a folded map as Keras lays it out."""
    return Product(product.weight.T, product.bias)


class Summand(keras.layers.Layer):
    """What is added to a stream: `x + v @ weight`, and where the stream is rescaled, times `rescale`."""

    def __init__(self, addition: folding.Addition, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self.weight = fixed(self, "weight", addition.weight.T)
        self.rescale = None if addition.rescale is None else fixed(self, "rescale", addition.rescale)
        self.built = True

    def call(self, stream: Any, values: Any) -> Any:
        """Return the stream `[batch, length, width]` after the sum; values are `[batch, length, in]`."""
        stream = stream + ops.matmul(values, self.weight)
        return stream if self.rescale is None else stream * self.rescale


class Layer(Block):
    """One layer in the units of its streams; `core.folding.FoldedLayer` tells what its parts are."""

    def __init__(self, config: MobileBertConfig, folded: folding.FoldedLayer, **kwargs: Any) -> None:
        # The mask's numbers keep the dtype of scores, which may not be the layer's.
        super().__init__(trainable=False, autocast=False, **kwargs)
        dtype = self.dtype_policy
        self.num_heads = config.num_attention_heads
        self.mask_value = config.attention_mask_value
        self.width = config.true_hidden_size
        entry, projections = _with_scaled_queries(config, folded)
        self.entry = None if entry is None else Mapping(entry, dtype=dtype, name="entry")
        self.projections = None if projections is None else Mapping(projections, dtype=dtype, name="projections")
        self.context = Summand(folded.context, dtype=dtype, name="context")
        networks = enumerate(folded.feed_forward)
        act = activation(config.hidden_act)
        self.expand, self.contract = [], []
        for i, (expand, contract) in networks:
            self.expand.append(Mapping(transposed(expand), act, dtype=dtype, name=f"expand.{i}"))
            self.contract.append(Summand(contract, dtype=dtype, name=f"contract.{i}"))
        self.exit = None if folded.exit is None else Summand(folded.exit, dtype=dtype, name="exit")

    def call(self, stream: Any, attention_mask: Mask | None = None, output_attentions: bool = False) -> tuple[Any, Any]:
        """Map `[batch, length, H]` to the same shape; also return the attention's probabilities or None."""
        inner, query, key, value = self.attention_inputs(stream)
        context, probabilities = attention(
            query, key, value, attention_mask, mask_value=self.mask_value, output_attentions=output_attentions
        )
        inner = self.context(inner, side_by_side(context))
        for expand, contract in zip(self.expand, self.contract, strict=True):
            inner = contract(inner, expand(inner))
        return inner if self.exit is None else self.exit(stream, inner), probabilities

    def attention_inputs(self, stream: Any) -> tuple[Any, Any, Any, Any]:
        """Return the layer's inner stream `[batch, length, B]`, and the heads' queries, keys and values."""
        if self.entry is None:
            assert self.projections is not None
            query, key, value = self.heads(self.projections(stream), 3)
            return stream, query, key, value
        made = self.entry(stream)
        inner = made[..., : self.width]
        if self.projections is None:
            query, key, value = self.heads(made[..., self.width :], 3)
        elif made.shape[-1] == self.width:
            query, key, value = self.heads(self.projections(inner), 3)
        else:
            query, key = self.heads(self.projections(made[..., self.width : 2 * self.width]), 2)
            (value,) = self.heads(made[..., 2 * self.width :], 1)
        return inner, query, key, value

    def heads(self, values: Any, parts: int) -> list[Any]:
        """`[batch, length, parts * B]` -> for each part `[batch, heads, length, B / heads]`."""
        split: list[Any] = ops.unstack(heads_of(values, parts, self.num_heads), parts)
        return split


def _with_scaled_queries(
    config: MobileBertConfig, folded: folding.FoldedLayer
) -> tuple[Product | None, Product | None]:
    """Return a layer's `entry` and `attention`, with queries divided by the root of a head's width."""
    width = config.true_hidden_size
    scale = 1 / math.sqrt(width // config.num_attention_heads)
    entry, projections = folded.entry, folded.attention
    if projections is not None:
        projections = _scaled_rows(projections, slice(0, width), scale)
    elif entry is not None:
        entry = _scaled_rows(entry, slice(width, 2 * width), scale)
    return None if entry is None else transposed(entry), None if projections is None else transposed(projections)


def _scaled_rows(product: folding.Product, rows: slice, scale: float) -> folding.Product:
    factor = np.ones_like(product.bias)
    factor[rows] = scale
    return folding.Product(factor[:, None] * product.weight, factor * product.bias)


class Encoder(Block):
    """The stack of layers, and at its end the way back to the stream's true numbers."""

    def __init__(self, config: MobileBertConfig, folded: folding.FoldedMobileBert, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        dtype = self.dtype_policy
        self.layer = [Layer(config, part, dtype=dtype, name=f"layer.{i}") for i, part in enumerate(folded.layers)]
        scales, shifts = (np.stack(parts) for parts in zip(*folded.units, strict=True))
        self.scales = fixed(self, "scales", scales)
        self.shifts = fixed(self, "shifts", shifts)

    def call(
        self,
        stream: Any,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> EncoderOutput:
        """Run `[batch, length, H]`, in the stream's units, through every layer in turn."""
        mask = Mask.of(attention_mask, self.compute_dtype)
        hidden_states: tuple[Any, ...] = ()
        attentions: tuple[Any, ...] = ()
        for index, layer in enumerate(self.layer):
            if output_hidden_states:
                hidden_states += (self.true(stream, index),)
            stream, probabilities = layer(stream, mask, output_attentions=output_attentions)
            if output_attentions:
                attentions += (probabilities,)
        last = self.true(stream, len(self.layer))
        return EncoderOutput(
            last, (*hidden_states, last) if output_hidden_states else None, attentions if output_attentions else None
        )

    def true(self, stream: Any, index: int) -> Any:
        """Return the true numbers of the stream before the layer of this index."""
        return stream * self.scales[index] + self.shifts[index]


class Rescale(keras.layers.Layer):
    """What is left of the embeddings' norm: `factor * x`; without a factor, nothing."""

    def __init__(self, factor: np.ndarray | None, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self.factor = None if factor is None else fixed(self, "factor", factor)
        self.built = True

    def call(self, values: Any) -> Any:
        """`[batch, length, H]` -> the same shape."""
        return values if self.factor is None else values * self.factor


def fold_embeddings(model: TFMobileBertModel, folded: folding.FoldedEmbeddings) -> None:
    """Give embeddings folded weights in the place of their own; the table of words stays."""
    embeddings = model.embeddings
    # New variables: the old ones hold the very values of the model that is folded.
    for table, values in (
        (embeddings.position_embeddings, folded.positions),
        (embeddings.token_type_embeddings, folded.token_types),
    ):
        replace_weight(table, "_embeddings", ops.cast(values, table.variable_dtype))
    if folded.transformation is not None:
        dtype = embeddings.dtype_policy.compute_dtype
        mapping = Mapping(Product(folded.transformation.T, None), dtype=dtype, name="embedding_transformation")
        exchange(embeddings, "embedding_transformation", mapping)
    exchange(embeddings, "LayerNorm", Rescale(folded.rescale, dtype=embeddings.dtype_policy, name="LayerNorm"))


def optimize(model: TFMobileBertModel, original: TFMobileBertModel) -> tuple[str, ...]:
    """Exchange a bare encoder's parts for ones that compute what the original's do; tell what was done."""
    config = model.config
    if config.normalization_type != "no_norm":
        return (f"left the layers as they are: {config.normalization_type} cannot be folded",)
    held = original._hub_variables()

    def read(name: str) -> np.ndarray:
        variable, layout = held[name]
        return to_hub(array(variable), layout)

    dtype = model.dtype_policy.compute_dtype
    folded = folding.fold_mobilebert(config, read, half=dtype == "float16")
    fold_embeddings(model, folded.embeddings)
    exchange(model, "encoder", Encoder(config, folded, dtype=dtype, name="encoder"))
    layers, networks = config.num_hidden_layers, config.num_feedforward_networks
    shared = config.key_query_shared_bottleneck and not config.use_bottleneck_attention
    # Of the bottleneck: the ways in, and the way out.
    entries, exits = (1 + shared, 1) if config.use_bottleneck else (0, 0)
    joined = sum(
        sum(part is not None for part in (layer.entry, layer.attention, layer.context, layer.exit)) + 2 * networks
        for layer in folded.layers
    )
    done = [
        f"folded {1 + layers * (entries + 1 + networks + exits)} NoNorms into the weights",
        f"joined products of the same numbers: {joined} in the layers instead of "
        f"{layers * (entries + 3 + 1 + 2 * networks + exits)}",
    ]
    if dtype == "float16":
        done.append("divided channels by powers of two, so that float16 holds them")
    return tuple(done)
