"""SqueezeBERT with its products closed, and joined where they are in one group."""

from __future__ import annotations

import torch
from torch import nn

from ..squeezebert import SqueezeBertModel
from .bert import Encoder, Layer
from .parts import joined, mapping, sum_norm
from .steps import ENDS, joined_inputs


def optimized(model: SqueezeBertModel, dtype: torch.dtype) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the stack of layers that takes the place of a bare encoder's own, and sentences of what was done."""
    config, layers = model.config, []
    # The results of several groups would not lie as heads do.
    is_joined = config.q_groups == config.k_groups == config.v_groups == 1
    for layer in getattr(model.encoder, model.encoder.stack_name):
        maps = (layer.attention.query, layer.attention.key, layer.attention.value)
        layers.append(
            Layer(
                [joined(*maps)] if is_joined else [mapping(dense) for dense in maps],
                config.num_attention_heads,
                sum_norm(layer.post_attention.conv1d, layer.post_attention.layernorm),
                mapping(layer.intermediate.conv1d, config.hidden_act),
                sum_norm(layer.output.conv1d, layer.output.layernorm),
            )
        )
    return Encoder(layers), (ENDS, joined_inputs(len(layers))) if is_joined else (ENDS,)
