"""The forms in which a checkpoint's tensors lie on disk, one module each, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import UnknownNameError
from . import safetensors, torch_bin
from .base import LazyTensor, TensorFile, TensorLike


@dataclass(frozen=True)
class Form:
    """One form of a checkpoint.

    Attributes:
        name: what `--to` calls it.
        file_name: the file of an unsharded checkpoint; shards and the index are named after it.
        open: opens one file.
        write: writes tensors into one file, with a few words of metadata where the form holds them.
    """

    name: str
    file_name: str
    open: Callable[[Path], TensorFile]
    write: Callable[[Path, Mapping[str, TensorLike], Mapping[str, str]], None]

    @property
    def index_name(self) -> str:
        """The file that says which shard holds a tensor."""
        return f"{self.file_name}.index.json"

    def shard_name(self, number: int, count: int) -> str:
        """Return the name of a shard, numbered from 1.

        Example:
            >>> FORMS["safetensors"].shard_name(1, 3)
            'model-00001-of-00003.safetensors'
        """
        stem, _, suffix = self.file_name.rpartition(".")
        return f"{stem}-{number:05d}-of-{count:05d}.{suffix}"


# In the order of preference: a folder that holds several forms is opened in the first of them.
FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form("safetensors", "model.safetensors", safetensors.SafetensorsFile, safetensors.write),
        Form("torch-bin", "pytorch_model.bin", torch_bin.TorchBinFile, torch_bin.write),
    )
}


def form_of(name: str) -> Form:
    """Return a form by its name.

    Raises:
        UnknownNameError: no form is called so.
    """
    try:
        return FORMS[name]
    except KeyError:
        raise UnknownNameError(
            f"no checkpoint form is called {name!r}; known: {', '.join(map(repr, FORMS))}."
        ) from None


__all__ = ["FORMS", "Form", "LazyTensor", "TensorFile", "TensorLike", "form_of"]
