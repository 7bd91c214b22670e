"""Relative errors, computed apart from `isobert.conversion.verify`, which is itself under test."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

TOLERANCES = {"float32": 1e-5, "float64": 1e-10}


def relative_errors(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return max|found - expected| over max|expected| of each tensor, the worst first; inf where one is lacking."""
    return _worst_first({name: _error(found.get(name), value, _size(value)) for name, value in expected.items()})


def gradient_errors(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Like `relative_errors`, but measured by the largest gradient of the same module.

    A key's bias has a gradient of exactly zero, for the softmax does not see a shift: what is computed is rounding, and
    has no size of its own to be measured by. The same is true of a classifier's bias under a softmax over choices.
    """
    sizes: dict[str, float] = {}
    for name, value in expected.items():
        module = name.rpartition(".")[0]
        sizes[module] = max(sizes.get(module, 0.0), _size(value))
    return _worst_first(
        {name: _error(found.get(name), value, sizes[name.rpartition(".")[0]]) for name, value in expected.items()}
    )


def assert_close(errors: Mapping[str, float], tolerance: float) -> None:
    """Fail, naming the worst, unless there are errors to look at and all are within the tolerance."""
    assert errors
    # "not within" rather than "above": a NaN is within nothing.
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    listed = "\n".join(f"  {name}: {error:.2e}" for name, error in list(wrong.items())[:20])
    assert not wrong, f"{len(wrong)} of {len(errors)} tensors differ by more than {tolerance:.0e}:\n{listed}"


def _error(found: np.ndarray | None, expected: np.ndarray, size: float) -> float:
    if found is None or np.shape(found) != np.shape(expected):
        return float("inf")
    # In float64, so that the comparison itself adds no rounding.
    difference = np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max(initial=0.0)
    return float(difference / size) if size else float(difference)


def _size(value: np.ndarray) -> float:
    return float(np.abs(np.asarray(value, np.float64)).max(initial=0.0))


def _worst_first(errors: dict[str, float]) -> dict[str, float]:
    return dict(sorted(errors.items(), key=lambda item: -item[1]))
