"""Checks of what a model is called with: one clear error instead of a crash deep inside, or of a wrong result.

Shapes and dtypes are always checked. Values are checked only where that is cheap: on the CPU, and not while a graph is
being traced; on an accelerator, looking at values would make the host wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..core.config import IGNORED_LABEL
from ..errors import InputError
from .cache import KeyValueCache

INTEGER_DTYPES = (torch.int32, torch.int64)


def check_inputs(
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    *,
    vocab_size: int,
    embedding_size: int,
    type_vocab_size: int,
    max_position_embeddings: int,
    past_key_values: KeyValueCache | None = None,
) -> tuple[int, int]:
    """Check an encoder's or a decoder's inputs and return their batch size and length.

    Raises:
        InputError: saying which argument is wrong, how, and what is legal.
    """
    check_tensors(attention_mask=attention_mask, token_type_ids=token_type_ids, position_ids=position_ids)
    batch, length = _check_tokens(input_ids, inputs_embeds, vocab_size, embedding_size)
    if position_ids is None:
        if length > max_position_embeddings:
            raise InputError(
                f"The sequence has {length} positions; this model has {max_position_embeddings} "
                "(max_position_embeddings). Truncate it, or split it into overlapping windows."
            )
    else:
        check_shape("position_ids", position_ids, (1 if position_ids.shape[:1] == (1,) else batch, length))
        check_ids("position_ids", position_ids, max_position_embeddings, "max_position_embeddings")
    if token_type_ids is not None:
        check_shape("token_type_ids", token_type_ids, (batch, length))
        check_ids("token_type_ids", token_type_ids, type_vocab_size, "type_vocab_size")
    if attention_mask is not None:
        _check_mask(attention_mask, batch, length, past_key_values)
    if past_key_values is not None:
        _check_room(past_key_values, batch, length)
    return batch, length


def _check_tokens(
    input_ids: Tensor | None, inputs_embeds: Tensor | None, vocab_size: int, embedding_size: int
) -> tuple[int, int]:
    check_tensors(input_ids=input_ids, inputs_embeds=inputs_embeds)
    if (input_ids is None) == (inputs_embeds is None):
        given = "neither" if input_ids is None else "both"
        raise InputError(f"Give either input_ids or inputs_embeds; the model got {given}.")
    if input_ids is not None:
        if input_ids.dim() != 2:
            raise InputError(f"input_ids has the shape {_shape(input_ids)}; it must be [batch, length].")
        check_ids("input_ids", input_ids, vocab_size, "vocab_size")
        batch, length = input_ids.shape
    else:
        assert inputs_embeds is not None
        if inputs_embeds.dim() != 3 or inputs_embeds.shape[-1] != embedding_size:
            raise InputError(
                f"inputs_embeds has the shape {_shape(inputs_embeds)}; it must be [batch, length, {embedding_size}], "
                "with the width embedding_size."
            )
        if not inputs_embeds.is_floating_point():
            raise InputError(f"inputs_embeds has dtype {inputs_embeds.dtype}; give floating-point vectors.")
        batch, length, _ = inputs_embeds.shape
    if length == 0:
        raise InputError("The sequences are empty: their length is 0.")
    return batch, length


def _check_mask(attention_mask: Tensor, batch: int, length: int, past: KeyValueCache | None) -> None:
    if past is not None:
        _check_mask_of_all(attention_mask, batch, length, past)
    elif tuple(attention_mask.shape) not in ((batch, length), (batch, length, length)):
        raise InputError(
            f"attention_mask has the shape {_shape(attention_mask)}; it must be [{batch}, {length}] "
            f"or [{batch}, {length}, {length}]."
        )
    if values_are_cheap(attention_mask) and not ((attention_mask == 0) | (attention_mask == 1)).all():
        raise InputError("attention_mask has values other than 0 and 1; 1 keeps a position and 0 masks it.")


def _check_mask_of_all(attention_mask: Tensor, batch: int, length: int, past: KeyValueCache) -> None:
    """Check a mask `[batch, at least length]` that comes with a cache."""
    columns = attention_mask.shape[-1]
    if attention_mask.dim() != 2 or attention_mask.shape[0] != batch or not length <= columns <= past.max_length:
        raise InputError(
            f"attention_mask has the shape {_shape(attention_mask)}; with past_key_values it must be "
            f"[{batch}, {length}] for the new positions, or [{batch}, up to {past.max_length}] for all from the first."
        )
    if columns > length and values_are_cheap(past.position) and columns < int(past.position) + length:
        raise InputError(
            f"attention_mask has the shape {_shape(attention_mask)}; there are {int(past.position)} positions in the "
            f"cache and {length} new ones, so it must tell of {length} or of {int(past.position) + length}."
        )


def _check_room(past: KeyValueCache, batch: int, length: int) -> None:
    if past.mask.shape[0] != batch:
        raise InputError(f"past_key_values is for {past.mask.shape[0]} rows; the inputs have {batch}.")
    if values_are_cheap(past.position) and int(past.position) + length > past.max_length:
        raise InputError(
            f"past_key_values has room for {past.max_length} positions; {int(past.position)} are filled, and {length} "
            "are to come. Make a larger one with new_cache(batch_size, max_length)."
        )


def check_cache(
    past_key_values: KeyValueCache | None, use_cache: bool | None, attention_mask: Tensor | None, *, is_decoder: bool
) -> None:
    """Raise `InputError` unless a cache can come in, and go out if it is asked for."""
    if past_key_values is not None and not isinstance(past_key_values, KeyValueCache):
        raise InputError(
            f"past_key_values is of the type {type(past_key_values).__name__}; give a KeyValueCache: of the model's "
            "new_cache(batch_size), or the past_key_values of an earlier output."
        )
    if (use_cache or past_key_values is not None) and not is_decoder:
        raise InputError("A cache is for a decoder: this model's config has is_decoder=False.")
    check_tensors(attention_mask=attention_mask)
    if use_cache and past_key_values is None and attention_mask is not None and attention_mask.dim() != 2:
        raise InputError(
            f"attention_mask has the shape {_shape(attention_mask)}; what a cache remembers is [batch, length]."
        )


def check_cache_size(batch_size: int, max_length: int | None, max_position_embeddings: int, is_decoder: bool) -> int:
    """Return how many positions a new cache is to have room for.

    Raises:
        InputError: the model is no decoder, or has no such number of positions.
    """
    size = max_position_embeddings if max_length is None else max_length
    if not is_decoder:
        raise InputError("A cache is for a decoder: this model's config has is_decoder=False.")
    if batch_size < 1 or not 1 <= size <= max_position_embeddings:
        raise InputError(
            f"A cache for {batch_size} rows of {size} positions was asked for; there must be a row at least, and 1 to "
            f"{max_position_embeddings} positions (max_position_embeddings)."
        )
    return size


def check_encoder_output(
    encoder_hidden_states: Tensor | None,
    encoder_attention_mask: Tensor | None,
    past_key_values: KeyValueCache | None,
    *,
    batch: int,
    width: int,
    add_cross_attention: bool,
) -> None:
    """Raise `InputError` unless what a decoder is to attend to has the right shape, and the decoder can."""
    check_tensors(encoder_hidden_states=encoder_hidden_states, encoder_attention_mask=encoder_attention_mask)
    if encoder_hidden_states is None and encoder_attention_mask is None:
        return
    if not add_cross_attention:
        raise InputError(
            "This model takes no encoder's output: its config has add_cross_attention=False. A decoder with "
            "cross-attention has is_decoder=True and add_cross_attention=True."
        )
    length: int | None = None
    if encoder_hidden_states is not None:
        if encoder_hidden_states.dim() != 3 or not encoder_hidden_states.is_floating_point():
            raise InputError(
                f"encoder_hidden_states is {encoder_hidden_states.dtype} {_shape(encoder_hidden_states)}; give "
                f"floating-point vectors [batch, encoder's length, {width}]."
            )
        length = encoder_hidden_states.shape[1]
        check_shape("encoder_hidden_states", encoder_hidden_states, (batch, length, width))
    held = None if past_key_values is None else past_key_values.layers[0].cross_key
    length = length if held is None else held.shape[2]
    if encoder_attention_mask is not None:
        if encoder_hidden_states is None and held is None:
            raise InputError("encoder_attention_mask is of no use without encoder_hidden_states.")
        check_shape("encoder_attention_mask", encoder_attention_mask, (batch, length or 0))


def check_choices(
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
    inputs_embeds: Tensor | None,
) -> int:
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
    check_tensors(**{name: values for name, (values, _) in ranks.items()})
    for name, (values, legal) in ranks.items():
        if values is not None and (values.dim() not in legal or tokens is None or values.shape[:2] != tokens.shape[:2]):
            raise InputError(
                f"{name} has the shape {_shape(values)}; a multiple-choice model's inputs begin with [batch, choices], "
                "so that input_ids is [batch, choices, length], and all alike."
            )
    return 1 if tokens is None else tokens.shape[1]


def check_tensors(**arguments: Tensor | None) -> None:
    """Raise `InputError` unless each argument is a tensor or None."""
    for name, values in arguments.items():
        if values is not None and not isinstance(values, Tensor):
            cure = (
                "give its columns by name, model(**batch)"
                if isinstance(values, Mapping)
                else 'give a PyTorch tensor, which a tokenizer returns with return_tensors="pt"'
            )
            raise InputError(f"{name} is of the type {type(values).__name__}; {cure}.")


def check_shape(name: str, values: Tensor, expected: Sequence[int], reason: str = "") -> None:
    """Raise `InputError` unless `values` has the expected shape."""
    if tuple(values.shape) != tuple(expected):
        raise InputError(f"{name} has the shape {_shape(values)}; it must be {list(expected)}{reason}.")


def check_ids(name: str, ids: Tensor, limit: int, limit_name: str) -> None:
    """Raise `InputError` unless `ids` are integers from 0 up to `limit`, exclusive."""
    if ids.dtype not in INTEGER_DTYPES:
        raise InputError(f"{name} has dtype {ids.dtype}; give integers (torch.int64 or torch.int32).")
    if values_are_cheap(ids):
        lowest, highest = ids.min().item(), ids.max().item()
        if lowest < 0 or highest >= limit:
            raise InputError(
                f"{name} goes from {lowest} to {highest}; it must be within 0 to {limit - 1} ({limit_name} is {limit})."
            )


def check_class_labels(name: str, labels: Tensor, num_classes: int) -> None:
    """Raise `InputError` unless `labels` are integers, each -100 or a class from 0 up to `num_classes`, exclusive."""
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"{name} has dtype {labels.dtype}; give integers that number the classes.")
    if values_are_cheap(labels):
        wrong = labels[((labels < 0) | (labels >= num_classes)) & (labels != IGNORED_LABEL)]
        if wrong.numel():
            raise InputError(
                f"{name} holds {wrong[0].item()}; a label must be within 0 to {num_classes - 1}, "
                f"or {IGNORED_LABEL} to be ignored."
            )


def values_are_cheap(values: Tensor) -> bool:
    """Whether a tensor's values can be looked at without breaking a graph or waiting for an accelerator."""
    return (
        values.device.type == "cpu"
        and values.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def _shape(values: Tensor) -> str:
    return str(list(values.shape))
