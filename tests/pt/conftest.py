"""What the tests of the PyTorch models share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

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
    torch.manual_seed(0)


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """Return a function that makes a float64 model with random weights, in evaluation mode."""

    def make(family: str, head: str = "Model", seed: int = 0, **overrides: Any) -> Any:
        model = model_class(family, head, "pt")(random_config(family, seed, **overrides))
        return randomise(model, seed).double().eval()

    return make


@pytest.fixture
def make_inputs() -> Callable[..., Any]:
    """Return a function that makes a padded batch with labels, as tensors that suit a float64 model."""
    import torch

    def make(model: Any, seed: int = 0, **options: Any) -> dict[str, Any]:
        head = type(model).__name__.removeprefix(FAMILIES[model.config.model_type].prefix)
        options = {"length": min(9, model.config.max_position_embeddings), **options}
        inputs = random_inputs(model.config, head, seed, **options)
        return {name: torch.from_numpy(array) for name, array in inputs.items()}

    return make
