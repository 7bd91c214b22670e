"""The forms in which a checkpoint's tensors lie on disk, one module each, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import UnknownNameError
from . import keras, keras_weights, safetensors, tf1, torch_bin, transformers_h5
from .base import About, LazyTensor, TensorFile, TensorLike

Write = Callable[[Path, Mapping[str, TensorLike], About], None]


@dataclass(frozen=True)
class Form:
    """One form of a checkpoint.

    Attributes:
        name: what `--to` calls it.
        file_name: the file of an unsharded checkpoint; shards and the index are named after it. Empty where the form's
            files have no fixed name.
        recognises: says by a look at its content whether a file is of this form.
        open: opens one file.
        write: writes tensors into one file; None if the form is read only.
        is_native: whether tensors have the Hub's names and layout. Only then may a checkpoint be written in shards.
        open_shards: opens all shards of a foreign form as one, given their index, what it says (a shard by a tensor),
            and each shard's path.
        find: returns the file to open in a folder, for a form whose files have no fixed name.
    """

    name: str
    file_name: str
    recognises: Callable[[Path], bool]
    open: Callable[[Path], TensorFile]
    write: Write | None
    is_native: bool = False
    open_shards: Callable[[Path, Mapping[str, str], Mapping[str, Path]], TensorFile] | None = None
    find: Callable[[Path], Path | None] | None = None

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
        Form(
            "safetensors",
            "model.safetensors",
            safetensors.recognises,
            safetensors.SafetensorsFile,
            safetensors.write,
            is_native=True,
        ),
        Form(
            "torch-bin",
            "pytorch_model.bin",
            torch_bin.recognises,
            torch_bin.TorchBinFile,
            torch_bin.write,
            is_native=True,
        ),
        Form(
            "transformers-h5",
            "tf_model.h5",
            transformers_h5.recognises,
            transformers_h5.open_h5,
            transformers_h5.write,
            open_shards=transformers_h5.open_shards,
        ),
        Form("keras", "model.keras", keras.recognises, keras.KerasFile, keras.write),
        Form(
            "keras-weights",
            "model.weights.h5",
            keras_weights.recognises,
            keras_weights.open_weights,
            keras_weights.write,
        ),
        Form("tf1", "", tf1.recognises, tf1.Tf1File, write=None, find=tf1.find),
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


def writable_forms() -> tuple[str, ...]:
    """Return the names of the forms that can be written."""
    return tuple(form.name for form in FORMS.values() if form.write is not None)


def recognised(path: Path) -> Form | None:
    """Return the form of a file, told by its content; None if it is of no form that is known here."""
    return next((form for form in FORMS.values() if form.recognises(path)), None)


__all__ = [
    "FORMS",
    "About",
    "Form",
    "LazyTensor",
    "TensorFile",
    "TensorLike",
    "form_of",
    "recognised",
    "writable_forms",
]
