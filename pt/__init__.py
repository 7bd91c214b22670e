"""The models in PyTorch, and `optimize`, which makes them faster for inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .optimization import optimize as optimize


def __getattr__(name: str) -> Any:
    """Import `optimize` when it is first used: it needs all families."""
    if name != "optimize":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .optimization import optimize

    return optimize
