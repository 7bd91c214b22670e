"""Layers of BERT's shape with their products joined: RemBERT's and SqueezeBERT's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from ..attention import AttentionMask, SelfAttention
from ..layers import AddNorm, Block, Dense, EncoderOutput, GroupedDense
from ..rembert import DecoderOutput, TFRemBertModel
from ..squeezebert import TFSqueezeBertModel
from .parts import (
    FeedForward,
    Mapping,
    Mask,
    Norm,
    Product,
    attention,
    exchange,
    from_groups,
    heads_of,
    joined,
    side_by_side,
    to_groups,
)

# What these layers do, for `optimizations`.
SCALED = "took the scale of the scores into the queries' maps"
HALVED = "took gelu's factors into the maps around it"


class AttentionInputs(Block):
    """Makes all heads' queries, keys and values, by one product where the three maps have as many groups.

    Args:
        attention: whose maps they are; queries come divided by the root of a head's width.
    """

    def __init__(self, attention: SelfAttention, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = heads = attention.num_heads
        query, key, value = map(Product.of, (attention.query, attention.key, attention.value))
        width = query.with_bias().size // heads
        parts = [query.scaled(1 / math.sqrt(width)), key, value]
        groups = {part.weight.shape[:-2] for part in parts}
        # The heads of a group lie together only if no head lies in two groups.
        if len(groups) == 1 and heads % math.prod(next(iter(groups))) == 0:
            parts = [joined(parts)]
        names = ("query", "key", "value") if len(parts) == 3 else ("joined",)
        self.maps = [Mapping(part, dtype=self.dtype_policy, name=name) for part, name in zip(parts, names, strict=True)]

    def call(self, hidden: Any) -> list[Any]:
        """`[batch, length, width]` -> queries, keys and values, each `[batch, heads, length, width / heads]`."""
        if len(self.maps) == 3:
            made = [from_groups(m(to_groups(hidden, m.groups)), m.groups, hidden) for m in self.maps]
            return [heads_of(part, 1, self.num_heads)[0] for part in made]
        (mapping,) = self.maps
        groups, heads = mapping.groups, self.num_heads
        if groups == 1:
            split = heads_of(mapping(hidden), 3, heads)
        else:
            batch, length, width = ops.shape(hidden)
            split = ops.reshape(
                mapping(to_groups(hidden, groups)), (groups, batch, length, 3, heads // groups, width // heads)
            )
            split = ops.reshape(ops.transpose(split, (3, 1, 0, 4, 2, 5)), (3, batch, heads, length, width // heads))
        parts: list[Any] = ops.unstack(split, 3)
        return parts


class Layer(Block):
    """One layer: self-attention and a feed-forward network, each closed by a sum and a layer norm.

    Args:
        attention: the maps to queries, keys and values.
        attended: closes the attention: a dense map, and a layer norm after the sum.
        expand: the first half of the feed-forward network.
        act: the name of its activation.
        contract: closes it.
    """

    def __init__(
        self,
        attention: SelfAttention,
        attended: tuple[Any, keras.layers.Layer],
        expand: Dense | GroupedDense,
        act: str,
        contract: tuple[Any, keras.layers.Layer],
        **kwargs: Any,
    ) -> None:
        # The mask's numbers keep the dtype of scores, which may not be the layer's.
        super().__init__(trainable=False, autocast=False, **kwargs)
        dtype = self.dtype_policy
        self.inputs = AttentionInputs(attention, dtype=dtype, name="inputs")
        self.attended = Mapping(Product.of(attended[0]), dtype=dtype, name="attended")
        self.attended_norm = Norm(attended[1], dtype=dtype, name="attended_norm")
        self.network = FeedForward(Product.of(expand), Product.of(contract[0]), act, dtype=dtype, name="network")
        self.network_norm = Norm(contract[1], dtype=dtype, name="network_norm")

    def call(self, hidden: Any, attention_mask: Mask | None = None, output_attentions: bool = False) -> tuple[Any, Any]:
        """Map `[batch, length, width]` to the same shape; also return the attention's probabilities or None."""
        query, key, value = self.inputs(hidden)
        context, probabilities = attention(query, key, value, attention_mask, output_attentions=output_attentions)
        groups = self.attended.groups
        context = from_groups(self.attended(to_groups(side_by_side(context), groups)), groups, hidden)
        hidden = self.attended_norm(context + hidden)
        return self.network_norm(self.network(hidden) + hidden), probabilities


class Encoder(Block):
    """A stack of layers."""

    def __init__(self, layers: Iterable[keras.layers.Layer], **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self.layer = list(layers)

    def call(
        self,
        hidden: Any,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> EncoderOutput:
        """Run `[batch, length, width]` through every layer in turn."""
        mask = Mask.of(attention_mask, self.compute_dtype)
        hidden_states: tuple[Any, ...] = (hidden,)
        attentions: tuple[Any, ...] = ()
        for layer in self.layer:
            hidden, probabilities = layer(hidden, mask, output_attentions=output_attentions)
            if output_hidden_states:
                hidden_states += (hidden,)
            if output_attentions:
                attentions += (probabilities,)
        return EncoderOutput(
            hidden, hidden_states if output_hidden_states else None, attentions if output_attentions else None
        )


class RemBertEncoder(Block):
    """The map from the embeddings' width to the stream's, and the stack of layers; no decoder."""

    def __init__(self, mapping_in: Dense, layers: Iterable[keras.layers.Layer], **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        dtype = self.dtype_policy
        self.mapping_in = Mapping(Product.of(mapping_in), dtype=dtype, name="embedding_hidden_mapping_in")
        self.stack = Encoder(layers, dtype=dtype, name="stack")

    def call(
        self,
        embedded: Any,
        attention_mask: AttentionMask | None = None,
        decoding: Any = None,
        caches: Any = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        keep_caches: bool = False,
    ) -> DecoderOutput:
        """Run `[batch, length, input_embedding_size]` through the map and every layer in turn."""
        encoded = self.stack(
            self.mapping_in(embedded),
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        return DecoderOutput(encoded.last_hidden_state, encoded.hidden_states, encoded.attentions, None, None)


def optimize_rembert(model: TFRemBertModel, original: TFRemBertModel) -> tuple[str, ...]:
    """Exchange a bare encoder's parts for ones that compute what the original's do; tell what was done."""
    config, dtype = model.config, model.dtype_policy.compute_dtype
    if config.is_decoder:
        return ("left the layers as they are: they are a decoder's",)
    layers = [
        Layer(
            layer.attention.self,
            closing(layer.attention.output_),
            layer.intermediate.dense,
            config.hidden_act,
            closing(layer.output_),
            dtype=dtype,
            name=layer.name,
        )
        for layer in original.encoder.layer
    ]
    encoder = RemBertEncoder(original.encoder.embedding_hidden_mapping_in, layers, dtype=dtype, name="encoder")
    exchange(model, "encoder", encoder)
    return told(layers, config.hidden_act)


def optimize_squeezebert(model: TFSqueezeBertModel, original: TFSqueezeBertModel) -> tuple[str, ...]:
    """Exchange a bare encoder's parts for ones that compute what the original's do; tell what was done."""
    config, dtype = model.config, model.dtype_policy.compute_dtype
    layers = [
        Layer(
            layer.attention,
            (layer.post_attention.conv1d, layer.post_attention.layernorm),
            layer.intermediate.conv1d,
            config.hidden_act,
            (layer.output_.conv1d, layer.output_.layernorm),
            dtype=dtype,
            name=layer.name,
        )
        for layer in original.encoder.layer
    ]
    exchange(model, "encoder", Encoder(layers, dtype=dtype, name="encoder"))
    return told(layers, config.hidden_act)


def closing(part: AddNorm) -> tuple[Any, keras.layers.Layer]:
    """Return the dense map and the norm that close a sub-layer."""
    return part.dense, part.LayerNorm


def told(layers: Sequence[Layer], act: str) -> tuple[str, ...]:
    """Tell what was done to layers of this shape."""
    found = [SCALED] + ([HALVED] if act == "gelu" else [])
    if len(layers[0].inputs.maps) == 1:
        found.append(f"joined queries, keys and values: {len(layers)} products instead of {3 * len(layers)}")
    return tuple(found)
