"""Building blocks that every family shares: dense maps, norms, embeddings, self-attention and the stack of layers.

A block takes explicit widths and draws its own new weights, so that a model is ready once it is made. Its parameters
have the names they have on the Hub. `std` is the standard deviation of new weights (`config.initializer_range`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Activation = Callable[[Tensor], Tensor]


def _identity(values: Tensor) -> Tensor:
    return values


def _quick_gelu(values: Tensor) -> Tensor:
    return values * torch.sigmoid(1.702 * values)


ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_fast": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": _quick_gelu,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "swish": F.silu,
    "mish": F.mish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "linear": _identity,
}


def activation(name: str) -> Activation:
    """Return the activation that a config's `hidden_act` names; `core.config.ACTIVATIONS` lists the legal names."""
    return ACTIVATIONS[name]


def _draw(weight: Tensor, std: float) -> None:
    """Fill a new weight from a normal distribution cut off at two standard deviations, as the authors of BERT do."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


class Dense(nn.Linear):
    """`weight @ x + bias`, with BERT's initialisation: truncated normal weights, zero bias."""

    def __init__(self, in_features: int, out_features: int, std: float, *, bias: bool = True) -> None:
        self.std = std  # first, since the parent's constructor draws the weights
        super().__init__(in_features, out_features, bias=bias)

    def reset_parameters(self) -> None:
        """Draw new weights."""
        _draw(self.weight, self.std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Embedding(nn.Embedding):
    """A table of vectors, with BERT's initialisation: truncated normal.

    The row `padding_idx`, if there is one, starts as zeros and gets no gradient from being looked up.
    """

    def __init__(self, num_embeddings: int, width: int, std: float, *, padding_idx: int | None = None) -> None:
        self.std = std  # first, since the parent's constructor draws the weights
        super().__init__(num_embeddings, width, padding_idx=padding_idx)

    def reset_parameters(self) -> None:
        """Draw new vectors."""
        _draw(self.weight, self.std)
        self._fill_padding_idx_with_zero()


class LayerNorm(nn.LayerNorm):
    """`weight * (x - mean) / sqrt(variance + epsilon) + bias` over the last axis (Ba et al. 2016)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__(width, eps=epsilon)


class NoNorm(nn.Module):
    """`weight * x + bias`, elementwise: what MobileBERT has in a layer norm's place (section 3.3, equation 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the identity."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, values: Tensor) -> Tensor:
        """Scale and shift `[..., width]`."""
        return torch.addcmul(self.bias, values, self.weight)


def normalization(kind: str, width: int, epsilon: float) -> LayerNorm | NoNorm:
    """Return the norm that `normalization_type` names; see `core.mobilebert.NORMALIZATION_TYPES`."""
    if kind == "no_norm":
        return NoNorm(width)
    return LayerNorm(width, 1e-6 if kind == "manual_layer_norm" else epsilon)


class AttentionMask(NamedTuple):
    """Which keys each query may attend to, in the forms that the two paths of `attend` need.

    Attributes:
        keep: bool `[batch, 1, 1 or length, length]`, True where the key may be attended to.
        blind: bool `[batch, 1, 1 or length, 1]`, True for a query that may attend to no key at all.
        bias: `[batch, 1, 1 or length, length]`, added to the scores: 0 or the dtype's lowest number. A blind query's
            row is 0.
    """

    keep: Tensor
    blind: Tensor
    bias: Tensor

    @classmethod
    def of(cls, attention_mask: Tensor | None, dtype: torch.dtype) -> AttentionMask | None:
        """Make one from a caller's mask `[batch, length]` or `[batch, length, length]`, in which 0 masks."""
        if attention_mask is None:
            return None
        keep = attention_mask.bool()
        keep = keep[:, None, None, :] if keep.dim() == 2 else keep[:, None]
        blind = ~keep.any(dim=-1, keepdim=True)
        bias = torch.zeros(keep.shape, dtype=dtype, device=keep.device)
        return cls(keep, blind, bias.masked_fill(~(keep | blind), torch.finfo(dtype).min))


def padded_positions(attention_mask: Tensor) -> Tensor:
    """Return bool `[batch, length]`: the positions that a mask hides from every query."""
    keep = attention_mask.bool()
    return ~(keep if keep.dim() == 2 else keep.any(dim=1))


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask | None,
    *,
    dropout: float = 0.0,
    mask_value: float | None = None,
    output_attentions: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention: `softmax(query @ key^T / sqrt(width)) @ value` (Vaswani et al. 2017, equation 1).

    A query whose keys are all masked attends to all alike. The fused kernel is used unless the probabilities are asked
    for or `mask_value` is given; the numbers are the same.

    Args:
        query: `[batch, heads, length, width of a head]`.
        key: shaped like `query`.
        value: shaped like `query`.
        mask: which keys may be attended to; None is all.
        dropout: probability with which a probability is dropped.
        mask_value: the score of masked keys; None is the dtype's lowest number, which masks them fully.
        output_attentions: whether to return the probabilities.

    Returns:
        The context, shaped like `query`, and the probabilities before dropout `[batch, heads, length, length]` or None.
    """
    if not output_attentions and mask_value is None:
        bias = None
        if mask is not None:
            # A fused kernel's backward pass is wrong where a whole row of the bias is the lowest number. A zero query
            # scores 0 everywhere, which is the same uniform attention.
            query, bias = query.masked_fill(mask.blind, 0.0), mask.bias
        return F.scaled_dot_product_attention(query, key, value, bias, dropout_p=dropout), None

    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    # Half precision sums too coarsely, and may not hold `mask_value`. The fused kernel sums in single precision too.
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if mask is not None:
        scores = scores.masked_fill(~mask.keep, torch.finfo(scores.dtype).min if mask_value is None else mask_value)
    probabilities = torch.softmax(scores, dim=-1).to(value.dtype)
    context = F.dropout(probabilities, dropout, training=dropout > 0) @ value
    return context, probabilities if output_attentions else None


class SelfAttention(nn.Module):
    """Multi-head attention up to the heads' concatenation, without the dense map after it.

    Args:
        query_width: width of what queries and keys are computed from.
        value_width: width of what values are computed from.
        width: width of all heads together.
        num_heads: number of heads; it divides `width`.
        dropout: dropout of the probabilities.
        std: standard deviation of new weights.
        mask_value: see `attend`.
    """

    def __init__(
        self,
        query_width: int,
        value_width: int,
        width: int,
        num_heads: int,
        *,
        dropout: float,
        std: float,
        mask_value: float | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout_prob = dropout
        self.mask_value = mask_value
        self.query = Dense(query_width, width, std)
        self.key = Dense(query_width, width, std)
        self.value = Dense(value_width, width, std)

    def forward(
        self,
        query_input: Tensor,
        key_input: Tensor,
        value_input: Tensor,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            query_input: `[batch, length, query_width]`.
            key_input: shaped like `query_input`.
            value_input: `[batch, length, value_width]`.
            attention_mask: which keys may be attended to.
            output_attentions: whether to return the probabilities.

        Returns:
            The context `[batch, length, width]`, and the probabilities `[batch, heads, length, length]` or None.
        """
        context, probabilities = attend(
            self._split_heads(self.query(query_input)),
            self._split_heads(self.key(key_input)),
            self._split_heads(self.value(value_input)),
            attention_mask,
            dropout=self.dropout_prob if self.training else 0.0,
            mask_value=self.mask_value,
            output_attentions=output_attentions,
        )
        return context.transpose(1, 2).flatten(2), probabilities

    def _split_heads(self, values: Tensor) -> Tensor:
        """`[batch, length, width]` -> `[batch, heads, length, width / heads]`."""
        return values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class Intermediate(nn.Module):
    """The first half of a feed-forward network: `activation(dense(x))`."""

    def __init__(self, width: int, inner_width: int, activation_name: str, std: float) -> None:
        super().__init__()
        self.dense = Dense(width, inner_width, std)
        self.activation = activation(activation_name)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[batch, length, width]` -> `[batch, length, inner_width]`."""
        return self.activation(self.dense(hidden))


class AddNorm(nn.Module):
    """What closes each sub-layer of a transformer: `norm(dropout(dense(x)) + residual)`."""

    def __init__(self, in_width: int, width: int, norm: nn.Module, *, dropout: float, std: float) -> None:
        super().__init__()
        self.dense = Dense(in_width, width, std)
        self.dropout = nn.Dropout(dropout)
        self.LayerNorm = norm

    def forward(self, values: Tensor, residual: Tensor) -> Tensor:
        """`[batch, length, in_width]` and a residual `[batch, length, width]` -> `[batch, length, width]`."""
        return self.LayerNorm(self.dropout(self.dense(values)) + residual)


class EncoderOutput(NamedTuple):
    """What a stack of layers yields.

    Attributes:
        last_hidden_state: `[batch, length, hidden]`.
        hidden_states: the stack's input and each layer's output, or None.
        attentions: each layer's probabilities, or None.
    """

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None


class Encoder(nn.Module):
    """A stack of layers, each `(hidden, attention_mask, output_attentions) -> (hidden, probabilities or None)`.

    With `gradient_checkpointing`, a training step keeps only each layer's input and computes the rest of the layer
    again in the backward pass (Chen et al. 2016).
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden: Tensor,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> EncoderOutput:
        """Run `[batch, length, hidden]` through every layer in turn."""
        hidden_states: tuple[Tensor, ...] = (hidden,) if output_hidden_states else ()
        attentions: tuple[Tensor, ...] = ()
        for layer in self.layer:
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                hidden, probabilities = checkpoint(
                    layer, hidden, attention_mask, output_attentions, use_reentrant=False
                )
            else:
                hidden, probabilities = layer(hidden, attention_mask, output_attentions)
            # What is not asked for is not held on to: without a backward pass it is freed layer by layer.
            if output_hidden_states:
                hidden_states += (hidden,)
            if output_attentions:
                attentions += (probabilities,)
        return EncoderOutput(
            hidden, hidden_states if output_hidden_states else None, attentions if output_attentions else None
        )


def resized(parameter: Tensor, size: int, std: float, *, axis: int = 0) -> nn.Parameter:
    """Return a copy of a parameter cut or grown to `size` along an axis; what is new is drawn with `std` (0: zeros)."""
    shape = list(parameter.shape)
    kept = min(size, shape[axis])
    shape[axis] = size
    values = parameter.new_zeros(shape)
    with torch.no_grad():
        if std > 0 and size > kept:
            _draw(values.narrow(axis, kept, size - kept), std)
        values.narrow(axis, 0, kept).copy_(parameter.narrow(axis, 0, kept))
    return nn.Parameter(values, requires_grad=parameter.requires_grad)
