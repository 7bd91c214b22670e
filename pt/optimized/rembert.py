"""RemBERT with its products joined and closed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..attention import AttentionMask
from ..layers import Dense
from ..rembert import DecoderOutput, RemBertModel
from .bert import Encoder, Layer
from .parts import joined, mapping, sum_norm
from .steps import ENDS, joined_inputs


class MappedEncoder(nn.Module):
    """The map from the embeddings' width to the stream's, and the stack of layers; no decoder."""

    def __init__(self, mapping_in: Dense, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.embedding_hidden_mapping_in = mapping_in
        self.stack = Encoder(layers)

    def forward(
        self,
        embedded: Tensor,
        attention_mask: AttentionMask | None,
        decoding: Any,
        caches: Any,
        output_attentions: bool,
        output_hidden_states: bool,
        keep_caches: bool,
    ) -> DecoderOutput:
        """Run `[batch, length, input_embedding_size]` through the map and every layer in turn."""
        hidden = self.embedding_hidden_mapping_in(embedded)
        encoded = self.stack(hidden, attention_mask, output_attentions, output_hidden_states)
        return DecoderOutput(encoded.last_hidden_state, encoded.hidden_states, encoded.attentions, None, None)


def optimized(model: RemBertModel, dtype: torch.dtype) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the stack of layers that takes the place of a bare encoder's own, and sentences of what was done."""
    config = model.config
    if config.is_decoder:
        return model.encoder, ("left the layers as they are: they are a decoder's",)
    layers = [
        Layer(
            [joined(layer.attention.self.query, layer.attention.self.key, layer.attention.self.value)],
            config.num_attention_heads,
            sum_norm(layer.attention.output.dense, layer.attention.output.LayerNorm),
            mapping(layer.intermediate.dense, config.hidden_act),
            sum_norm(layer.output.dense, layer.output.LayerNorm),
        )
        for layer in getattr(model.encoder, model.encoder.stack_name)
    ]
    encoder = MappedEncoder(model.encoder.embedding_hidden_mapping_in, layers)
    return encoder, (ENDS, joined_inputs(len(layers)))
