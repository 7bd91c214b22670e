"""The formulas count what PyTorch counts while a model runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import flops
import isobert
from isobert.core.registry import FAMILIES, model_class
from support.configs import CONFIG_SEEDS, random_config

WITH_MODELS = [name for name, family in FAMILIES.items() if family.heads]


def counted(config: Any, batch: int, length: int) -> int:
    model = model_class(config.model_type, "Model", "pt")(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        # Asked for its probabilities, attention is two plain products, which every version of PyTorch counts.
        model(torch.full((batch, length), config.vocab_size - 1), output_attentions=True)
    return counter.get_total_flops()


def uncounted(config: Any, batch: int, length: int) -> int:
    """Return what is no product to PyTorch: ConvBERT's dynamic convolution is a sum of scaled shifted values."""
    if config.model_type != "convbert":
        return 0
    one = flops.Products(batch, length).convolution(config.attention_width, config.conv_kernel_size)
    return config.num_hidden_layers * one


@pytest.mark.parametrize("family", WITH_MODELS)
@pytest.mark.parametrize("seed", CONFIG_SEEDS)
def test_a_formula_counts_what_pytorch_counts(family: str, seed: int) -> None:
    config = random_config(family, seed)
    for batch, length in ((1, 5), (3, 9)):
        expected = counted(config, batch, length) + uncounted(config, batch, length)
        assert flops.forward_flop(config, batch, length) == expected


def test_squeezebert_without_groups_needs_what_bert_base_needs() -> None:
    ungrouped = dict.fromkeys(("q_groups", "k_groups", "v_groups", "intermediate_groups", "output_groups"), 1)
    config = isobert.SqueezeBertConfig(**ungrouped)
    # Twelve layers: four maps of 768 to 768, two of 768 to 3072 and back, two products of the attention; the pooler.
    expected = 12 * (2 * 128 * (4 * 768**2 + 2 * 768 * 3072) + 4 * 128**2 * 768) + 2 * 768**2
    assert flops.forward_flop(config, 1, 128) == expected
