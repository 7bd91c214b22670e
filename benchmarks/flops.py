"""How much a forward pass computes: the multiplications and additions of its products, from its config.

Counted are dense maps (grouped or not), the attention's two products and convolutions; one multiplication and one
addition are 2. What is done to each number alone (norms, activations, softmax, sums) is left out, as are heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Products:
    """The products of a batch, counted by their widths.

    Attributes:
        batch: texts.
        length: tokens of each.
    """

    batch: int
    length: int

    def dense(self, in_width: int, out_width: int, groups: int = 1) -> int:
        """A dense map of every token's vector."""
        return 2 * self.batch * self.length * in_width * out_width // groups

    def attention(self, width: int) -> int:
        """Scores and context, of all heads together."""
        return 2 * (2 * self.batch * self.length**2 * width)

    def convolution(self, width: int, kernel_size: int) -> int:
        """A convolution of each channel apart."""
        return 2 * self.batch * self.length * width * kernel_size

    def pooler(self, width: int) -> int:
        """A dense map of every text's first token."""
        return 2 * self.batch * width * width


def mobilebert(config: Any, of: Products) -> int:
    stream, inner, words = config.hidden_size, config.true_hidden_size, config.embedding_size
    shares_bottleneck = config.use_bottleneck_attention or config.key_query_shared_bottleneck
    query_width = inner if shares_bottleneck else stream
    value_width = inner if config.use_bottleneck_attention else stream
    layer = 2 * of.dense(query_width, inner) + of.dense(value_width, inner)
    layer += of.attention(inner) + of.dense(inner, inner)
    layer += config.num_feedforward_networks * 2 * of.dense(inner, config.intermediate_size)
    if config.use_bottleneck:
        has_own_bottleneck = config.key_query_shared_bottleneck and not config.use_bottleneck_attention
        layer += (2 + has_own_bottleneck) * of.dense(stream, inner)
    total = config.num_hidden_layers * layer
    if config.trigram_input or words != stream:
        total += of.dense(words * (3 if config.trigram_input else 1), stream)
    return total + (of.pooler(stream) if config.classifier_activation else 0)


def squeezebert(config: Any, of: Products) -> int:
    hidden, inner = config.hidden_size, config.intermediate_size
    layer = sum(of.dense(hidden, hidden, groups) for groups in (config.q_groups, config.k_groups, config.v_groups))
    layer += of.attention(hidden) + of.dense(hidden, hidden, config.post_attention_groups)
    layer += of.dense(hidden, inner, config.intermediate_groups) + of.dense(inner, hidden, config.output_groups)
    return config.num_hidden_layers * layer + of.pooler(hidden)


def convbert(config: Any, of: Products) -> int:
    hidden, half, kernel_size = config.hidden_size, config.attention_width, config.conv_kernel_size
    # Queries, keys and values; the values of the convolution; its keys, which see their span; its kernels.
    layer = 4 * of.dense(hidden, half) + of.attention(half)
    layer += of.convolution(hidden, kernel_size) + of.dense(hidden, half)
    layer += of.dense(half, config.attention_heads * kernel_size) + of.convolution(half, kernel_size)
    layer += of.dense(hidden, hidden) + 2 * of.dense(hidden, config.intermediate_size, config.num_groups)
    total = config.num_hidden_layers * layer
    return total + (of.dense(config.embedding_size, hidden) if config.embedding_size != hidden else 0)


def rembert(config: Any, of: Products) -> int:
    hidden = config.hidden_size
    layer = 4 * of.dense(hidden, hidden) + of.attention(hidden) + 2 * of.dense(hidden, config.intermediate_size)
    return of.dense(config.input_embedding_size, hidden) + config.num_hidden_layers * layer + of.pooler(hidden)


FORMULAS: dict[str, Callable[[Any, Products], int]] = {
    "mobilebert": mobilebert,
    "squeezebert": squeezebert,
    "convbert": convbert,
    "rembert": rembert,
}


def forward_flop(config: Any, batch: int, length: int) -> int:
    """Return the floating-point operations of a bare encoder's forward pass.

    Args:
        config: a family's config.
        batch: texts.
        length: tokens of each, none of them padding.
    """
    return FORMULAS[config.model_type](config, Products(batch, length))
