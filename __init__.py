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
    from importlib import import_module

    if name.startswith("_"):
        raise AttributeError(name)
    if name in ("errors", "core", "tokenization", "conversion", "pt", "tf", "cli"):
        return import_module(f".{name}", __name__)
    module_name = _modules_by_name().get(name)
    if module_name is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_public(module_name, name), name)
    globals()[name] = value
    return value


def _import_public(module_name: str, name: str) -> Any:
    """Import a module of the package, turning a missing framework into an error that names the extra to install."""
    from importlib import import_module

    try:
        return import_module(module_name, __name__)
    except ModuleNotFoundError as error:
        extra = {"torch": "pt", "tensorflow": "tf", "keras": "tf"}.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        from .errors import MissingDependencyError

        raise MissingDependencyError(
            f"{name} needs {error.name}, which is not installed: pip install 'isobert[{extra}]'."
        ) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *_modules_by_name()])
