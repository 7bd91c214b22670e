"""The models in PyTorch; `optimize`, which makes them faster for inference, and `quantize`, in 8-bit integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .optimization import optimize as optimize
    from .quantization import quantize as quantize


def __getattr__(name: str) -> Any:
    """Import `optimize` and `quantize` when they are first used: they need all families."""
    if name == "optimize":
        from .optimization import optimize

        return optimize
    if name == "quantize":
        from .quantization import quantize

        return quantize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
