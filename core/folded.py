"""A MobileBERT whose norms are folded into its weights: what it is made of, and running it on NumPy.

`core/folding.py` makes it, and tells what a stream's units are. H, B and E are `hidden_size`, `true_hidden_size` and
`embedding_size`. Everything is in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .mobilebert import MobileBertConfig

Array = np.ndarray


class Product(NamedTuple):
    """A dense map `weight @ v + bias`.

    Attributes:
        weight: float64 `[out, in]`.
        bias: float64 `[out]`.
    """

    weight: Array
    bias: Array


class Addition(NamedTuple):
    """What is added to a stream: `x + weight @ v`, and then, where `rescale` is not None, times `rescale`.

    Attributes:
        weight: float64 `[width of the stream, in]`.
        rescale: float64 `[width of the stream]`: 1 where a channel keeps its units, 0 where a NoNorm's weight is 0.
    """

    weight: Array
    rescale: Array | None


class Units(NamedTuple):
    """How a stream is kept: its true numbers are `scale * x + shift`.

    Attributes:
        scale: float64 `[width]`.
        shift: float64 `[width]`.
    """

    scale: Array
    shift: Array


class FoldedEmbeddings(NamedTuple):
    """The way from vectors of words to the stream: `rescale * (transformation @ words + position + token type)`.

    Attributes:
        transformation: float64 `[H, 3E]` with a trigram, else `[H, E]`; None where words enter as they are. It has no
            bias: that is part of `positions`.
        positions: float64 `[max_position_embeddings, H]`.
        token_types: float64 `[type_vocab_size, H]`.
        rescale: float64 `[H]`, or None for all 1.
    """

    transformation: Array | None
    positions: Array
    token_types: Array
    rescale: Array | None


class FoldedLayer(NamedTuple):
    """One layer without a norm, in the units of its streams.

    Attributes:
        entry: from the stream to what the layer works from, rows joined. By config: `[inner | shared | value]` with
            `key_query_shared_bottleneck`, `[inner]` with `use_bottleneck_attention`, else
            `[inner | query | key | value]`; each B wide. None without a bottleneck: the stream itself is `inner`.
        attention: `[query | key]` from `shared`, or `[query | key | value]` from `inner` (with
            `use_bottleneck_attention` or without a bottleneck); None where `entry` holds them.
        context: from the heads' joined context to `inner`.
        feed_forward: of each network in turn, the map to the intermediate width and what is added to `inner`.
        exit: from `inner` to the stream. None without a bottleneck: `inner` is the stream.
    """

    entry: Product | None
    attention: Product | None
    context: Addition
    feed_forward: tuple[tuple[Product, Addition], ...]
    exit: Addition | None


class FoldedMobileBert(NamedTuple):
    """A MobileBERT encoder without a norm.

    Attributes:
        embeddings: the way into the stream.
        layers: in order.
        units: of the stream before the first layer and after each; `units[-1]` yields the last hidden state.
    """

    embeddings: FoldedEmbeddings
    layers: tuple[FoldedLayer, ...]
    units: tuple[Units, ...]


@dataclass
class Bases:
    """What numbers are divided by where they are made; each array is `[width]` and holds powers of two.

    Attributes:
        stream: those of the stream between layers: in the embeddings, and where it is rescaled, after each sum.
        inner: the same of each layer's own stream, where there is a bottleneck.
        shared: those that each layer's queries and keys are made of, where they have a bottleneck of their own.
        value: each layer's values.
        intermediate: those of each layer's feed-forward networks; all 1 unless their activation is relu.
    """

    stream: list[Array]
    inner: list[list[Array]]
    shared: list[Array]
    value: list[Array]
    intermediate: list[list[Array]]

    @classmethod
    def ones(cls, config: MobileBertConfig) -> Bases:
        """Return bases that change nothing."""
        layers, networks = config.num_hidden_layers, config.num_feedforward_networks
        inner, intermediate = np.ones(config.true_hidden_size), np.ones(config.intermediate_size)
        sums = layers if config.use_bottleneck else layers * (1 + networks)
        return cls(
            [np.ones(config.hidden_size)] * (1 + sums),
            [[inner] * (2 + networks)] * layers,
            [inner] * layers,
            [inner] * layers,
            [[intermediate] * networks] * layers,
        )


class Run(NamedTuple):
    """What running a folded encoder on one text yields.

    Attributes:
        hidden_states: the true stream before the first layer and after each, `[length, H]`.
        peaks: the largest of each channel's numbers, as they are kept, wherever `Bases` has one for them.
    """

    hidden_states: list[Array]
    peaks: Bases


def run(config: MobileBertConfig, folded: FoldedMobileBert, words: Array) -> Run:
    """Run a folded encoder on one text without padding, in NumPy and float64.

    Args:
        config: the model's shape.
        folded: the encoder.
        words: vectors of words, `[length, embedding_size]`.
    """
    act, embeddings = ACTIVATIONS[config.hidden_act], folded.embeddings
    if config.trigram_input:
        padded = np.pad(words, ((1, 1), (0, 0)))
        words = np.concatenate([padded[2:], words, padded[:-2]], axis=1)
    x = words if embeddings.transformation is None else words @ embeddings.transformation.T
    x = x + embeddings.positions[: len(x)] + embeddings.token_types[0]
    x = x if embeddings.rescale is None else x * embeddings.rescale
    hidden_states, peaks = [_true(x, folded.units[0])], Bases([_peak(x)], [], [], [], [])
    for layer, units in zip(folded.layers, folded.units[1:], strict=True):
        inner, shared, query, key, value = _attention_inputs(config, layer, x)
        points, intermediate = [_peak(inner)], []
        inner = _added(inner, _attend(query, key, value, config.num_attention_heads), layer.context)
        for expand, contract in layer.feed_forward:
            points.append(_peak(inner))
            wide = act(_mapped(inner, expand))
            intermediate.append(_peak(wide))
            inner = _added(inner, wide, contract)
        points.append(_peak(inner))
        x = inner if layer.exit is None else _added(x, inner, layer.exit)
        peaks.stream += points[1:] if layer.exit is None else [_peak(x)]
        peaks.inner.append(points)
        peaks.shared.append(_peak(shared))
        peaks.value.append(_peak(value))
        peaks.intermediate.append(intermediate)
        hidden_states.append(_true(x, units))
    return Run(hidden_states, peaks)


def _attention_inputs(config: MobileBertConfig, layer: FoldedLayer, x: Array) -> Sequence[Array]:
    """Return `inner`, what queries and keys are made of, queries, keys and values, each `[length, B]`."""

    def split(values: Array) -> list[Array]:
        return np.split(values, values.shape[1] // config.true_hidden_size, axis=1)

    if layer.entry is None:
        assert layer.attention is not None
        return x, x, *split(_mapped(x, layer.attention))
    inner, *others = split(_mapped(x, layer.entry))
    if layer.attention is None:
        return inner, inner, *others
    if not others:
        return inner, inner, *split(_mapped(inner, layer.attention))
    shared, value = others
    return inner, shared, *split(_mapped(shared, layer.attention)), value


def _attend(query: Array, key: Array, value: Array, heads: int) -> Array:
    """Return the heads' context side by side, `[length, B]`."""
    query, key, value = (part.reshape(len(part), heads, -1).swapaxes(0, 1) for part in (query, key, value))
    scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    context = weights / weights.sum(axis=-1, keepdims=True) @ value
    return context.swapaxes(0, 1).reshape(context.shape[1], -1)


def _mapped(values: Array, product: Product) -> Array:
    return values @ product.weight.T + product.bias


def _added(stream: Array, values: Array, addition: Addition) -> Array:
    stream = stream + values @ addition.weight.T
    return stream if addition.rescale is None else stream * addition.rescale


def _true(values: Array, units: Units) -> Array:
    return values * units.scale + units.shift


def _peak(values: Array) -> Array:
    return np.abs(values).max(axis=0)


def _sigmoid(values: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * values))


def _gelu(values: Array) -> Array:
    return 0.5 * values * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))


def _gelu_tanh(values: Array) -> Array:
    return 0.5 * values * (1 + np.tanh(math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)))


def _silu(values: Array) -> Array:
    return values * _sigmoid(values)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": lambda values: values * _sigmoid(1.702 * values),
    "relu": lambda values: np.maximum(values, 0),
    "relu6": lambda values: np.clip(values, 0, 6),
    "silu": _silu,
    "swish": _silu,
    "mish": lambda values: values * np.tanh(np.logaddexp(0, values)),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "linear": lambda values: values,
}
