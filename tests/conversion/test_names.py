from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from isobert.conversion.layouts import from_hub, hub_shape, to_hub
from isobert.conversion.names import KERAS_LEAVES, family_names, keras_to_hub
from isobert.errors import UnknownNameError


@pytest.mark.parametrize(("leaf", "hub_leaf", "layout"), KERAS_LEAVES)
def test_a_keras_path_gives_the_hub_name_without_the_models_own(leaf: str, hub_leaf: str, layout: str) -> None:
    path = f"my_model/mobilebert/encoder/layer.3/output/{leaf}"
    assert keras_to_hub(path) == (f"mobilebert.encoder.layer.3.output.{hub_leaf}", layout)


@pytest.mark.parametrize("path", ["model/dense/moving_mean", "kernel", "model/kernel/"])
def test_a_keras_path_of_no_known_layer_is_refused_by_name(path: str) -> None:
    with pytest.raises(UnknownNameError, match=path):
        keras_to_hub(path)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [*product(["same", "reversed"], [(3,), (3, 5), (2, 3, 5)]), ("grouped", (2, 3, 5))],
)
def test_a_layout_goes_to_the_hub_and_back(layout: Any, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape)
    there = to_hub(array, layout)
    assert there.shape == hub_shape(shape, layout)
    np.testing.assert_array_equal(from_hub(there, layout, shape), array)


def test_a_grouped_kernel_has_its_groups_one_after_the_other_in_the_hubs_outputs() -> None:
    kernel = np.arange(24.0).reshape(2, 3, 4)
    there = to_hub(kernel, keras_to_hub("model/query/grouped_kernel")[1])
    assert there.shape == (8, 3, 1)
    assert there[5, 2, 0] == kernel[1, 2, 1]


def test_a_dense_kernel_is_transposed() -> None:
    kernel = np.arange(6.0).reshape(2, 3)
    assert to_hub(kernel, keras_to_hub("model/dense/kernel")[1])[2, 0] == kernel[0, 2]


def test_old_layer_norm_names_are_brought_up_to_date_and_others_left() -> None:
    names = family_names("mobilebert")
    assert names.modern("a.LayerNorm.gamma") == "a.LayerNorm.weight"
    assert names.modern("a.LayerNorm.beta") == "a.LayerNorm.bias"
    assert names.modern("a.gamma") == "a.gamma"


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="gpt5"):
        family_names("gpt5")
