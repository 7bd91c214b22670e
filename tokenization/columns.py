"""The columns of a call, built straight from its rows.

Rows come without padding. A column is filled up as it is made, and an array is made without nested lists in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np

from .arguments import Padding

_ATTRIBUTES = {
    "input_ids": "ids",
    "token_type_ids": "type_ids",
    "attention_mask": "attention_mask",
    "special_tokens_mask": "special_tokens_mask",
    "offset_mapping": "offsets",
}


def columns_of(
    rows: Sequence[Any], names: Iterable[str], pairs: bool, padding: Padding | None, tensor_type: str | None
) -> dict[str, Any]:
    """Return the columns that are asked for.

    Args:
        rows: encodings without padding, `tokenizers`' or ours.
        names: the columns' names, of `_ATTRIBUTES`.
        pairs: whether any row is of two texts; if none is, token type ids are 0 without looking.
        padding: how rows are filled up to its `length`; None leaves them as they are.
        tensor_type: the kind of tensors that the columns are to become; None for lists.

    Returns:
        For a kind of tensors, arrays `[rows, length]` of int64 ("np", "pt") or int32 ("tf"), offsets
        `[rows, length, 2]`; lists for None, and where the rows have no entries or make no array.
    """
    wanted = 0 if padding is None or padding.length is None else padding.length
    fills: dict[str, Any] = {"attention_mask": 0, "special_tokens_mask": 1, "offset_mapping": (0, 0)}
    if padding is not None:
        fills |= {"input_ids": padding.token_id, "token_type_ids": padding.type_id}
    left = padding is not None and padding.side == "left"
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    longest = int(lengths.max(initial=0))
    width = max(longest, wanted)
    ragged = longest > wanted and bool((lengths < longest).any())
    if tensor_type is None or not rows or width == 0 or ragged:
        return {name: list(_lists(rows, name, fills.get(name), wanted, left)) for name in names}
    places = np.arange(width) < lengths[:, None]
    places = places[:, ::-1] if left else places
    kind = np.int32 if tensor_type == "tf" else np.int64
    known = {"attention_mask": 1} if pairs else {"attention_mask": 1, "token_type_ids": 0}
    return {
        name: np.where(places, kind(known[name]), kind(fills.get(name, 0)))
        if name in known
        else _array(rows, name, fills.get(name), places, kind)
        for name in names
    }


def _array(rows: Sequence[Any], name: str, fill: Any, places: np.ndarray, kind: type[np.integer[Any]]) -> np.ndarray:
    """Return a column with the rows' entries where `places` says so, and elsewhere what fills them up."""
    entries: Iterator[Any] = chain.from_iterable(map(attrgetter(_ATTRIBUTES[name]), rows))
    inner: tuple[int, ...] = ()
    if name == "offset_mapping":
        entries, inner = chain.from_iterable(entries), (2,)
    values = np.fromiter(entries, kind).reshape(-1, *inner)
    if len(values) == places.size:
        return values.reshape(*places.shape, *inner)
    array = np.empty((*places.shape, *inner), kind)
    array[...] = fill
    array[places] = values
    return array


def _lists(rows: Sequence[Any], name: str, fill: Any, length: int, left: bool) -> Iterator[list[Any]]:
    for row in map(attrgetter(_ATTRIBUTES[name]), rows):
        filling = [fill] * (length - len(row))
        yield (filling + row if left else row + filling) if filling else row
