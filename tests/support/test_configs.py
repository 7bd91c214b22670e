"""The random configs are what the tests that use them rely on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isobert.core.config import ACTIVATIONS, PROBLEM_TYPES
from isobert.core.convbert import SUMMARY_TYPES
from isobert.core.mobilebert import NORMALIZATION_TYPES
from isobert.core.registry import FAMILIES
from isobert.core.squeezebert import GROUPS
from support.configs import CONFIG_SEEDS, random_config

SWITCHES: dict[str, dict[str, set[Any]]] = {
    "mobilebert": {
        "trigram_input": {True, False},
        "use_bottleneck": {True, False},
        "use_bottleneck_attention": {True, False},
        "key_query_shared_bottleneck": {True, False},
        "normalization_type": set(NORMALIZATION_TYPES),
        "classifier_activation": {True, False},
        "mask_padding": {True, False},
        "attention_mask_value": {None, -6.0},
    },
    "convbert": {
        "head_ratio": {1, 2, 3, 4, 9},
        "num_groups": {1, 2, 3},
        "conv_kernel_size": {1, 3, 5, 7, 9},
        "summary_type": set(SUMMARY_TYPES),
        "summary_use_proj": {True, False},
        "summary_activation": {None, "tanh"},
        "mask_padding": {True, False},
    },
    "rembert": {
        "is_decoder": {True, False},
        "add_cross_attention": {True, False},
    },
    "squeezebert": {field: {1, 2, 3} for field in GROUPS},
}
COMMON_SWITCHES = {
    "tie_word_embeddings": {True, False},
    "problem_type": {None, *PROBLEM_TYPES},
}
FAMILIES_WITH_MODELS = [name for name, family in FAMILIES.items() if family.heads]


@pytest.mark.parametrize("family", FAMILIES_WITH_MODELS)
def test_every_switch_takes_every_value_among_the_default_seeds(family: str) -> None:
    expected = COMMON_SWITCHES | SWITCHES[family]
    configs = [random_config(family, seed) for seed in CONFIG_SEEDS]
    assert {switch: {getattr(config, switch) for config in configs} for switch in expected} == expected


def test_every_way_to_feed_attention_is_among_the_default_seeds() -> None:
    configs = [random_config("mobilebert", seed) for seed in CONFIG_SEEDS]
    ways = {(c.use_bottleneck_attention, c.key_query_shared_bottleneck) for c in configs if c.use_bottleneck}
    assert ways >= {(False, True), (False, False)}
    assert any(attention for attention, _ in ways)


def test_embeddings_enter_the_stream_untransformed_among_the_default_seeds() -> None:
    configs = [random_config("mobilebert", seed) for seed in CONFIG_SEEDS]
    assert any(not c.trigram_input and c.embedding_size == c.hidden_size for c in configs)


def test_embeddings_are_narrower_than_convberts_stream_as_wide_and_wider_among_the_default_seeds() -> None:
    configs = [random_config("convbert", seed) for seed in CONFIG_SEEDS]
    assert {np.sign(c.embedding_size - c.hidden_size) for c in configs} == {-1, 0, 1}


@pytest.mark.parametrize("family", FAMILIES_WITH_MODELS)
def test_every_activation_is_drawn_among_a_hundred_seeds(family: str) -> None:
    assert {random_config(family, seed).hidden_act for seed in range(100)} == set(ACTIVATIONS)


@pytest.mark.parametrize("family", FAMILIES_WITH_MODELS)
def test_a_config_of_a_seed_is_the_same_when_drawn_again(family: str) -> None:
    assert random_config(family, 3) == random_config(family, 3)


def test_overriding_one_field_leaves_the_others_as_they_were() -> None:
    drawn, changed = random_config("mobilebert", 3), random_config("mobilebert", 3, trigram_input=False)
    assert {**drawn.to_dict(), "trigram_input": False} == changed.to_dict()
