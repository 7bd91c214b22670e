"""How arrays lie in other forms than the Hub's, and turning one into the other."""

from __future__ import annotations

from typing import Any, Literal

Layout = Literal["same", "reversed", "grouped", "depthwise", "column"]
"""How an array of another form lies relative to the Hub's: alike; with its axes in reverse; as `[groups, in, out]`
where the Hub has a grouped convolution's `[groups * out, in, 1]`; as `[kernel, in, 1]` where the Hub has a depthwise
convolution's `[in, 1, kernel]`; or as `[width]` where the Hub has a column, `[width, 1]`."""


def to_hub(array: Any, layout: Layout) -> Any:
    """Turn an array from the Keras layout to the Hub's; a view where that is possible.

    Example:
        >>> import numpy as np
        >>> to_hub(np.zeros((3, 5)), "reversed").shape
        (5, 3)
        >>> to_hub(np.zeros((4, 3, 5)), "grouped").shape
        (20, 3, 1)
    """
    if layout == "grouped":
        return array.transpose(0, 2, 1).reshape(hub_shape(array.shape, layout))
    if layout == "depthwise":
        return array.transpose(1, 2, 0)
    if layout == "column":
        return array[:, None]
    return array.T if layout == "reversed" else array


def from_hub(array: Any, layout: Layout, shape: tuple[int, ...]) -> Any:
    """Turn an array from the Hub's layout to the Keras one, of this shape; a view.

    Example:
        >>> import numpy as np
        >>> from_hub(np.zeros((20, 3, 1)), "grouped", (4, 3, 5)).shape
        (4, 3, 5)
    """
    if layout == "grouped":
        groups, width_in, width_out = shape
        return array.reshape(groups, width_out, width_in).transpose(0, 2, 1)
    if layout == "depthwise":
        return array.transpose(2, 0, 1)
    if layout == "column":
        return array[:, 0]
    return array.T if layout == "reversed" else array


def hub_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """Return the shape that `to_hub` gives an array of this shape."""
    if layout == "grouped":
        groups, width_in, width_out = shape
        return groups * width_out, width_in, 1
    if layout == "depthwise":
        kernel, width_in, one = shape
        return width_in, one, kernel
    if layout == "column":
        return (*shape, 1)
    return tuple(reversed(shape)) if layout == "reversed" else tuple(shape)


def foreign_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """Return the shape that `from_hub` gives an array of this shape on the Hub.

    The number of groups of a "grouped" array cannot be told from it.

    Example:
        >>> foreign_shape((16, 1, 9), "depthwise"), foreign_shape((8, 1), "column")
        ((9, 16, 1), (8,))
    """
    if layout == "depthwise":
        width_in, one, kernel = shape
        return kernel, width_in, one
    if layout == "column":
        return shape[:-1]
    return tuple(reversed(shape)) if layout == "reversed" else tuple(shape)
