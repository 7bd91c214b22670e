"""RemBERT, ConvBERT, MobileBERT and SqueezeBERT for PyTorch and for TensorFlow/Keras 3, from one checkpoint.

Every public class is an attribute of this package and is imported when it is first asked for, so `import isobert`
loads no framework. A class whose name begins with `TF` is a Keras model; its twin without `TF` is a PyTorch module.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def _modules_by_name() -> dict[str, str]:
    from .core.registry import public_names

    return dict(public_names())


def __getattr__(name: str) -> Any:
    from .core.registry import import_part

    if name.startswith("_"):
        raise AttributeError(name)
    if name in ("errors", "core", "tokenization", "conversion", "pt", "tf", "cli"):
        return import_part(f".{name}")
    module_name = _modules_by_name().get(name)
    if module_name is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_part(module_name, needed_by=name), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_modules_by_name()])
