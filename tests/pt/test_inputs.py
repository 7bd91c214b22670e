"""A wrong argument is answered with one error that says what is wrong and what is legal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from isobert import MobileBertForMultipleChoice, MobileBertForNextSentencePrediction, MobileBertForTokenClassification
from isobert.errors import InputError
from isobert.pt.inputs import values_are_cheap
from support.configs import random_config

IDS = torch.tensor([[3, 4, 5], [6, 7, 0]])
SIZES = {"vocab_size": 23, "embedding_size": 5, "type_vocab_size": 2, "max_position_embeddings": 12}

WRONG = {
    "neither ids nor vectors": ({}, "got neither"),
    "both ids and vectors": ({"input_ids": IDS, "inputs_embeds": torch.zeros(2, 3, 5)}, "got both"),
    "ids without a batch": ({"input_ids": IDS[0]}, r"input_ids has the shape \[3\]; it must be \[batch, length\]"),
    "ids of too high rank": ({"input_ids": IDS[None]}, r"shape \[1, 2, 3\]"),
    "ids that are no integers": ({"input_ids": IDS.float()}, "input_ids has dtype torch.float32; give integers"),
    "an id too large": ({"input_ids": IDS + 17}, "input_ids goes from 17 to 24; it must be within 0 to 22"),
    "an id below zero": ({"input_ids": IDS - 1}, "input_ids goes from -1 to 6"),
    "an empty sequence": ({"input_ids": IDS[:, :0]}, "length is 0"),
    "a sequence too long": ({"input_ids": torch.zeros(1, 13, dtype=torch.long)}, "has 13 positions; .* has 12"),
    "vectors of another width": ({"inputs_embeds": torch.zeros(2, 3, 6)}, r"must be \[batch, length, 5\]"),
    "vectors without a batch": ({"inputs_embeds": torch.zeros(3, 5)}, r"inputs_embeds has the shape \[3, 5\]"),
    "vectors of integers": ({"inputs_embeds": torch.zeros(2, 3, 5, dtype=torch.long)}, "give floating-point"),
    "segments of another shape": (
        {"input_ids": IDS, "token_type_ids": IDS[:1] * 0},
        r"token_type_ids has the shape \[1, 3\]; it must be \[2, 3\]",
    ),
    "a segment too many": ({"input_ids": IDS, "token_type_ids": IDS}, "token_type_ids goes from 0 to 7; .* 0 to 1"),
    "positions of another shape": ({"input_ids": IDS, "position_ids": IDS[:, :2]}, "position_ids has the shape"),
    "positions without axes": ({"input_ids": IDS, "position_ids": torch.tensor(0)}, "position_ids has the shape"),
    "a position too far": ({"input_ids": IDS, "position_ids": IDS + 6}, "position_ids goes from 6 to 13; .* 0 to 11"),
    "a mask of another length": (
        {"input_ids": IDS, "attention_mask": torch.ones(2, 4)},
        r"attention_mask has the shape \[2, 4\]; it must be \[2, 3\] or \[2, 3, 3\]",
    ),
    "a mask with an axis for heads": ({"input_ids": IDS, "attention_mask": torch.ones(2, 1, 3, 3)}, "attention_mask"),
    "a mask that is meant to be added": (
        {"input_ids": IDS, "attention_mask": torch.tensor([[0.0, 0.0, -1e9]] * 2)},
        "values other than 0 and 1; 1 keeps",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_input_is_refused(mistake: str, make_model: Callable[..., Any]) -> None:
    inputs, words = WRONG[mistake]
    model = make_model("mobilebert", **SIZES)
    with pytest.raises(InputError, match=words):
        model(**inputs)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"input_ids": IDS.numpy()}, "input_ids is of the type ndarray; give a PyTorch tensor"),
        ({"input_ids": IDS, "attention_mask": [[1, 1, 1]] * 2}, "attention_mask is of the type list; give a PyTorch"),
        ({"input_ids": {"input_ids": IDS}}, "input_ids is of the type dict; give its columns by name"),
    ],
)
def test_what_is_no_tensor_is_refused_by_name(
    inputs: dict[str, Any], words: str, make_model: Callable[..., Any]
) -> None:
    with pytest.raises(InputError, match=words):
        make_model("mobilebert", **SIZES)(**inputs)


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForTokenClassification"])
def test_labels_that_are_no_tensor_are_refused_by_name(head: str, make_model: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="labels is of the type list; give a PyTorch tensor"):
        make_model("mobilebert", head, **SIZES)(IDS, labels=[0, 1])


def test_what_is_just_legal_is_accepted(make_model: Callable[..., Any]) -> None:
    model = make_model("mobilebert", **SIZES)
    ids = torch.full((1, 12), 22)
    out = model(ids, token_type_ids=torch.ones_like(ids), position_ids=torch.arange(12)[None], attention_mask=ids > 0)
    assert out.last_hidden_state.shape[:2] == (1, 12)


CHOICES = torch.tensor([[[3, 4, 5], [6, 7, 0]]])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"input_ids": CHOICES[0]}, r"input_ids has the shape \[2, 3\]; a multiple-choice model's inputs begin with"),
        ({"input_ids": CHOICES, "attention_mask": CHOICES[0]}, r"attention_mask has the shape \[2, 3\]"),
        ({"input_ids": CHOICES, "token_type_ids": CHOICES[:, :1] * 0}, r"token_type_ids has the shape \[1, 1, 3\]"),
        ({"inputs_embeds": torch.zeros(2, 3, 5)}, r"inputs_embeds has the shape \[2, 3, 5\]"),
        ({}, "got neither"),
        ({"input_ids": CHOICES, "labels": torch.tensor([2])}, "labels holds 2; a label must be within 0 to 1"),
        ({"input_ids": CHOICES, "labels": torch.tensor([0, 1])}, r"labels has the shape \[2\]; it must be \[1\]"),
    ],
)
def test_multiple_choice_refuses_inputs_without_the_axis_of_choices(inputs: dict[str, Any], words: str) -> None:
    model = MobileBertForMultipleChoice(random_config("mobilebert", 0, **SIZES))
    with pytest.raises(InputError, match=words):
        model(**inputs)


def test_the_labels_of_the_next_sentence_are_given_once() -> None:
    model = MobileBertForNextSentencePrediction(random_config("mobilebert", 0, **SIZES))
    labels = torch.tensor([0, 1])
    with pytest.raises(InputError, match="Give the labels once"):
        model(IDS, labels=labels, next_sentence_label=labels)


def test_labels_are_refused_by_the_model_too() -> None:
    model = MobileBertForTokenClassification(random_config("mobilebert", 0, num_labels=3, **SIZES))
    with pytest.raises(InputError, match=r"labels has the shape \[2\]; it must be \[2, 3\]"):
        model(IDS, labels=torch.tensor([0, 1]))


def test_values_are_looked_at_only_where_that_is_cheap() -> None:
    assert values_are_cheap(IDS)
    assert not values_are_cheap(IDS.to("meta"))
    assert not values_are_cheap(IDS[:0])
