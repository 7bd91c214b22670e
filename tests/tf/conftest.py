"""What the tests of the Keras models share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from isobert.core.registry import FAMILIES, model_class
from support.configs import random_config
from support.inputs import random_inputs
from support.weights import randomise

PAIRS = [(family, head) for family, entry in FAMILIES.items() for head in entry.heads]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `family` and `head` for each pair, and one that takes `family` alone for each family."""
    if {"family", "head"} <= set(metafunc.fixturenames):
        metafunc.parametrize(("family", "head"), PAIRS)
    elif "family" in metafunc.fixturenames:
        metafunc.parametrize("family", sorted({family for family, _ in PAIRS}))


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Let a test draw the same new weights and shuffles wherever in the run it stands."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """Return a function that makes a float64 model of one or two layers with random weights."""

    def make(family: str, head: str = "Model", seed: int = 0, dtype: str = "float64", **overrides: Any) -> Any:
        overrides = {"num_hidden_layers": 1 + seed % 2, **overrides}
        return randomise(model_class(family, head, "tf")(random_config(family, seed, **overrides), dtype=dtype), seed)

    return make


@pytest.fixture
def make_inputs() -> Callable[..., dict[str, np.ndarray]]:
    """Return a function that makes a padded batch with labels, as arrays."""

    def make(model: Any, seed: int = 0, **options: Any) -> dict[str, np.ndarray]:
        head = type(model).__name__.removeprefix(f"TF{FAMILIES[model.config.model_type].prefix}")
        options = {"length": min(9, model.config.max_position_embeddings), **options}
        return random_inputs(model.config, head, seed, **options)

    return make
