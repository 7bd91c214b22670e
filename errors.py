"""The exceptions of the library: each also subclasses the built-in that fits.

Every message says what was wrong, where, and what to do about it.
"""

from typing import TYPE_CHECKING


class IsobertError(Exception):
    """Base of every exception that `isobert` raises on purpose."""

    if not TYPE_CHECKING:
        # TensorFlow's AutoGraph raises an exception again with its class kept only if it has this very constructor.
        __init__ = Exception.__init__


class ConfigError(IsobertError, ValueError):
    """A config field, or a combination of fields, is not legal."""


class InputError(IsobertError, ValueError):
    """An argument has the wrong shape, dtype, range or length."""


class OptimizedModelError(IsobertError, RuntimeError):
    """An optimized model is asked for what its original alone can do, or a model cannot be optimized."""


class TokenizerError(IsobertError, ValueError):
    """A tokenizer's files or arguments are wrong."""


class CheckpointError(IsobertError, ValueError):
    """A checkpoint is damaged, or its tensors do not fit the model."""


class CheckpointNotFoundError(IsobertError, FileNotFoundError):
    """A folder, file or Hub name holds nothing that could be opened."""


class MissingDependencyError(IsobertError, ImportError):
    """An optional dependency is needed and not installed."""


class UnknownNameError(IsobertError, KeyError):
    """A family, size or head of this name is not known."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; a sentence should read as one.
        return str(self.args[0]) if self.args else ""
