from __future__ import annotations

import numpy as np
import pytest

from isobert.conversion.names import KERAS_LEAVES, apply_layout, family_names, keras_to_hub, layout_shape
from isobert.errors import UnknownNameError


@pytest.mark.parametrize(("leaf", "hub_leaf", "layout"), KERAS_LEAVES)
def test_a_keras_path_gives_the_hub_name_without_the_models_own(leaf: str, hub_leaf: str, layout: str) -> None:
    path = f"my_model/mobilebert/encoder/layer.3/output/{leaf}"
    assert keras_to_hub(path) == (f"mobilebert.encoder.layer.3.output.{hub_leaf}", layout)


@pytest.mark.parametrize("path", ["model/dense/moving_mean", "kernel", "model/kernel/"])
def test_a_keras_path_of_no_known_layer_is_refused_by_name(path: str) -> None:
    with pytest.raises(UnknownNameError, match=path):
        keras_to_hub(path)


@pytest.mark.parametrize("layout", ["same", "reversed"])
@pytest.mark.parametrize("shape", [(3,), (3, 5), (2, 3, 5)])
def test_a_layout_applied_twice_gives_the_array_back(layout: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape)
    there = apply_layout(array, layout)
    assert there.shape == layout_shape(shape, layout)
    np.testing.assert_array_equal(apply_layout(there, layout), array)


def test_a_dense_kernel_is_transposed() -> None:
    kernel = np.arange(6.0).reshape(2, 3)
    assert apply_layout(kernel, keras_to_hub("model/dense/kernel")[1])[2, 0] == kernel[0, 2]


def test_old_layer_norm_names_are_brought_up_to_date_and_others_left() -> None:
    names = family_names("mobilebert")
    assert names.modern("a.LayerNorm.gamma") == "a.LayerNorm.weight"
    assert names.modern("a.LayerNorm.beta") == "a.LayerNorm.bias"
    assert names.modern("a.gamma") == "a.gamma"


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="gpt5"):
        family_names("gpt5")
