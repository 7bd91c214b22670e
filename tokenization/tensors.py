"""Columns as NumPy arrays, PyTorch tensors or TensorFlow tensors; the frameworks are imported when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ..errors import MissingDependencyError, TokenizerError

_FRAMEWORKS = {"pt": ("torch", "pt"), "tf": ("tensorflow", "tf")}


def check_tensor_type(tensor_type: Any) -> str | None:
    """Return the kind of tensors asked for, None for lists."""
    kind = getattr(tensor_type, "value", tensor_type)
    if kind not in (None, "np", "pt", "tf"):
        raise TokenizerError(f"return_tensors is {tensor_type!r}; it must be 'np', 'pt', 'tf' or None.")
    return None if kind is None else str(kind)


def to_tensor(name: str, column: Any, tensor_type: str) -> Any:
    """Return a column as a tensor: whole numbers as int64 ("np", "pt") or int32 ("tf").

    Raises:
        TokenizerError: the column's rows differ in length, or hold something other than numbers.
        MissingDependencyError: the framework is not installed.
    """
    kind = check_tensor_type(tensor_type)
    framework = _framework(kind) if kind in _FRAMEWORKS else None
    array = _array(name, column)
    if kind == "np" or framework is None:
        return array
    if kind == "pt":
        return framework.as_tensor(array)
    return framework.constant(array.astype(np.int32) if array.dtype == np.int64 else array)


def _framework(kind: str) -> Any:
    module, extra = _FRAMEWORKS[kind]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"return_tensors={kind!r} needs {module}, which is not installed: pip install 'isobert[{extra}]'."
        ) from error


def _array(name: str, column: Any) -> np.ndarray[Any, Any]:
    if isinstance(column, np.ndarray):
        return column
    if _is_foreign(column):
        return np.asarray(column)
    if isinstance(column, list | tuple) and column and _is_foreign(column[0]):
        column = [np.asarray(item) for item in column]
    try:
        array = np.array(column)
    except ValueError as error:
        raise TokenizerError(_ragged(name, column)) from error
    if array.dtype.kind not in "biuf":
        raise TokenizerError(
            f"{name} cannot become a tensor: it holds {array.dtype.name} values. Leave it out, or leave return_tensors "
            "out."
        )
    return array.astype(np.int64) if array.dtype.kind in "iu" or array.size == 0 else array


def _is_foreign(value: Any) -> bool:
    return hasattr(value, "__array__") and not np.isscalar(value)


def _ragged(name: str, column: Any) -> str:
    lengths = sorted({len(row) for row in column if hasattr(row, "__len__")})
    return (
        f"{name} cannot become one tensor: its rows have {', '.join(map(str, lengths[:8]))} entries. Pass "
        "padding=True, and truncation=True with max_length if rows may be too long."
    )


def to_list(value: Any) -> Any:
    """Return arrays and tensors of any framework as (nested) lists; lists of them too."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "numpy"):
        return value.numpy().tolist()
    if isinstance(value, list | tuple):
        return [to_list(item) for item in value]
    return value
