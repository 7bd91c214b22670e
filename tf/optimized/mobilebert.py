"""MobileBERT without a norm, from `core/folding.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
        """Return the stream `[rows, width]` after the sum; values are `[rows, in]`."""
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

    def call(
        self,
        stream: tuple[Any, ...],
        attention_mask: Mask | None = None,
        *,
        shape: tuple[Any, Any],
        output_attentions: bool = False,
    ) -> tuple[Any, Any]:
        """Map the stream's parts, each `[rows, H]`, to the same shapes.

        Args:
            stream: from `parted`.
            attention_mask: which keys may be attended to.
            shape: `(batch, length)`, which the parts have together.
            output_attentions: whether to return the attention's probabilities.

        Returns:
            The stream, and the probabilities `[batch, heads, length, length]` or None.
        """
        inner, made = zip(*map(self.attention_inputs, stream), strict=True)
        query, key, value = (head for pieces in zip(*made, strict=True) for head in self.heads(pieces, shape))
        context, probabilities = attention(
            query, key, value, attention_mask, mask_value=self.mask_value, output_attentions=output_attentions
        )
        contexts = parted(side_by_side(context), len(stream))
        return tuple(map(self.fed_forward, stream, inner, contexts)), probabilities

    def attention_inputs(self, stream: Any) -> tuple[Any, tuple[Any, ...]]:
        """Return a part's inner stream `[rows, B]`, and its queries, keys and values, side by side in a few pieces."""
        if self.entry is None:
            assert self.projections is not None
            return stream, (self.projections(stream),)
        made = self.entry(stream)
        inner = made[:, : self.width]
        if self.projections is None:
            return inner, (made[:, self.width :],)
        if made.shape[-1] == self.width:
            return inner, (self.projections(inner),)
        return inner, (self.projections(made[:, self.width : 2 * self.width]), made[:, 2 * self.width :])

    def heads(self, pieces: Sequence[Any], shape: tuple[Any, Any]) -> list[Any]:
        """Each part's `[rows, n * B]` -> `n` times `[batch, heads, length, B / heads]`."""
        values = whole(pieces, shape)
        count = values.shape[-1] // self.width
        split: list[Any] = ops.unstack(heads_of(values, count, self.num_heads), count)
        return split

    def fed_forward(self, stream: Any, inner: Any, context: Any) -> Any:
        """Return a part of the stream after the layer, from its inner stream and its heads' context, `[rows, B]`."""
        inner = self.context(inner, context)
        for expand, contract in zip(self.expand, self.contract, strict=True):
            inner = contract(inner, expand(inner))
        return inner if self.exit is None else self.exit(stream, inner)


def parted(values: Any, parts: int) -> tuple[Any, ...]:
    """`[batch, length, width]` -> the rows of all positions, `[rows, width]`, in one part or in two halves."""
    rows = ops.reshape(values, (-1, values.shape[-1]))
    half = ops.shape(rows)[0] // 2
    return (rows,) if parts == 1 else (rows[:half], rows[half:])


def whole(parts: Sequence[Any], shape: tuple[Any, Any]) -> Any:
    """Undo `parted`; `shape` is `(batch, length)`."""
    rows = parts[0] if len(parts) == 1 else ops.concatenate(parts)
    return ops.reshape(rows, (*shape, rows.shape[-1]))


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
    """The stack of layers, and at its end the way back to the stream's true numbers.

    A layer maps each position by itself, but for its attention. TensorFlow computes a product as small as those of one
    text on one thread of a CPU; so the positions are in two halves, whose products it computes at the same time.
    """

    def __init__(self, config: MobileBertConfig, folded: folding.FoldedMobileBert, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        dtype = self.dtype_policy
        accelerators = [device for kind in ("gpu", "tpu") for device in keras.distribution.list_devices(kind)]
        self.num_parts = 1 if accelerators else 2
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
        batch, length, _ = ops.shape(stream)
        shape = (batch, length)
        parts = parted(stream, self.num_parts)
        hidden_states: tuple[Any, ...] = ()
        attentions: tuple[Any, ...] = ()
        for index, layer in enumerate(self.layer):
            if output_hidden_states:
                hidden_states += (self.true(whole(parts, shape), index),)
            parts, probabilities = layer(parts, mask, shape=shape, output_attentions=output_attentions)
            if output_attentions:
                attentions += (probabilities,)
        last = self.true(whole(parts, shape), len(self.layer))
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
