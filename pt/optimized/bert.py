"""Layers of BERT's shape with their products joined and closed: RemBERT's, SqueezeBERT's and, in part, ConvBERT's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from ..attention import AttentionMask
from ..layers import EncoderOutput
from .parts import Mapping, SumNorm
from .steps import Mask, Steps, attention, steps_for


class Layer(nn.Module):
    """One layer: self-attention and a feed-forward network, each closed by a sum and a layer norm.

    Args:
        inputs: makes queries, keys and values: each by a map of its own, or all three side by side by one.
        num_heads: number of heads.
        attended: closes the attention.
        expand: the first half of the feed-forward network.
        contract: closes it.
    """

    def __init__(
        self, inputs: Sequence[Mapping], num_heads: int, attended: SumNorm, expand: Mapping, contract: SumNorm
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(inputs)
        self.num_heads = num_heads
        self.attended = attended
        self.expand = expand
        self.contract = contract

    def forward(
        self, hidden: Tensor, mask: Mask | None, output_attentions: bool, steps: Steps
    ) -> tuple[Tensor, Tensor | None]:
        """Map `[batch, length, width]` to the same shape; also return the attention's probabilities or None."""
        made = [to(hidden, steps) for to in self.inputs]
        query, key, value = made[0].chunk(3, dim=-1) if len(made) == 1 else made
        context, probabilities = attention(query, key, value, self.num_heads, mask, output_attentions=output_attentions)
        hidden = self.attended(hidden, context, steps)
        return self.contract(hidden, self.expand(hidden, steps), steps), probabilities


class Encoder(nn.Module):
    """A stack of layers."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)

    def forward(
        self,
        hidden: Tensor,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> EncoderOutput:
        """Run `[batch, length, width]` through every layer in turn."""
        steps, mask = steps_for(hidden, next(self.parameters())), Mask.of(attention_mask)
        hidden_states: tuple[Tensor, ...] = (hidden,)
        attentions: tuple[Tensor, ...] = ()
        for layer in self.layer:
            hidden, probabilities = layer(hidden, mask, output_attentions, steps)
            if output_hidden_states:
                hidden_states += (hidden,)
            if output_attentions:
                attentions += (probabilities,)
        return EncoderOutput(
            hidden, hidden_states if output_hidden_states else None, attentions if output_attentions else None
        )
