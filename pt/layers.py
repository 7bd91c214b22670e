"""Building blocks that families share: dense maps, norms, embeddings, feed-forward networks and the stack of layers.

A block takes explicit widths and draws its own new weights, so that a model is ready once it is made. Its parameters
have the names they have on the Hub. `std` is the standard deviation of new weights (`config.initializer_range`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..core.config import PretrainedConfig
from .attention import AttentionMask
from .dropout import Dropout
from .losses import cross_entropy
from .products import PLAIN_TENSORS, grouped_linear, linear
from .projection import Projection, projected_cross_entropy

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
    """Fill a new weight from a normal distribution cut off at two standard deviations, as the authors of BERT do.

    PyTorch's own `trunc_normal_` draws until all numbers lie within, which takes ten times as long and three times the
    weight's memory. Here uniform numbers become normal ones by the inverse of the distribution function, in place.
    """
    if weight.is_meta:  # it has no memory to fill, and finding that out operation by operation takes long
        return
    weight = weight.detach()
    # Half precision has too few uniform numbers.
    drawn = weight if weight.element_size() >= 4 else torch.empty_like(weight, dtype=torch.float32)
    within = math.erf(math.sqrt(2.0))  # the share of a normal distribution within two deviations
    weight.copy_(drawn.uniform_(-within, within).erfinv_().mul_(math.sqrt(2.0) * std))


class Dense(nn.Linear):
    """`weight @ x + bias`, with BERT's initialisation: truncated normal weights, zero bias."""

    def __init__(self, in_features: int, out_features: int, std: float, *, bias: bool = True) -> None:
        self.std = std  # first, since the parent's constructor draws the weights
        super().__init__(in_features, out_features, bias=bias)

    def reset_parameters(self) -> None:
        """Draw new weights."""
        _draw(self.weight, self.std)
        if self.bias is not None and not self.bias.is_meta:
            nn.init.zeros_(self.bias)

    def forward(self, values: Tensor) -> Tensor:
        """`[..., in_features]` -> `[..., out_features]`."""
        return linear(values, self.weight, self.bias)


class GroupedDense(nn.Module):
    """A dense map of each group of channels apart, `grouped_linear`; the weight is `[groups, in/groups, out/groups]`.

    Args:
        in_features: width of the input; `groups` divides it.
        out_features: width of the output; `groups` divides it.
        groups: number of groups.
        std: standard deviation of new weights.
        bias: whether there is a bias `[out_features]`.
    """

    def __init__(self, in_features: int, out_features: int, groups: int, std: float, *, bias: bool = True) -> None:
        super().__init__()
        self.std = std
        self.weight = nn.Parameter(torch.empty(self._weight_shape(in_features, out_features, groups)))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.groups = groups
        self.reset_parameters()

    def _weight_shape(self, in_features: int, out_features: int, groups: int) -> tuple[int, ...]:
        return groups, in_features // groups, out_features // groups

    def reset_parameters(self) -> None:
        """Draw new weights."""
        _draw(self.weight, self.std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, values: Tensor) -> Tensor:
        """`[..., in_features]` -> `[..., out_features]`."""
        return grouped_linear(values, self.weight.mT, self.bias)


class GroupedConvolution(GroupedDense):
    """The same map, stored as a convolution of size 1: the weight is `[out, in/groups, 1]`."""

    def _weight_shape(self, in_features: int, out_features: int, groups: int) -> tuple[int, ...]:
        return out_features, in_features // groups, 1

    def forward(self, values: Tensor) -> Tensor:
        """`[..., in_features]` -> `[..., out_features]`."""
        return grouped_linear(values, self.weight[..., 0].unflatten(0, (self.groups, -1)), self.bias)


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


class Embeddings(nn.Module):
    """The sum of a word's, its position's and its segment's vector, normalised (Devlin et al. 2018, section 3).

    Args:
        config: a family's config.
        word_width: width of the word vectors.
        width: width of the positions' and segments' vectors, and of the sum.
        norm: what the sum goes through.
    """

    def __init__(self, config: PretrainedConfig, word_width: int, width: int, norm: nn.Module) -> None:
        super().__init__()
        std = config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, word_width, std, padding_idx=config.pad_token_id)
        self.position_embeddings = Embedding(config.max_position_embeddings, width, std)
        self.token_type_embeddings = Embedding(config.type_vocab_size, width, std)
        self.LayerNorm = norm
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Embed ids `[batch, length]`, or word vectors `[batch, length, word_width]`, as `[batch, length, width]`."""
        words = self.words(input_ids, inputs_embeds, attention_mask)
        if position_ids is None:
            position_ids = torch.arange(words.shape[1], device=words.device)[None]
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        embedded = words + self.position_embeddings(position_ids) + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(embedded))

    def words(self, input_ids: Tensor | None, inputs_embeds: Tensor | None, attention_mask: Tensor | None) -> Tensor:
        """Return what words bring to the sum, `[batch, length, width]`."""
        if inputs_embeds is None:
            return self.word_embeddings(input_ids)
        return inputs_embeds.to(self.word_embeddings.weight.dtype)


class Intermediate(nn.Module):
    """The first half of a feed-forward network: `activation(dense(x))`."""

    def __init__(self, dense: nn.Module, activation_name: str) -> None:
        super().__init__()
        self.dense = dense
        self.activation = activation(activation_name)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[batch, length, width]` -> `[batch, length, inner width]`."""
        return self.activation(self.dense(hidden))


class AddNorm(nn.Module):
    """What closes each sub-layer of a transformer: `norm(dropout(dense(x)) + residual)`."""

    def __init__(self, dense: nn.Module, norm: nn.Module, *, dropout: float) -> None:
        super().__init__()
        self.dense = dense
        self.dropout = Dropout(dropout)
        self.LayerNorm = norm

    def forward(self, values: Tensor, residual: Tensor) -> Tensor:
        """`[batch, length, inner width]` and a residual `[batch, length, width]` -> `[batch, length, width]`."""
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

    # What a checkpoint calls the stack.
    stack_name: ClassVar[str] = "layer"

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        setattr(self, self.stack_name, nn.ModuleList(layers))
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
        for layer in getattr(self, self.stack_name):
            hidden, probabilities = self.run_layer(layer, hidden, attention_mask, output_attentions)
            # What is not asked for is not held on to: without a backward pass it is freed layer by layer.
            if output_hidden_states:
                hidden_states += (hidden,)
            if output_attentions:
                attentions += (probabilities,)
        return EncoderOutput(
            hidden, hidden_states if output_hidden_states else None, attentions if output_attentions else None
        )

    def run_layer(self, layer: nn.Module, *inputs: Any) -> Any:
        """Call a layer, so that the backward pass computes it again if that is asked for."""
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


class Pooler(nn.Module):
    """The vector of the whole sequence: the first token's, through `tanh(dense(x))` unless `bare`."""

    def __init__(self, width: int, std: float, *, bare: bool = False) -> None:
        super().__init__()
        self.dense = None if bare else Dense(width, width, std)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[batch, length, width]` to `[batch, width]`."""
        first = hidden[:, 0]
        return first if self.dense is None else torch.tanh(self.dense(first))


class PredictionHeadTransform(nn.Module):
    """What a language-model head does before it scores words: `layer_norm(activation(dense(x)))`."""

    def __init__(self, in_width: int, width: int, activation_name: str, epsilon: float, std: float) -> None:
        super().__init__()
        self.dense = Dense(in_width, width, std)
        self.activation = activation(activation_name)
        self.LayerNorm = LayerNorm(width, epsilon)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[batch, length, in_width]` to `[batch, length, width]`."""
        return self.LayerNorm(self.activation(self.dense(hidden)))


class LMPredictionHead(nn.Module):
    """Scores of every word: `transform(x) @ word embeddings^T + bias` (Devlin et al. 2018, section 3.1).

    Args:
        config: a family's config.
        word_width: width of the word embeddings, which the table of outputs shares if it is tied.
    """

    def __init__(self, config: PretrainedConfig, word_width: int) -> None:
        super().__init__()
        width, std = config.hidden_size, config.initializer_range
        self.transform = PredictionHeadTransform(width, width, config.hidden_act, config.layer_norm_eps, std)
        self.decoder = Dense(word_width, config.vocab_size, std)
        self.bias = self.decoder.bias

    def reset_parameters(self) -> None:
        """Start without a bias."""
        nn.init.zeros_(self.bias)

    def tie_weights(self, embeddings: nn.Embedding | None) -> None:
        """Share the input embeddings' table, unless it is None. The bias has two names and is one tensor always."""
        self.decoder.bias = self.bias
        if embeddings is not None:
            self.decoder.weight = embeddings.weight

    def resize(self, vocab_size: int) -> None:
        """Give the head scores for another number of words; new rows are drawn anew, their bias is zero."""
        self.decoder.weight = resized(self.decoder.weight, vocab_size, self.decoder.std)
        self.bias = resized(self.bias, vocab_size, std=0.0)
        self.decoder.out_features = vocab_size
        self.decoder.bias = self.bias

    def projection(self) -> Projection | None:
        """Return what follows the transform; None where the decoder has been exchanged for one of another kind."""
        return Projection(self.decoder.weight, self.bias) if is_plain(self.decoder) else None

    def scores(self, vectors: Tensor) -> Tensor:
        """Score transformed vectors `[..., width]` as `[..., vocab]`."""
        return self.decoder(vectors)

    def forward(self, hidden: Tensor, labels: Tensor | None = None) -> Tensor:
        """Score `[batch, length, width]` as `[batch, length, vocab]`, or return the loss of labels `[batch, length]`.

        The loss is a scalar; it takes and holds fewer scores than there are (`projected_cross_entropy`).
        """
        projection = None if labels is None else self.projection()
        if labels is not None and projection is not None:
            return projected_cross_entropy(hidden, projection, labels, self.transform)
        scores = self.scores(self.transform(hidden))
        return scores if labels is None else cross_entropy(scores, labels)


def is_plain(dense: nn.Module) -> bool:
    """Say whether a dense layer does no more than multiply by its weight: not if quantised, adapted or distributed."""
    return isinstance(dense, Dense) and type(dense).forward is Dense.forward and type(dense.weight) in PLAIN_TENSORS


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
