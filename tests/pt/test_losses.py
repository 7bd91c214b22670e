"""The losses are their formulas, count what they should, and never come out as NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from isobert import MobileBertConfig
from isobert.errors import InputError
from isobert.pt.losses import (
    binary_cross_entropy,
    cross_entropy,
    mean_squared_error,
    question_answering_loss,
    sequence_classification_loss,
)

LOGITS = torch.tensor([[1.0, 3.0, -2.0], [0.5, 0.0, 2.0], [4.0, 1.0, 1.0]])


def by_hand(logits: torch.Tensor, label: int) -> float:
    scores = logits.tolist()
    return math.log(sum(math.exp(score) for score in scores)) - scores[label]


def test_cross_entropy_is_the_mean_over_the_labels_that_count() -> None:
    expected = (by_hand(LOGITS[0], 1) + by_hand(LOGITS[2], 2)) / 2
    assert cross_entropy(LOGITS, torch.tensor([1, -100, 2])).item() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_of_tokens_is_that_of_the_flattened_batch() -> None:
    logits, labels = torch.randn(2, 4, 5), torch.tensor([[0, -100, 4, 2], [-100, -100, 1, 1]])
    torch.testing.assert_close(cross_entropy(logits, labels), cross_entropy(logits.flatten(0, 1), labels.flatten()))


def test_a_loss_over_no_label_at_all_is_zero_with_a_gradient_of_zero() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = cross_entropy(logits, torch.full((3,), -100))
    loss.backward()
    assert loss.item() == 0.0
    assert not logits.grad.any()


def test_an_ignored_label_has_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    cross_entropy(logits, torch.tensor([1, -100, 2])).backward()
    assert not logits.grad[1].any()
    assert logits.grad[[0, 2]].all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_of_half_precision_logits_is_computed_in_single(dtype: torch.dtype) -> None:
    logits, labels = torch.randn(4000, 50).to(dtype), torch.randint(0, 50, (4000,))
    loss = cross_entropy(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cross_entropy(logits.double(), labels).float(), rtol=1e-6, atol=0)


def config(**fields: Any) -> MobileBertConfig:
    return MobileBertConfig(**fields)


@pytest.mark.parametrize(
    ("num_labels", "labels", "expected"),
    [
        (1, torch.zeros(3), "regression"),
        (1, torch.zeros(3, 1), "regression"),
        (3, torch.tensor([0, 2, 1]), "single_label_classification"),
        (3, torch.tensor([[0.0, 1.0, 1.0]] * 3), "multi_label_classification"),
    ],
)
def test_a_problem_type_is_inferred_without_being_written_into_the_config(
    num_labels: int, labels: torch.Tensor, expected: str
) -> None:
    logits = LOGITS[:, :num_labels]
    inferring, told = config(num_labels=num_labels), config(num_labels=num_labels, problem_type=expected)
    loss = sequence_classification_loss(logits, labels, inferring)
    assert inferring.problem_type is None
    assert loss.equal(sequence_classification_loss(logits, labels, told))


def test_regression_is_the_mean_squared_error() -> None:
    labels = torch.tensor([0.5, 1.0, 2.0])
    expected = ((LOGITS[:, 0] - labels) ** 2).mean()
    for shaped in (labels, labels[:, None]):
        found = sequence_classification_loss(LOGITS[:, :1], shaped, config(num_labels=1))
        torch.testing.assert_close(found, expected)
    targets = torch.randn(3, 3)
    found = sequence_classification_loss(LOGITS, targets, config(num_labels=3, problem_type="regression"))
    torch.testing.assert_close(found, ((LOGITS - targets) ** 2).mean())
    torch.testing.assert_close(mean_squared_error(LOGITS, targets), found)


@pytest.mark.parametrize("loss", [mean_squared_error, binary_cross_entropy])
def test_a_label_of_nan_does_not_count_and_has_no_gradient(loss: Callable[..., torch.Tensor]) -> None:
    labels = torch.tensor([[0.0, 1.0, 1.0], [math.nan, 0.0, math.nan], [1.0, 1.0, 0.0]])
    counted = ~labels.isnan()
    logits, some = LOGITS.clone().requires_grad_(), LOGITS[counted].requires_grad_()
    found, expected = loss(logits, labels), loss(some, labels[counted])
    found.backward()
    expected.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(logits.grad[counted], some.grad)
    assert not logits.grad[~counted].any()
    assert loss(LOGITS, torch.full_like(labels, math.nan)).item() == 0


def test_multi_label_classification_is_the_mean_binary_cross_entropy() -> None:
    labels = torch.tensor([[0, 1, 1], [1, 0, 0], [1, 1, 1]])
    chance = LOGITS.sigmoid()
    expected = -(labels * chance.log() + (1 - labels) * (1 - chance).log()).mean()
    told = config(num_labels=3, problem_type="multi_label_classification")
    torch.testing.assert_close(sequence_classification_loss(LOGITS, labels, told), expected)
    torch.testing.assert_close(binary_cross_entropy(LOGITS, labels), expected)


def test_the_loss_of_an_answer_is_the_mean_of_start_and_end() -> None:
    end_logits = LOGITS.flip(1)
    found = question_answering_loss(LOGITS, end_logits, torch.tensor([0, 1, 2]), torch.tensor([[2], [2], [0]]))
    start = sum(by_hand(LOGITS[i], label) for i, label in enumerate([0, 1, 2])) / 3
    end = sum(by_hand(end_logits[i], label) for i, label in enumerate([2, 2, 0])) / 3
    assert found.item() == pytest.approx((start + end) / 2, rel=1e-6)


@pytest.mark.parametrize("outside", [3, 99, -1, -100])
def test_a_position_outside_the_sequence_does_not_count(outside: int) -> None:
    found = question_answering_loss(LOGITS, LOGITS, torch.tensor([0, outside, 2]), torch.tensor([outside] * 3))
    expected = (by_hand(LOGITS[0], 0) + by_hand(LOGITS[2], 2)) / 2 / 2
    assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 1]), r"labels has the shape \[2\]; it must be \[3\]"),
        (torch.tensor([[0], [1], [2]]), r"labels has the shape \[3, 1\]"),
        (torch.tensor([0, 3, 1]), "labels holds 3; a label must be within 0 to 2, or -100"),
        (torch.tensor([0, -1, 1]), "labels holds -1"),
        (torch.tensor([0.0, 1.0, 1.0]), "labels has dtype torch.float32; give integers"),
        (torch.tensor([True, False, True]), "labels has dtype torch.bool"),
    ],
)
def test_labels_that_do_not_suit_are_refused(labels: torch.Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        cross_entropy(LOGITS, labels)


@pytest.mark.parametrize("problem_type", ["regression", "multi_label_classification"])
def test_an_error_about_labels_of_a_sequence_names_the_problem_type(problem_type: str) -> None:
    with pytest.raises(InputError, match=rf"must be \[3, 3\] for problem_type '{problem_type}'"):
        sequence_classification_loss(LOGITS, torch.zeros(3), config(num_labels=3, problem_type=problem_type))


def test_an_error_about_positions_calls_them_by_their_name() -> None:
    with pytest.raises(InputError, match="end_positions has the shape"):
        question_answering_loss(LOGITS, LOGITS, torch.tensor([0, 1, 2]), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="start_positions has dtype torch.float32"):
        question_answering_loss(LOGITS, LOGITS, torch.zeros(3), torch.tensor([0, 1, 2]))
