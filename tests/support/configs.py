"""Small random configs, drawn over every legal combination of a family's switches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

CONFIG_SEEDS = tuple(range(8))
"""The configs that the default suite runs; `test_configs.py` shows that every switch takes every value among them."""

MANY_CONFIG_SEEDS = tuple(range(100, 160))
"""The configs that only the full suite runs."""


def random_config(family: str, seed: int, **overrides: Any) -> Any:
    """Return a small legal config of a family, the same for the same seed.

    Every dropout is on, so a test that compares two models also shows that evaluation ignores it. `overrides` replace
    drawn fields; the widths that other fields hang on are drawn after them, so the config stays legal.
    """
    import isobert

    draw, class_name = _FAMILIES[family]
    config_class = getattr(isobert, class_name)
    common = _common(_Draw(seed, "common", overrides))
    # Not every family has every one of them.
    common = {name: value for name, value in common.items() if name in config_class.__dataclass_fields__}
    return config_class(**{**common, **draw(_Draw(seed, family, overrides)), **overrides})


def attention_heads(config: Any) -> int:
    """Return how many heads of a layer attend; ConvBERT leaves only some of its heads to attention."""
    return getattr(config, "attention_heads", config.num_attention_heads)


class _Draw:
    """Draws fields from lists of choices; a field that the caller has set is taken as it is."""

    def __init__(self, seed: int, purpose: str, overrides: dict[str, Any]) -> None:
        self.random = np.random.default_rng([seed, *purpose.encode()])
        self.overrides = overrides

    def __call__(self, field: str, *choices: Any) -> Any:
        # Drawn even when it is not needed, so that overriding a field leaves the other fields as they were.
        drawn = choices[int(self.random.integers(len(choices)))]
        return self.overrides.get(field, drawn)

    def multiple(self, field: str, of: int, *factors: int) -> int:
        return int(self(field, *(of * factor for factor in factors)))


def _common(draw: _Draw) -> dict[str, Any]:
    num_labels = draw("num_labels", 1, 2, 3, 5)
    return {
        "vocab_size": draw("vocab_size", 23, 37, 50),
        "num_labels": num_labels,
        # A single label with "single_label_classification" is legal, but its loss is 0 whatever the weights are.
        "problem_type": draw(
            "problem_type",
            *([None, "regression", "multi_label_classification"] if num_labels == 1 else _PROBLEM_TYPES),
        ),
        "pad_token_id": draw("pad_token_id", 0, 0, 1, 5),
        "layer_norm_eps": draw("layer_norm_eps", 1e-12, 1e-5, 0.02),
        "hidden_dropout_prob": 0.3,
        "attention_probs_dropout_prob": 0.2,
        "classifier_dropout": draw("classifier_dropout", None, 0.4),
        "tie_word_embeddings": draw("tie_word_embeddings", True, False),
    }


_PROBLEM_TYPES = (None, "regression", "single_label_classification", "multi_label_classification")


def _mobilebert(draw: _Draw) -> dict[str, Any]:
    from isobert.core.config import ACTIVATIONS

    heads = draw("num_attention_heads", 1, 2, 3)
    use_bottleneck = draw("use_bottleneck", True, True, True, False)
    # Only without a bottleneck do the heads divide the stream. No width is below 8: a layer norm over two or three
    # numbers hardly depends on them, so its gradients are differences of nearly equal numbers.
    hidden_size = draw("hidden_size", 15, 24, 31) if use_bottleneck else draw.multiple("hidden_size", heads, 8, 9, 12)
    return {
        "hidden_size": hidden_size,
        "num_hidden_layers": draw("num_hidden_layers", 1, 2, 3),
        "num_attention_heads": heads,
        "intermediate_size": draw("intermediate_size", 13, 20, 32),
        "hidden_act": draw("hidden_act", *ACTIVATIONS),
        "max_position_embeddings": draw("max_position_embeddings", 12, 19),
        "type_vocab_size": draw("type_vocab_size", 2, 3),
        # As wide as the stream: without a trigram the embeddings then enter it untransformed.
        "embedding_size": draw("embedding_size", 7, hidden_size - 1, hidden_size, hidden_size),
        "trigram_input": draw("trigram_input", True, False),
        "use_bottleneck": use_bottleneck,
        # From narrower than the stream to wider, as the teacher's inverted bottleneck is.
        "intra_bottleneck_size": draw.multiple("intra_bottleneck_size", heads, 8, 9, 12),
        "use_bottleneck_attention": draw("use_bottleneck_attention", False, True, False),
        "key_query_shared_bottleneck": draw("key_query_shared_bottleneck", True, False),
        "num_feedforward_networks": draw("num_feedforward_networks", 1, 2, 4),
        "normalization_type": draw("normalization_type", "no_norm", "layer_norm", "manual_layer_norm"),
        "classifier_activation": draw("classifier_activation", True, False),
        "attention_mask_value": draw("attention_mask_value", None, None, -6.0),
        "mask_padding": draw("mask_padding", False, False, True),
    }


def _squeezebert(draw: _Draw) -> dict[str, Any]:
    from isobert.core.config import ACTIVATIONS
    from isobert.core.squeezebert import GROUPS

    heads = draw("num_attention_heads", 1, 2, 3)
    # One group is computed otherwise, so it is drawn as often as several.
    groups = {field: draw(field, 1, 2, 3, 1) for field in GROUPS}
    # At least multiples of 6, so that fields drawn for one number of groups hold for every other.
    step = math.lcm(6, heads, *groups.values())
    hidden_size = draw.multiple("hidden_size", step, 2, 3, 4)
    return {
        "hidden_size": hidden_size,
        "embedding_size": hidden_size,
        "num_hidden_layers": draw("num_hidden_layers", 1, 2, 3),
        "num_attention_heads": heads,
        "intermediate_size": draw.multiple("intermediate_size", step, 2, 3, 5),
        "hidden_act": draw("hidden_act", *ACTIVATIONS),
        "max_position_embeddings": draw("max_position_embeddings", 12, 19),
        "type_vocab_size": draw("type_vocab_size", 2, 3),
        **groups,
    }


def _convbert(draw: _Draw) -> dict[str, Any]:
    from isobert.core.config import ACTIVATIONS
    from isobert.core.convbert import SUMMARY_TYPES

    heads = draw("num_attention_heads", 2, 4, 5)
    # All heads, half, a third (with a remainder), a quarter, and more than there are, which leaves one.
    ratio = draw("head_ratio", 1, 2, 3, 4, 9)
    groups = draw("num_groups", 1, 2, 3)
    # Half of the stream is shared by the heads that are left; each is at least 4 wide.
    step = math.lcm(2 * max(heads // ratio, 1), groups)
    hidden_size = draw("hidden_size", *(step * math.ceil(least / step) for least in (16, 24, 40)))
    return {
        "num_attention_heads": heads,
        "head_ratio": ratio,
        "num_groups": groups,
        "hidden_size": hidden_size,
        "summary_use_proj": draw("summary_use_proj", True, False),
        "embedding_size": draw("embedding_size", 9, hidden_size, hidden_size + 3),
        "mask_padding": draw("mask_padding", True, False),
        "intermediate_size": draw.multiple("intermediate_size", groups, 9, 14, 20),
        "summary_activation": draw("summary_activation", None, "tanh"),
        "type_vocab_size": draw("type_vocab_size", 2, 3),
        "summary_type": draw("summary_type", *SUMMARY_TYPES),
        "max_position_embeddings": draw("max_position_embeddings", 12, 19),
        "num_hidden_layers": draw("num_hidden_layers", 1, 2, 3),
        "hidden_act": draw("hidden_act", *ACTIVATIONS),
        "conv_kernel_size": draw("conv_kernel_size", 1, 3, 5, 7, 9),
        "summary_first_dropout": 0.3,
        "summary_last_dropout": 0.2,
    }


def _rembert(draw: _Draw) -> dict[str, Any]:
    from isobert.core.config import ACTIVATIONS

    heads = draw("num_attention_heads", 1, 2, 3)
    words = draw("input_embedding_size", 8, 11, 24)
    tied = draw("tie_word_embeddings", True, False)
    is_decoder = draw("is_decoder", True, False)
    return {
        "num_attention_heads": heads,
        "hidden_size": draw.multiple("hidden_size", heads, 8, 9, 12),
        "input_embedding_size": words,
        "tie_word_embeddings": tied,
        "output_embedding_size": draw("output_embedding_size", *([words] if tied else [9, 17, 30])),
        "is_decoder": is_decoder,
        "add_cross_attention": draw("add_cross_attention", True, False) and is_decoder,
        "classifier_dropout_prob": 0.4,
        "intermediate_size": draw("intermediate_size", 9, 14, 20),
        "hidden_act": draw("hidden_act", *ACTIVATIONS),
        "num_hidden_layers": draw("num_hidden_layers", 1, 2, 3),
        "max_position_embeddings": draw("max_position_embeddings", 12, 19),
        "type_vocab_size": draw("type_vocab_size", 2, 3),
    }


_FAMILIES: dict[str, tuple[Callable[[_Draw], dict[str, Any]], str]] = {
    "convbert": (_convbert, "ConvBertConfig"),
    "mobilebert": (_mobilebert, "MobileBertConfig"),
    "rembert": (_rembert, "RemBertConfig"),
    "squeezebert": (_squeezebert, "SqueezeBertConfig"),
}
