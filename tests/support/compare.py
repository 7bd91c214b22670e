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
    Where a position sees one key alone, that of queries and keys is zero too: if it is, but for rounding, beside that
    of their attention, it is measured by that.
    """
    sizes: dict[str, float] = {}
    for name, value in expected.items():
        module = name.rpartition(".")[0]
        for holder in (module, _attention(module)):
            sizes[holder] = max(sizes.get(holder, 0.0), _size(value))
    measures = {}
    for name in expected:
        module = name.rpartition(".")[0]
        own, whole = sizes[module], sizes[_attention(module)]
        measures[name] = whole if own < 1e-14 * whole else own
    return _worst_first({name: _error(found.get(name), value, measures[name]) for name, value in expected.items()})


def _attention(module: str) -> str:
    """Return the attention that a map to queries, keys or values belongs to; any other module is its own."""
    owner, _, last = module.rpartition(".")
    return owner if last in ("query", "key", "value") else module


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
