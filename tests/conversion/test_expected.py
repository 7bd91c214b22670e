"""The tables of expected tensors, held to the models."""

from __future__ import annotations

import pytest

from isobert.conversion.expected import expected_tensors
from isobert.core.registry import FAMILIES, model_class
from isobert.errors import ConfigError, UnknownNameError
from support.configs import CONFIG_SEEDS, random_config

CASES = [(name, head) for name, family in FAMILIES.items() for head in family.heads]


@pytest.mark.parametrize(("family", "head"), CASES)
@pytest.mark.parametrize("seed", CONFIG_SEEDS)
def test_the_tensors_expected_of_a_config_are_those_that_the_model_has_in_its_order(
    family: str, head: str, seed: int
) -> None:
    torch = pytest.importorskip("torch")
    config = random_config(family, seed)
    with torch.device("meta"):
        model = model_class(family, head, "pt")(config)
    found = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert list(expected_tensors(config, head).items()) == list(found.items())


def test_a_head_that_a_family_does_not_have_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="MobileBertForPoetry"):
        expected_tensors(random_config("mobilebert", 0), "ForPoetry")


def test_a_head_that_a_config_does_not_allow_is_refused() -> None:
    config = random_config("mobilebert", 0, hidden_size=12, embedding_size=13, use_bottleneck=True)
    with pytest.raises(ConfigError, match="embedding_size"):
        expected_tensors(config, "ForMaskedLM")
