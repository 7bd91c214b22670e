"""A wrong argument is answered with one error that says what is wrong and what is legal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from isobert import (
    TFMobileBertForMultipleChoice,
    TFMobileBertForNextSentencePrediction,
    TFMobileBertForTokenClassification,
    TFMobileBertModel,
)
from isobert.errors import InputError
from isobert.tf.inputs import values_are_cheap
from support.configs import random_config

IDS = np.array([[3, 4, 5], [6, 7, 0]])
SIZES = {"vocab_size": 23, "embedding_size": 5, "type_vocab_size": 2, "max_position_embeddings": 12}

WRONG = {
    "neither ids nor vectors": ({}, "got neither"),
    "both ids and vectors": ({"input_ids": IDS, "inputs_embeds": np.zeros((2, 3, 5))}, "got both"),
    "ids without a batch": ({"input_ids": IDS[0]}, r"input_ids has the shape \[3\]; it must be \[batch, length\]"),
    "ids of too high rank": ({"input_ids": IDS[None]}, r"shape \[1, 2, 3\]"),
    "ids that are no integers": ({"input_ids": IDS / 1}, "input_ids has dtype float64; give integers"),
    "an id too large": ({"input_ids": IDS + 17}, "input_ids goes from 17 to 24; it must be within 0 to 22"),
    "an id below zero": ({"input_ids": IDS - 1}, "input_ids goes from -1 to 6"),
    "an empty sequence": ({"input_ids": IDS[:, :0]}, "length is 0"),
    "a sequence too long": ({"input_ids": np.zeros((1, 13), int)}, "has 13 positions; .* has 12"),
    "vectors of another width": ({"inputs_embeds": np.zeros((2, 3, 6))}, r"must be \[batch, length, 5\]"),
    "vectors without a batch": ({"inputs_embeds": np.zeros((3, 5))}, r"inputs_embeds has the shape \[3, 5\]"),
    "vectors of integers": ({"inputs_embeds": np.zeros((2, 3, 5), int)}, "give floating-point"),
    "segments of another shape": (
        {"input_ids": IDS, "token_type_ids": IDS[:1] * 0},
        r"token_type_ids has the shape \[1, 3\]; it must be \[2, 3\]",
    ),
    "a segment too many": ({"input_ids": IDS, "token_type_ids": IDS}, "token_type_ids goes from 0 to 7; .* 0 to 1"),
    "positions of another shape": ({"input_ids": IDS, "position_ids": IDS[:, :2]}, "position_ids has the shape"),
    "positions without axes": ({"input_ids": IDS, "position_ids": np.array(0)}, "position_ids has the shape"),
    "a position too far": ({"input_ids": IDS, "position_ids": IDS + 6}, "position_ids goes from 6 to 13; .* 0 to 11"),
    "a mask of another length": (
        {"input_ids": IDS, "attention_mask": np.ones((2, 4))},
        r"attention_mask has the shape \[2, 4\]; it must be \[2, 3\] or \[2, 3, 3\]",
    ),
    "a mask with an axis for heads": ({"input_ids": IDS, "attention_mask": np.ones((2, 1, 3, 3))}, "attention_mask"),
    "a mask that is meant to be added": (
        {"input_ids": IDS, "attention_mask": np.array([[0.0, 0.0, -1e9]] * 2)},
        "values other than 0 and 1; 1 keeps",
    ),
    "ids in a list": ({"input_ids": IDS.tolist()}, "input_ids is of the type list; give an array or a tensor"),
    "a text in place of ids": ({"input_ids": "a text"}, "input_ids is of the type str; give an array"),
    "a mask in a list": ({"input_ids": IDS, "attention_mask": [[1, 1, 1]] * 2}, "attention_mask is of the type list"),
    "a name that is no input's": ({"input_ids": IDS, "mask": IDS}, "takes no input 'mask'; it takes input_ids, att"),
}


@pytest.fixture(scope="module")
def model() -> Any:
    return TFMobileBertModel(random_config("mobilebert", 0, **SIZES))


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_input_is_refused_whether_given_by_name_or_in_a_dict(mistake: str, model: Any) -> None:
    inputs, words = WRONG[mistake]
    for call in (lambda: model(**inputs), lambda: model(inputs)):
        with pytest.raises(InputError, match=words) as raised:
            call()
        # Keras would have put the message in bold, between the names of its own functions and all arguments.
        assert "Arguments received" not in str(raised.value)


def test_what_is_just_legal_is_accepted(model: Any) -> None:
    ids = np.full((1, 12), 22)
    out = model(ids, token_type_ids=np.ones_like(ids), position_ids=np.arange(12)[None], attention_mask=ids > 0)
    assert out.last_hidden_state.shape[:2] == (1, 12)


def test_further_arguments_after_a_dict_are_given_by_name(model: Any) -> None:
    assert model({"input_ids": IDS}, output_attentions=True).attentions is not None
    with pytest.raises(InputError, match="After a mapping"):
        model({"input_ids": IDS}, IDS)


def test_a_graph_refuses_what_it_can_see_of_a_wrong_shape(model: Any) -> None:
    # AutoGraph would raise a class of its own in place of any but Python's; Keras's `fit` and `predict` do not use it.
    traced = tf.function(model, autograph=False)
    with pytest.raises(InputError, match="input_ids has dtype float32"):
        traced(tf.ones((2, 3)))
    with pytest.raises(InputError, match=r"attention_mask has the shape \[None, 4\]; it must be \[None, 3\]"):
        model({"input_ids": keras.Input((3,), dtype="int32"), "attention_mask": keras.Input((4,))})


CHOICES = np.array([[[3, 4, 5], [6, 7, 0]]])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"input_ids": CHOICES[0]}, r"input_ids has the shape \[2, 3\]; a multiple-choice model's inputs begin with"),
        ({"input_ids": CHOICES, "attention_mask": CHOICES[0]}, r"attention_mask has the shape \[2, 3\]"),
        ({"input_ids": CHOICES, "token_type_ids": CHOICES[:, :1] * 0}, r"token_type_ids has the shape \[1, 1, 3\]"),
        ({"inputs_embeds": np.zeros((2, 3, 5))}, r"inputs_embeds has the shape \[2, 3, 5\]"),
        ({}, "got neither"),
        ({"input_ids": CHOICES, "labels": np.array([2])}, "labels holds 2; a label must be within 0 to 1"),
        ({"input_ids": CHOICES, "labels": np.array([0, 1])}, r"labels has the shape \[2\]; it must be \[1\]"),
    ],
)
def test_multiple_choice_refuses_inputs_without_the_axis_of_choices(inputs: dict[str, Any], words: str) -> None:
    model = TFMobileBertForMultipleChoice(random_config("mobilebert", 0, num_hidden_layers=1, **SIZES))
    with pytest.raises(InputError, match=words):
        model(inputs)


def test_the_labels_of_the_next_sentence_are_given_once() -> None:
    model = TFMobileBertForNextSentencePrediction(random_config("mobilebert", 0, num_hidden_layers=1, **SIZES))
    labels = np.array([0, 1])
    with pytest.raises(InputError, match="Give the labels once"):
        model(IDS, labels=labels, next_sentence_label=labels)


def test_labels_are_refused_by_the_model_too() -> None:
    model = TFMobileBertForTokenClassification(random_config("mobilebert", 0, num_labels=3, **SIZES))
    with pytest.raises(InputError, match=r"labels has the shape \[2\]; it must be \[2, 3\]"):
        model(IDS, labels=np.array([0, 1]))


def test_values_are_looked_at_only_where_that_is_cheap(make_model: Callable[..., Any]) -> None:
    seen = []
    tf.function(lambda ids: seen.append(values_are_cheap(ids)) or ids)(tf.constant(IDS))
    assert seen == [False]
    assert values_are_cheap(tf.constant(IDS))
    assert not values_are_cheap(tf.constant(IDS[:0]))
    assert not values_are_cheap(keras.Input((3,), dtype="int32"))
