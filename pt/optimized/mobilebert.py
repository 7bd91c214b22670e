"""MobileBERT without a norm, from `core/folding.py`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...core.folded import Addition, FoldedEmbeddings, FoldedLayer, FoldedMobileBert, Product
from ...core.folding import fold_mobilebert
from ...core.mobilebert import MobileBertConfig
from ..attention import AttentionMask
from ..layers import Dense, EncoderOutput, NoNorm
from ..mobilebert import MobileBertEmbeddings, MobileBertModel
from .parts import Mapping, fixed
from .steps import ENDS, Mask, Steps, attention, steps_for


def folded_map(product: Product, activation: str = "linear") -> Mapping:
    """Return a folded dense map with an activation after it."""
    return Mapping(torch.from_numpy(product.weight), torch.from_numpy(product.bias), activation)


class Summand(nn.Module):
    """What is added to a stream: `x + weight @ v`, and where the stream is rescaled, times `rescale`."""

    def __init__(self, addition: Addition) -> None:
        super().__init__()
        self.weight = fixed(torch.from_numpy(addition.weight))
        self.rescale = None if addition.rescale is None else fixed(torch.from_numpy(addition.rescale))

    def forward(self, stream: Tensor, values: Tensor, steps: Steps) -> Tensor:
        """Return the stream `[batch, length, width]` after the sum; values are `[batch, length, in]`."""
        stream = steps.added(stream, values, self.weight, None)
        return stream if self.rescale is None else stream * self.rescale


class Layer(nn.Module):
    """One layer in the units of its streams; `core.folding.FoldedLayer` tells what its parts are."""

    def __init__(self, config: MobileBertConfig, folded: FoldedLayer) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.mask_value = config.attention_mask_value
        self.width = config.true_hidden_size
        self.entry = None if folded.entry is None else folded_map(folded.entry)
        self.attention = None if folded.attention is None else folded_map(folded.attention)
        self.context = Summand(folded.context)
        self.expand = nn.ModuleList(folded_map(expand, config.hidden_act) for expand, _ in folded.feed_forward)
        self.contract = nn.ModuleList(Summand(contract) for _, contract in folded.feed_forward)
        self.exit = None if folded.exit is None else Summand(folded.exit)

    def forward(
        self, stream: Tensor, mask: Mask | None, output_attentions: bool, steps: Steps
    ) -> tuple[Tensor, Tensor | None]:
        """Map `[batch, length, H]` to the same shape; also return the attention's probabilities or None."""
        inner, query, key, value = self.attention_inputs(stream, steps)
        context, probabilities = attention(
            query,
            key,
            value,
            self.num_heads,
            mask,
            mask_value=self.mask_value,
            output_attentions=output_attentions,
        )
        inner = self.context(inner, context, steps)
        for expand, contract in zip(self.expand, self.contract, strict=True):
            inner = contract(inner, expand(inner, steps), steps)
        return inner if self.exit is None else self.exit(stream, inner, steps), probabilities

    def attention_inputs(self, stream: Tensor, steps: Steps) -> tuple[Tensor, ...]:
        """Return the layer's inner stream, queries, keys and values, each `[batch, length, B]`."""
        if self.entry is None:
            assert self.attention is not None
            return stream, *self.attention(stream, steps).split(self.width, dim=-1)
        inner, *others = self.entry(stream, steps).split(self.width, dim=-1)
        if self.attention is None:
            return inner, *others
        if not others:
            return inner, *self.attention(inner, steps).split(self.width, dim=-1)
        shared, value = others
        return inner, *self.attention(shared, steps).split(self.width, dim=-1), value


class Encoder(nn.Module):
    """The stack of layers, and at its end the way back to the stream's true numbers."""

    def __init__(self, config: MobileBertConfig, folded: FoldedMobileBert) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config, layer) for layer in folded.layers)
        scales, shifts = (np.stack(parts) for parts in zip(*folded.units, strict=True))
        self.scales = fixed(torch.from_numpy(scales))
        self.shifts = fixed(torch.from_numpy(shifts))

    def forward(
        self,
        stream: Tensor,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> EncoderOutput:
        """Run `[batch, length, H]`, in the stream's units, through every layer in turn."""
        steps, mask = steps_for(stream, self.scales), Mask.of(attention_mask)
        hidden_states: tuple[Tensor, ...] = ()
        attentions: tuple[Tensor, ...] = ()
        for index, layer in enumerate(self.layer):
            if output_hidden_states:
                hidden_states += (self.true(stream, index),)
            stream, probabilities = layer(stream, mask, output_attentions, steps)
            if output_attentions:
                attentions += (probabilities,)
        last = self.true(stream, len(self.layer))
        return EncoderOutput(
            last, (*hidden_states, last) if output_hidden_states else None, attentions if output_attentions else None
        )

    def true(self, stream: Tensor, index: int) -> Tensor:
        """Return the true numbers of the stream before the layer of this index."""
        return torch.addcmul(self.shifts[index], stream, self.scales[index])


class Rescale(nn.Module):
    """Where embeddings are rescaled: `factor * x`."""

    def __init__(self, factor: np.ndarray) -> None:
        super().__init__()
        self.factor = fixed(torch.from_numpy(factor))

    def forward(self, values: Tensor) -> Tensor:
        """`[batch, length, H]` -> the same shape."""
        return values * self.factor


def fold_embeddings(embeddings: MobileBertEmbeddings, folded: FoldedEmbeddings) -> None:
    """Give embeddings folded weights in the place of their own; the table of words stays."""

    def parameter(array: np.ndarray) -> nn.Parameter:
        return fixed(torch.from_numpy(array))

    dense = embeddings.embedding_transformation
    embeddings.position_embeddings.weight = parameter(folded.positions)
    embeddings.token_type_embeddings.weight = parameter(folded.token_types)
    if folded.transformation is not None:
        dense.weight = fixed(torch.from_numpy(folded.transformation))
        dense.register_parameter("bias", None)
    embeddings.LayerNorm = nn.Identity() if folded.rescale is None else Rescale(folded.rescale)


def optimized(model: MobileBertModel, dtype: torch.dtype) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the stack of layers that takes the place of a bare encoder's own, and sentences of what was done.

    The embeddings become part of it: they then yield the stream in its own units.
    """
    config = model.config
    if config.normalization_type != "no_norm":
        return model.encoder, (f"left the layers as they are: {config.normalization_type} cannot be folded",)
    tensors = dict(model.named_parameters())
    folded = fold_mobilebert(
        config, lambda name: tensors[name].detach().cpu().double().numpy(), half=dtype == torch.float16
    )
    # Checkpoints hold a bottleneck for queries and keys even where it has nothing to do.
    unused = config.use_bottleneck_attention and config.key_query_shared_bottleneck and config.use_bottleneck
    idle = config.num_hidden_layers if unused else 0
    norms = sum(isinstance(module, NoNorm) for module in model.modules()) - idle
    products = sum(isinstance(module, Dense) for module in model.encoder.modules()) - idle
    fold_embeddings(model.embeddings, folded.embeddings)
    encoder = Encoder(config, folded).to(model.device, dtype)
    joined = sum(isinstance(module, Mapping | Summand) for module in encoder.modules())
    done = [
        f"folded {norms} NoNorms into the weights",
        f"joined products of the same numbers: {joined} in the layers instead of {products}",
        ENDS,
    ]
    if dtype == torch.float16:
        done.append("divided channels by powers of two, so that float16 holds them")
    return encoder, tuple(done)
