"""The losses are their formulas, count what they should, and never come out as NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from isobert import MobileBertConfig
from isobert.errors import InputError
from isobert.tf.losses import (
    binary_cross_entropy,
    cross_entropy,
    mean_squared_error,
    question_answering_loss,
    sequence_classification_loss,
)

LOGITS = np.array([[1.0, 3.0, -2.0], [0.5, 0.0, 2.0], [4.0, 1.0, 1.0]])


def by_hand(logits: np.ndarray, label: int) -> float:
    return math.log(sum(math.exp(score) for score in logits)) - logits[label]


def loss_and_slope(loss: Callable[[Any], Any], logits: np.ndarray) -> tuple[float, np.ndarray]:
    values = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = loss(values)
    return float(result), tape.gradient(result, values).numpy()


def tensor(values: Any) -> Any:
    return ops.convert_to_tensor(np.asarray(values))


def test_cross_entropy_is_the_mean_over_the_labels_that_count() -> None:
    expected = (by_hand(LOGITS[0], 1) + by_hand(LOGITS[2], 2)) / 2
    found, slope = loss_and_slope(lambda logits: cross_entropy(logits, tensor([1, -100, 2])), LOGITS)
    assert found == pytest.approx(expected, rel=1e-12)
    assert not slope[1].any()
    assert slope[[0, 2]].all()


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_cross_entropy_of_tokens_is_that_of_the_flattened_batch(dtype: str, jit_compile: bool) -> None:
    logits = np.random.default_rng(0).normal(size=(2, 4, 5))
    labels = np.array([[0, -100, 4, 2], [-100, -100, 1, 1]], dtype)
    traced = tf.function(cross_entropy, jit_compile=jit_compile)
    expected = float(cross_entropy(tensor(logits.reshape(8, 5)), tensor(labels.reshape(8))))
    assert float(traced(tensor(logits), tensor(labels))) == pytest.approx(expected, rel=1e-12)


def test_a_loss_over_no_label_at_all_is_zero_with_a_gradient_of_zero() -> None:
    found, slope = loss_and_slope(lambda logits: cross_entropy(logits, tensor([-100] * 3)), LOGITS)
    assert found == 0.0
    assert not slope.any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_loss_of_half_precision_logits_is_computed_in_single(dtype: str) -> None:
    random = np.random.default_rng(0)
    logits, labels = ops.cast(random.normal(size=(4000, 50)), dtype), tensor(random.integers(0, 50, 4000))
    loss = cross_entropy(logits, labels)
    assert loss.dtype == "float32"
    assert float(loss) == pytest.approx(float(cross_entropy(ops.cast(logits, "float64"), labels)), rel=1e-6)


@pytest.mark.parametrize(
    ("num_labels", "labels", "expected"),
    [
        (1, np.zeros(3), "regression"),
        (1, np.zeros((3, 1)), "regression"),
        (3, np.array([0, 2, 1]), "single_label_classification"),
        (3, np.array([[0.0, 1.0, 1.0]] * 3), "multi_label_classification"),
    ],
)
def test_a_problem_type_is_inferred_without_being_written_into_the_config(
    num_labels: int, labels: np.ndarray, expected: str
) -> None:
    logits = tensor(LOGITS[:, :num_labels])
    inferring = MobileBertConfig(num_labels=num_labels)
    told = MobileBertConfig(num_labels=num_labels, problem_type=expected)
    loss = float(sequence_classification_loss(logits, tensor(labels), inferring))
    assert inferring.problem_type is None
    assert loss == float(sequence_classification_loss(logits, tensor(labels), told))


def test_regression_is_the_mean_squared_error() -> None:
    labels = np.array([0.5, 1.0, 2.0])
    expected = ((LOGITS[:, 0] - labels) ** 2).mean()
    for shaped in (labels, labels[:, None]):
        found = sequence_classification_loss(tensor(LOGITS[:, :1]), tensor(shaped), MobileBertConfig(num_labels=1))
        assert float(found) == pytest.approx(expected, rel=1e-12)
    assert float(mean_squared_error(tensor(LOGITS), tensor(LOGITS + 2))) == pytest.approx(4.0)


def test_multi_label_classification_is_the_mean_binary_cross_entropy() -> None:
    labels = np.array([[0, 1, 1], [1, 0, 0], [1, 1, 1]])
    chance = 1 / (1 + np.exp(-LOGITS))
    expected = -(labels * np.log(chance) + (1 - labels) * np.log(1 - chance)).mean()
    told = MobileBertConfig(num_labels=3, problem_type="multi_label_classification")
    assert float(sequence_classification_loss(tensor(LOGITS), tensor(labels), told)) == pytest.approx(expected)
    assert float(binary_cross_entropy(tensor(LOGITS), tensor(labels))) == pytest.approx(expected)


@pytest.mark.parametrize("loss", [mean_squared_error, binary_cross_entropy])
def test_a_label_of_nan_does_not_count_and_has_no_gradient(loss: Callable[..., Any]) -> None:
    labels = np.array([[0.0, 1.0, 1.0], [np.nan, 0.0, np.nan], [1.0, 1.0, 0.0]])
    found, slope = loss_and_slope(lambda x: loss(x, tensor(labels)), LOGITS)
    counted = ~np.isnan(labels)
    expected, slopes = loss_and_slope(lambda x: loss(x, tensor(labels[counted])), LOGITS[counted])
    assert found == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(slope[counted], slopes, rtol=1e-12)
    assert not slope[~counted].any()
    none, slope = loss_and_slope(lambda x: loss(x, tensor(np.full_like(labels, np.nan))), LOGITS)
    assert none == 0
    assert not slope.any()


def test_binary_cross_entropy_of_logits_far_out_is_finite_with_a_finite_gradient() -> None:
    found, slope = loss_and_slope(lambda x: binary_cross_entropy(x, tensor([0.0, 1.0])), np.array([1e4, -1e4]))
    assert found == pytest.approx(1e4)
    assert slope == pytest.approx([0.5, -0.5])


def test_the_loss_of_an_answer_is_the_mean_of_start_and_end() -> None:
    end_logits = LOGITS[:, ::-1].copy()
    found = question_answering_loss(tensor(LOGITS), tensor(end_logits), tensor([0, 1, 2]), tensor([[2], [2], [0]]))
    start = sum(by_hand(LOGITS[i], label) for i, label in enumerate([0, 1, 2])) / 3
    end = sum(by_hand(end_logits[i], label) for i, label in enumerate([2, 2, 0])) / 3
    assert float(found) == pytest.approx((start + end) / 2, rel=1e-12)


@pytest.mark.parametrize("outside", [3, 99, -1, -100])
def test_a_position_outside_the_sequence_does_not_count(outside: int) -> None:
    logits = tensor(LOGITS)
    found = question_answering_loss(logits, logits, tensor([0, outside, 2]), tensor([outside] * 3))
    expected = (by_hand(LOGITS[0], 0) + by_hand(LOGITS[2], 2)) / 2 / 2
    assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1], r"labels has the shape \[2\]; it must be \[3\]"),
        ([[0], [1], [2]], r"labels has the shape \[3, 1\]"),
        ([0, 3, 1], "labels holds 3; a label must be within 0 to 2, or -100"),
        ([0, -1, 1], "labels holds -1"),
        ([0.0, 1.0, 1.0], "labels has dtype float64; give integers"),
        ([True, False, True], "labels has dtype bool"),
    ],
)
def test_labels_that_do_not_suit_are_refused(labels: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        cross_entropy(tensor(LOGITS), tensor(labels))


@pytest.mark.parametrize("problem_type", ["regression", "multi_label_classification"])
def test_an_error_about_labels_of_a_sequence_names_the_problem_type(problem_type: str) -> None:
    config = MobileBertConfig(num_labels=3, problem_type=problem_type)
    with pytest.raises(InputError, match=rf"must be \[3, 3\] for problem_type '{problem_type}'"):
        sequence_classification_loss(tensor(LOGITS), tensor(np.zeros(3)), config)


def test_an_error_about_positions_calls_them_by_their_name() -> None:
    logits = tensor(LOGITS)
    with pytest.raises(InputError, match="end_positions has the shape"):
        question_answering_loss(logits, logits, tensor([0, 1, 2]), tensor([0, 1]))
    with pytest.raises(InputError, match="start_positions has dtype float64"):
        question_answering_loss(logits, logits, tensor(np.zeros(3)), tensor([0, 1, 2]))
