"""Checks of what a model is called with: one clear error instead of a crash deep inside, or of a wrong result.

Dtypes are always checked, and shapes as far as they are known: a dimension that is None fits any other. Values are
checked only where that is cheap: on the CPU, and not while a graph is being traced; on an accelerator, looking at
values would make the host wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from ..core.config import IGNORED_LABEL
from ..errors import InputError

INTEGER_DTYPES = ("int32", "int64")


def check_inputs(
    input_ids: Any,
    attention_mask: Any,
    token_type_ids: Any,
    position_ids: Any,
    inputs_embeds: Any,
    *,
    vocab_size: int,
    embedding_size: int,
    type_vocab_size: int,
    max_position_embeddings: int,
) -> tuple[Any, Any]:
    """Check an encoder's inputs and return their batch size and length, each an integer or a scalar tensor.

    Raises:
        InputError: saying which argument is wrong, how, and what is legal.
    """
    tokens = _check_tokens(input_ids, inputs_embeds, vocab_size, embedding_size)
    batch, length = tokens.shape[:2]
    if position_ids is None:
        if length is not None and length > max_position_embeddings:
            raise input_error(
                f"The sequence has {length} positions; this model has {max_position_embeddings} "
                "(max_position_embeddings). Truncate it, or split it into overlapping windows."
            )
    else:
        check_shape("position_ids", position_ids, (1 if tuple(position_ids.shape[:1]) == (1,) else batch, length))
        check_ids("position_ids", position_ids, max_position_embeddings, "max_position_embeddings")
    if token_type_ids is not None:
        check_shape("token_type_ids", token_type_ids, (batch, length))
        check_ids("token_type_ids", token_type_ids, type_vocab_size, "type_vocab_size")
    if attention_mask is not None:
        _check_mask(attention_mask, batch, length)
    return ops.shape(tokens)[:2]


def _check_tokens(input_ids: Any, inputs_embeds: Any, vocab_size: int, embedding_size: int) -> Any:
    if (input_ids is None) == (inputs_embeds is None):
        given = "neither" if input_ids is None else "both"
        raise input_error(f"Give either input_ids or inputs_embeds; the model got {given}.")
    if input_ids is not None:
        if len(input_ids.shape) != 2:
            raise input_error(f"input_ids has the shape {_shape(input_ids)}; it must be [batch, length].")
        check_ids("input_ids", input_ids, vocab_size, "vocab_size")
        tokens = input_ids
    else:
        if len(inputs_embeds.shape) != 3 or inputs_embeds.shape[-1] not in (embedding_size, None):
            raise input_error(
                f"inputs_embeds has the shape {_shape(inputs_embeds)}; it must be [batch, length, {embedding_size}], "
                "with the width embedding_size."
            )
        if not is_floating_point(inputs_embeds):
            raise input_error(f"inputs_embeds has dtype {_dtype(inputs_embeds)}; give floating-point vectors.")
        tokens = inputs_embeds
    if tokens.shape[1] == 0:
        raise input_error("The sequences are empty: their length is 0.")
    return tokens


def _check_mask(attention_mask: Any, batch: int | None, length: int | None) -> None:
    if not (_agree(attention_mask.shape, (batch, length)) or _agree(attention_mask.shape, (batch, length, length))):
        raise input_error(
            f"attention_mask has the shape {_shape(attention_mask)}; it must be [{batch}, {length}] "
            f"or [{batch}, {length}, {length}]."
        )
    if values_are_cheap(attention_mask):
        values = ops.convert_to_numpy(attention_mask)
        if not ((values == 0) | (values == 1)).all():
            raise input_error("attention_mask has values other than 0 and 1; 1 keeps a position and 0 masks it.")


def check_choices(
    input_ids: Any, attention_mask: Any, token_type_ids: Any, position_ids: Any, inputs_embeds: Any
) -> Any:
    """Check that a multiple-choice model's inputs have the axis of choices, and return the number of choices.

    Raises:
        InputError: an input lacks that axis, or differs from the others in it.
    """
    tokens = input_ids if inputs_embeds is None else inputs_embeds
    ranks = {
        "input_ids": (input_ids, (3,)),
        "attention_mask": (attention_mask, (3, 4)),
        "token_type_ids": (token_type_ids, (3,)),
        "position_ids": (position_ids, (3,)),
        "inputs_embeds": (inputs_embeds, (4,)),
    }
    for name, (values, legal) in ranks.items():
        if values is not None and (
            len(values.shape) not in legal or tokens is None or not _agree(values.shape[:2], tokens.shape[:2])
        ):
            raise input_error(
                f"{name} has the shape {_shape(values)}; a multiple-choice model's inputs begin with [batch, choices], "
                "so that input_ids is [batch, choices, length], and all alike."
            )
    return 1 if tokens is None else ops.shape(tokens)[1]


def check_tensors(**arguments: Any) -> None:
    """Raise `InputError` if an argument is a list or a text, where an array or a tensor belongs."""
    for name, values in arguments.items():
        if isinstance(values, list | tuple | str):
            raise input_error(
                f"{name} is of the type {type(values).__name__}; give an array or a tensor, which a tokenizer returns "
                'with return_tensors="np" or "tf".'
            )


def check_shape(name: str, values: Any, expected: Sequence[int | None], reason: str = "") -> None:
    """Raise `InputError` unless `values` has the expected shape, as far as both are known."""
    if not _agree(values.shape, expected):
        raise input_error(f"{name} has the shape {_shape(values)}; it must be {list(expected)}{reason}.")


def check_ids(name: str, ids: Any, limit: int, limit_name: str) -> None:
    """Raise `InputError` unless `ids` are integers from 0 up to `limit`, exclusive."""
    if _dtype(ids) not in INTEGER_DTYPES:
        raise input_error(f"{name} has dtype {_dtype(ids)}; give integers (int64 or int32).")
    if values_are_cheap(ids):
        values = ops.convert_to_numpy(ids)
        lowest, highest = values.min(), values.max()
        if lowest < 0 or highest >= limit:
            raise input_error(
                f"{name} goes from {lowest} to {highest}; it must be within 0 to {limit - 1} ({limit_name} is {limit})."
            )


def check_class_labels(name: str, labels: Any, num_classes: int) -> None:
    """Raise `InputError` unless `labels` are integers, each -100 or a class from 0 up to `num_classes`, exclusive."""
    if is_floating_point(labels) or _dtype(labels) == "bool":
        raise input_error(f"{name} has dtype {_dtype(labels)}; give integers that number the classes.")
    if values_are_cheap(labels):
        values = ops.convert_to_numpy(labels)
        wrong = values[((values < 0) | (values >= num_classes)) & (values != IGNORED_LABEL)]
        if wrong.size:
            raise input_error(
                f"{name} holds {wrong[0]}; a label must be within 0 to {num_classes - 1}, "
                f"or {IGNORED_LABEL} to be ignored."
            )


def values_are_cheap(values: Any) -> bool:
    """Whether a tensor's values can be looked at without breaking a graph or waiting for an accelerator."""
    if isinstance(values, keras.KerasTensor) or "cpu" not in str(getattr(values, "device", "")).lower():
        return False
    try:
        return bool(ops.convert_to_numpy(values).size > 0)
    except (TypeError, ValueError, NotImplementedError, AttributeError):  # a tensor of a graph that is being traced
        return False


def is_floating_point(values: Any) -> bool:
    """Whether a tensor holds floating-point numbers."""
    return bool(keras.backend.is_float_dtype(_dtype(values)))


def input_error(message: str) -> InputError:
    """Make an `InputError` that Keras hands on as it is, without wrapping the message in a list of all arguments."""
    error = InputError(message)
    error._keras_call_info_injected = True  # type: ignore[attr-defined]
    return error


def _agree(shape: Sequence[int | None], expected: Sequence[int | None]) -> bool:
    return len(shape) == len(expected) and all(
        actual is None or wanted is None or actual == wanted for actual, wanted in zip(shape, expected, strict=True)
    )


def _dtype(values: Any) -> str:
    return str(keras.backend.standardize_dtype(values.dtype))


def _shape(values: Any) -> str:
    return str(list(values.shape))
