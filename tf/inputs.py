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
from .cache import KeyValueCache

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
    past_key_values: KeyValueCache | None = None,
) -> tuple[Any, Any]:
    """Check an encoder's or a decoder's inputs and return batch size and length, each an integer or a scalar tensor.

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
        _check_mask(attention_mask, batch, length, past_key_values)
    if past_key_values is not None:
        _check_room(past_key_values, batch, length)
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


def _check_mask(attention_mask: Any, batch: int | None, length: int | None, past: KeyValueCache | None) -> None:
    if past is not None:
        _check_mask_of_all(attention_mask, batch, length, past)
    elif not (_agree(attention_mask.shape, (batch, length)) or _agree(attention_mask.shape, (batch, length, length))):
        raise input_error(
            f"attention_mask has the shape {_shape(attention_mask)}; it must be [{batch}, {length}] "
            f"or [{batch}, {length}, {length}]."
        )
    if values_are_cheap(attention_mask):
        values = ops.convert_to_numpy(attention_mask)
        if not ((values == 0) | (values == 1)).all():
            raise input_error("attention_mask has values other than 0 and 1; 1 keeps a position and 0 masks it.")


def _check_mask_of_all(attention_mask: Any, batch: int | None, length: Any, past: KeyValueCache) -> None:
    """Check a mask `[batch, at least length]` that comes with a cache."""
    columns = attention_mask.shape[-1]
    is_legal = _agree(attention_mask.shape, (batch, None)) and (
        None in (columns, length) or length <= columns <= past.max_length
    )
    if not is_legal:
        raise input_error(
            f"attention_mask has the shape {_shape(attention_mask)}; with past_key_values it must be "
            f"[{batch}, {length}] for the new positions, or [{batch}, up to {past.max_length}] for all from the first."
        )
    if None in (columns, length) or columns == length or not values_are_cheap(past.position):
        return
    if columns < int(past.position) + length:
        raise input_error(
            f"attention_mask has the shape {_shape(attention_mask)}; there are {int(past.position)} positions in the "
            f"cache and {length} new ones, so it must tell of {length} or of {int(past.position) + length}."
        )


def _check_room(past: KeyValueCache, batch: int | None, length: int | None) -> None:
    if not _agree(past.mask.shape, (batch, None)):
        raise input_error(f"past_key_values is for {past.mask.shape[0]} rows; the inputs have {batch}.")
    if length is not None and values_are_cheap(past.position) and int(past.position) + length > past.max_length:
        raise input_error(
            f"past_key_values has room for {past.max_length} positions; {int(past.position)} are filled, and {length} "
            "are to come. Make a larger one with new_cache(batch_size, max_length)."
        )


def check_cache(
    past_key_values: KeyValueCache | None, use_cache: bool | None, attention_mask: Any, *, is_decoder: bool
) -> None:
    """Raise `InputError` unless a cache can come in, and go out if it is asked for."""
    if past_key_values is not None and not isinstance(past_key_values, KeyValueCache):
        raise input_error(
            f"past_key_values is of the type {type(past_key_values).__name__}; give a KeyValueCache: of the model's "
            "new_cache(batch_size), or the past_key_values of an earlier output."
        )
    if (use_cache or past_key_values is not None) and not is_decoder:
        raise input_error("A cache is for a decoder: this model's config has is_decoder=False.")
    check_tensors(attention_mask=attention_mask)
    if use_cache and past_key_values is None and attention_mask is not None and len(attention_mask.shape) != 2:
        raise input_error(
            f"attention_mask has the shape {_shape(attention_mask)}; what a cache remembers is [batch, length]."
        )


def check_cache_size(batch_size: int, max_length: int | None, max_position_embeddings: int, is_decoder: bool) -> int:
    """Return how many positions a new cache is to have room for.

    Raises:
        InputError: the model is no decoder, or has no such number of positions.
    """
    size = max_position_embeddings if max_length is None else max_length
    if not is_decoder:
        raise input_error("A cache is for a decoder: this model's config has is_decoder=False.")
    if batch_size < 1 or not 1 <= size <= max_position_embeddings:
        raise input_error(
            f"A cache for {batch_size} rows of {size} positions was asked for; there must be a row at least, and 1 to "
            f"{max_position_embeddings} positions (max_position_embeddings)."
        )
    return size


def check_encoder_output(
    encoder_hidden_states: Any,
    encoder_attention_mask: Any,
    past_key_values: KeyValueCache | None,
    *,
    batch: Any,
    width: int,
    add_cross_attention: bool,
) -> None:
    """Raise `InputError` unless what a decoder is to attend to has the right shape, and the decoder can."""
    check_tensors(encoder_hidden_states=encoder_hidden_states, encoder_attention_mask=encoder_attention_mask)
    if encoder_hidden_states is None and encoder_attention_mask is None:
        return
    if not add_cross_attention:
        raise input_error(
            "This model takes no encoder's output: its config has add_cross_attention=False. A decoder with "
            "cross-attention has is_decoder=True and add_cross_attention=True."
        )
    length: int | None = None
    if encoder_hidden_states is not None:
        if len(encoder_hidden_states.shape) != 3 or not is_floating_point(encoder_hidden_states):
            raise input_error(
                f"encoder_hidden_states is {_dtype(encoder_hidden_states)} {_shape(encoder_hidden_states)}; give "
                f"floating-point vectors [batch, encoder's length, {width}]."
            )
        length = encoder_hidden_states.shape[1]
        check_shape("encoder_hidden_states", encoder_hidden_states, (_known(batch), length, width))
    held = None if past_key_values is None else past_key_values.layers[0].cross_key
    length = length if held is None else held.shape[2]
    if encoder_attention_mask is not None:
        if encoder_hidden_states is None and held is None:
            raise input_error("encoder_attention_mask is of no use without encoder_hidden_states.")
        check_shape("encoder_attention_mask", encoder_attention_mask, (_known(batch), length))


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
        # A cache is a tuple of tensors with names.
        if isinstance(values, list | tuple | str) and not isinstance(values, KeyValueCache):
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


def _known(size: Any) -> int | None:
    """Return a size unless it is a tensor, which only a running graph knows."""
    return size if isinstance(size, int) else None


def _agree(shape: Sequence[int | None], expected: Sequence[int | None]) -> bool:
    return len(shape) == len(expected) and all(
        actual is None or wanted is None or actual == wanted for actual, wanted in zip(shape, expected, strict=True)
    )


def _dtype(values: Any) -> str:
    return str(keras.backend.standardize_dtype(values.dtype))


def _shape(values: Any) -> str:
    return str(list(values.shape))
