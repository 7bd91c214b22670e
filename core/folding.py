"""MobileBERT's NoNorms and biases of sums, folded into the weights: arithmetic on NumPy, for both frameworks.

Sun et al. 2020 (https://arxiv.org/abs/2004.02984), section 3.3, replaces a layer norm by `NoNorm(v) = w * v + c`. It is
linear, so it need not be computed. Where it follows a dense map, it goes into the map's rows. Where it follows a sum
with a residual stream, the stream is kept in other units: each channel as `x`, with

    stream = scale * x + shift

Then `NoNorm(stream + W h + b)` is `x + (W / scale) h` in the new units `scale * w` and `w * (shift + b) + c`: at run
time a sub-layer ends with a sum alone. Whatever reads the stream takes `scale` into its columns and `shift` into its
bias. There are two kinds of streams: one of width H between the layers, and inside each layer one of width B. H, B and
E are `hidden_size`, `true_hidden_size` and `embedding_size`.

Everything is in float64; a framework rounds it once, to the dtype that it computes in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .folded import (
    Addition,
    Array,
    Bases,
    FoldedEmbeddings,
    FoldedLayer,
    FoldedMobileBert,
    Product,
    Units,
    run,
)
from .mobilebert import MobileBertConfig

# Returns the bare encoder's tensor of a Hub name, such as "encoder.layer.0.attention.self.query.weight", in the Hub's
# layout and any floating dtype.
Read = Callable[[str], Array]

# How far a channel's scale may move from where it began before the stream is rescaled: 2 ** 12 either way. Float32
# would bear more, but the weights carry these scales too, in dtypes with less range.
MOST_DRIFT = 12

# In float16, whose largest number is 65504, a channel is kept below 2 ** 8 on the texts that are tried.
HALF_PEAK = 8


def fold_mobilebert(config: MobileBertConfig, read: Read, *, half: bool = False) -> FoldedMobileBert:
    """Fold a MobileBERT with `normalization_type` "no_norm".

    Args:
        config: the model's shape.
        read: returns the bare encoder's tensors by their Hub names.
        half: whether float16 is to hold the streams. The stream of a trained MobileBERT leaves float16's range; then
            each channel is kept in units, powers of two, in which it stays below 2 ** 8 on random words (a margin of
            2 ** 8 for other texts). Powers of two change no digit. Bounds that hold for every text grow with each layer
            and would leave small numbers no digits at all.

    Raises:
        ValueError: the config has norms that are not linear.

    Returns:
        The folded encoder; everything in it is float64.
    """
    if config.normalization_type != "no_norm":
        raise ValueError(f"normalization_type is {config.normalization_type!r}; only no_norm can be folded")
    folded = _fold(config, read, Bases.ones(config))
    return _fold(config, read, _bases_of(config, folded, read)) if half else folded


def _fold(config: MobileBertConfig, read: Read, bases: Bases) -> FoldedMobileBert:
    return _Folder(config, read, bases).model()


class _Stream:
    """A stream's units while its layers are folded one after the other.

    Args:
        bases: what its scales begin with, and return to after each sum in turn if they have gone too far.
        units: at the beginning.
    """

    def __init__(self, bases: Sequence[Array], units: Units) -> None:
        self.base, *self.next_bases = bases
        self.scale, self.shift = units

    @property
    def units(self) -> Units:
        return Units(self.scale, self.shift)

    def read(self, dense: Product) -> Product:
        """Return a map of the stream's true numbers as one of the numbers that are kept."""
        return Product(dense.weight * self.scale, dense.bias + dense.weight @ self.shift)

    def add(self, dense: Product, norm: Units) -> Addition:
        """Return what the sum `norm(stream + dense(v))` adds, and go over to the units after it."""
        weight = dense.weight / self.scale[:, None]
        self.shift = norm.scale * (self.shift + dense.bias) + norm.shift
        self.scale = norm.scale * self.scale
        return Addition(weight, self.settle(self.next_bases.pop(0)))

    def settle(self, base: Array) -> Array | None:
        """Go to a base where a scale has gone too far from the last one; return the factor of the numbers, if any."""
        drift = np.abs(self.scale / self.base)
        wild = ~((drift >= 2.0**-MOST_DRIFT) & (drift <= 2.0**MOST_DRIFT))
        if not wild.any():
            return None
        rescale = np.where(wild, self.scale / base, 1.0)
        self.scale, self.base = np.where(wild, base, self.scale), np.where(wild, base, self.base)
        return rescale


class _Folder:
    """Folds one encoder."""

    def __init__(self, config: MobileBertConfig, read: Read, bases: Bases) -> None:
        self.config = config
        self.read = read
        self.bases = bases

    def model(self) -> FoldedMobileBert:
        embeddings, stream = self.embeddings()
        units, layers = [stream.units], []
        for i in range(self.config.num_hidden_layers):
            layers.append(self.layer(i, stream))
            units.append(stream.units)
        return FoldedMobileBert(embeddings, tuple(layers), tuple(units))

    def embeddings(self) -> tuple[FoldedEmbeddings, _Stream]:
        config, bases = self.config, self.bases.stream
        base = bases[0]
        positions = self.tensor("embeddings.position_embeddings.weight")
        token_types = self.tensor("embeddings.token_type_embeddings.weight")
        norm = self.norm("embeddings")
        if not config.trigram_input and config.embedding_size == config.hidden_size:
            # The table of words is shared with the model that is folded, and so stays as it is.
            stream = _Stream(bases, Units(norm.scale * base, norm.shift))
            rescale = stream.settle(base)
            if (base != 1).any():
                rescale = 1 / base if rescale is None else rescale / base
            return FoldedEmbeddings(None, positions, token_types, rescale), stream
        dense = self.dense("embeddings.embedding_transformation")
        factor = norm.scale / base
        positions = factor * (positions + dense.bias) + norm.shift / base
        stream = _Stream(bases, Units(base, np.zeros_like(base)))
        return FoldedEmbeddings(factor[:, None] * dense.weight, positions, factor * token_types, None), stream

    def layer(self, index: int, stream: _Stream) -> FoldedLayer:
        config, name = self.config, f"encoder.layer.{index}"
        inner = stream
        query, key, value = (self.dense(f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        value = _scaled(value, 1 / self.bases.value[index])
        entry, attention = None, None
        if config.use_bottleneck:
            base = self.bases.inner[index][0]
            inner = _Stream(self.bases.inner[index], Units(base, np.zeros_like(base)))
            way_in = _scaled(self.normed(f"{name}.bottleneck.input"), 1 / base)
            if config.use_bottleneck_attention:
                entry, attention = stream.read(way_in), inner.read(_joined(query, key, value))
            elif config.key_query_shared_bottleneck:
                divisor = self.bases.shared[index]
                shared = _scaled(self.normed(f"{name}.bottleneck.attention"), 1 / divisor)
                entry = stream.read(_joined(way_in, shared, value))
                attention = _of_divided(_joined(query, key), divisor)
            else:
                entry = stream.read(_joined(way_in, query, key, value))
        else:
            attention = stream.read(_joined(query, key, value))
        dense = _of_divided(self.dense(f"{name}.attention.output.dense"), self.bases.value[index])
        context = inner.add(dense, self.norm(f"{name}.attention.output"))
        networks = [f"{name}.ffn.{j}" for j in range(config.num_feedforward_networks - 1)] + [name]
        feed_forward = tuple(
            self.network(network, inner, self.bases.intermediate[index][j]) for j, network in enumerate(networks)
        )
        way_out = None
        if config.use_bottleneck:
            # Read from the inner stream, and added to the outer one.
            dense = inner.read(self.dense(f"{name}.output.bottleneck.dense"))
            way_out = stream.add(dense, self.norm(f"{name}.output.bottleneck"))
        return FoldedLayer(entry, attention, context, feed_forward, way_out)

    def network(self, name: str, inner: _Stream, base: Array) -> tuple[Product, Addition]:
        """Fold one feed-forward network; a `base` other than 1 is for relu, which keeps positive factors."""
        expand = inner.read(self.dense(f"{name}.intermediate.dense"))
        contract = _of_divided(self.dense(f"{name}.output.dense"), base)
        return _scaled(expand, 1 / base), inner.add(contract, self.norm(f"{name}.output"))

    def tensor(self, name: str) -> Array:
        return self.read(name).astype(np.float64)

    def dense(self, name: str) -> Product:
        return Product(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"))

    def norm(self, name: str) -> Units:
        return Units(self.tensor(f"{name}.LayerNorm.weight"), self.tensor(f"{name}.LayerNorm.bias"))

    def normed(self, name: str) -> Product:
        """Return `norm(dense(v))` as one map."""
        dense, norm = self.dense(f"{name}.dense"), self.norm(name)
        scaled = _scaled(dense, norm.scale)
        return scaled._replace(bias=scaled.bias + norm.shift)


def _scaled(dense: Product, factor: Array) -> Product:
    """Multiply a map's results by a factor each."""
    return Product(factor[:, None] * dense.weight, factor * dense.bias)


def _of_divided(dense: Product, divisor: Array) -> Product:
    """Return a map of numbers as one of those numbers divided by a divisor each."""
    return dense._replace(weight=dense.weight * divisor)


def _joined(*maps: Product) -> Product:
    """Return the map whose results are those of several maps of the same numbers, side by side."""
    return Product(np.concatenate([m.weight for m in maps]), np.concatenate([m.bias for m in maps]))


# How large numbers become.


def _bases_of(config: MobileBertConfig, folded: FoldedMobileBert, read: Read) -> Bases:
    """Return the powers of two that keep a folded encoder's numbers below `2 ** HALF_PEAK` on random words."""
    random = np.random.default_rng(0)
    ids = random.integers(0, config.vocab_size, min(128, config.max_position_embeddings))
    peaks = run(config, folded, read("embeddings.word_embeddings.weight")[ids].astype(np.float64)).peaks
    inner = [[layer.context, *(contract for _, contract in layer.feed_forward)] for layer in folded.layers]
    outer = [layer.exit for layer in folded.layers if layer.exit] or [sum_ for sums in inner for sum_ in sums]
    intermediate = Bases.ones(config).intermediate
    if config.hidden_act == "relu":
        # One factor for all channels: what relu leaves at zero in one text, it may not in another.
        intermediate = [[_powers(np.full_like(peak, peak.max())) for peak in layer] for layer in peaks.intermediate]
    return Bases(
        _bases_along(peaks.stream, outer),
        [_bases_along(points, sums) for points, sums in zip(peaks.inner, inner, strict=True)],
        [_powers(peak) for peak in peaks.shared],
        [_powers(peak) for peak in peaks.value],
        intermediate,
    )


def _bases_along(peaks: Sequence[Array], sums: Sequence[Addition]) -> list[Array]:
    """Return a stream's bases at its beginning and after each sum: for its numbers up to the next rescaling."""
    highest = [peaks[-1]]
    for peak, addition in zip(reversed(peaks[:-1]), reversed(sums), strict=True):
        goes_on = True if addition.rescale is None else addition.rescale == 1
        highest.append(np.where(goes_on, np.maximum(peak, highest[-1]), peak))
    return [_powers(peak) for peak in reversed(highest)]


def _powers(peak: Array) -> Array:
    """Return the least powers of two, 1 at least, that divided by keep a peak within `2 ** HALF_PEAK`."""
    return 2.0 ** np.ceil(np.log2(np.maximum(peak, 2.0**HALF_PEAK)) - HALF_PEAK)
