"""The `.keras` form of Keras 3, for this library's own models: an archive of a config and a file of weights.

The archive keeps a checksum of each of its members, which `check` holds the weights to. Members are stored as they are,
so that weights are read in place, one tensor at a time.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from ...core.auto import config_class
from ...core.registry import FAMILIES, Family
from ...errors import CheckpointError, ConfigError
from ..expected import expected_tensors
from ..keras_names import KERAS_POOLED, keras_table, snake_case
from ..names import family_names
from .base import About, TensorLike
from .foreign import ForeignFile
from .hdf5 import new_hdf5
from .keras_weights import open_h5, tensors_of, write_groups

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

# What a member's copy is done in, in bytes.
_PIECE = 2**20

# The version whose files these are.
_KERAS_VERSION = "3.15.1"

# No time of writing is noted, so that the same model always makes the same file; this is the first that zip can hold.
_TIME = (1980, 1, 1, 0, 0, 0)
_DATE = "1980-01-01@00:00:00"

# What `zipfile` raises over an archive, or a member of it, that is damaged.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OSError)

_FLOATS = ("float16", "bfloat16", "float32", "float64")


def recognises(path: Path) -> bool:
    """Say whether a file is an archive with a config and weights, as Keras 3 makes them."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {_CONFIG, _METADATA} <= set(archive.namelist())
    except _DAMAGE:
        return False


class KerasFile(ForeignFile):
    """One open `.keras` archive of a model of this library.

    Attributes:
        config: the model's config in the Hub's keys; its `architectures` name the model.
        head: the model's name after its family's, such as "ForMaskedLM"; "Model" is the bare encoder.

    Raises:
        CheckpointError: it is damaged, holds another model, or its weights are not those of its config.
    """

    def __init__(self, path: Path) -> None:
        content = read_config(path)
        family, self.head = _model_of(content, path)
        config = _config_of(content, family, path)
        names = family_names(family.model_type)
        with ExitStack() as opened:
            weights = opened.enter_context(open_h5(weights_in(opened.enter_context(open(path, "rb")), path), path))
            found, tensors = tensors_of(weights, path)
            if found is not family:
                raise CheckpointError(
                    f"{path}: its config is of {family.prefix}, its weights are {found.prefix}'s. Save the model again."
                )
            stated = {**content["config"]["config"], "architectures": [family.prefix + self.head]}
            super().__init__(path, tensors, keras_table(family), names.base_prefix, config=stated)
            self._hold_to(config, content["config"].get("add_pooling_layer", True))
            self._close = opened.pop_all().close

    def _hold_to(self, config: Any, has_pooler: bool) -> None:
        """Compare the tensors with those that the config asks for."""
        try:
            expected = expected_tensors(config, self.head)
        except ConfigError as error:
            raise CheckpointError(f"{self.path}: its {_CONFIG} is not legal: {error}") from error
        held = {name: self.shape(name) for name in self.names()}
        if not has_pooler:
            # One family has its pooler nevertheless.
            expected = {name: s for name, s in expected.items() if name in held or not name.startswith("pooler.")}
        if held != expected:
            wrong = sorted(name for name in {*held, *expected} if held.get(name) != expected.get(name))
            raise CheckpointError(
                f"{self.path}: its config and its weights disagree about {', '.join(wrong[:5])}"
                f"{f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''}. Save the model again."
            )

    def check(self, digest: Callable[[str], str]) -> None:
        """Read all weights once and hold them to the archive's checksum.

        Raises:
            CheckpointError: they differ.
        """
        with _archive(self.path) as archive:
            try:
                with archive.open(_WEIGHTS) as member:
                    while member.read(_PIECE):
                        pass
            except _DAMAGE as error:
                raise CheckpointError(f"{self.path} is damaged: {error}. Fetch it again.") from error


class _Part(io.RawIOBase):
    """A stretch of an open file, as a file of its own."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._at = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """Any place of it can be gone to."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read from the place on."""
        wanted = memoryview(buffer)[: max(self._size - self._at, 0)]
        self._file.seek(self._start + self._at)
        read = self._file.readinto(wanted)  # type: ignore[attr-defined]
        self._at += read
        return int(read)


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path} is no archive of Keras ({error}): it is damaged or was not copied whole. Fetch it again."
        ) from error


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of the archive's config."""
    with _archive(path) as archive:
        try:
            text = archive.read(_CONFIG)
        except KeyError as error:
            raise CheckpointError(f"{path} has no {_CONFIG}: it is no archive of Keras.") from error
        except _DAMAGE as error:
            raise CheckpointError(f"{path} is damaged: {error}. Fetch it again.") from error
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: its {_CONFIG} is not JSON ({error}). Save the model again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: its {_CONFIG} is a {type(content).__name__}, where an object was expected.")
    return content


def _model_of(content: Mapping[str, Any], path: Path) -> tuple[Family, str]:
    """Return the family and the head that a config's class names."""
    name = content.get("class_name")
    for family in FAMILIES.values():
        for head in family.heads:
            if content.get("registered_name") == f"isobert>{name}" and name == family.model_name(head, "tf"):
                return family, head
    raise CheckpointError(
        f"{path} holds a Keras model {name!r}, which is none of this library's. Open it with the code that wrote "
        "it; if one of this library's models is a part of that, save that part alone."
    )


def _config_of(content: Mapping[str, Any], family: Family, path: Path) -> Any:
    """Return the model's config."""
    try:
        return config_class(family.model_type).from_dict(content["config"]["config"])
    except (ConfigError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its {_CONFIG} is not legal: {error}") from error


def weights_in(file: BinaryIO, path: Path) -> BinaryIO:
    """Return the archive's weights, to be read in place."""
    with _archive(path) as archive:
        try:
            entry = archive.getinfo(_WEIGHTS)
        except KeyError as error:
            raise CheckpointError(f"{path} has no {_WEIGHTS}: save the model with Keras's default format.") from error
    if entry.compress_type != zipfile.ZIP_STORED:
        raise CheckpointError(
            f"{path}: {_WEIGHTS} is compressed, which Keras never does. Unpack it and pack it anew without compression."
        )
    # The data follow a header of 30 bytes, which ends in the lengths of a name and of a field after it.
    file.seek(entry.header_offset + 26)
    lengths = file.read(4)
    start = entry.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return _Part(file, start, entry.file_size)  # type: ignore[return-value]


def write(path: Path, tensors: Mapping[str, TensorLike], about: About) -> None:
    """Write an archive that `keras.saving.load_model` opens once `isobert` is imported.

    If an optimizer goes along, the model is compiled and goes on training from there.

    HDF5 goes back to what it wrote and an archive cannot, so the weights first go into a file without a name, in the
    folder of `path`: until the end they take their room twice.

    Raises:
        CheckpointError: there is no config, or the tensors are not all of one floating dtype, as a Keras model's are.
    """
    dtype = _dtype_of(tensors)
    with tempfile.TemporaryFile(dir=path.parent, buffering=0) as weights:
        with new_hdf5(weights) as file:
            write_groups(file, tensors, about, path)
        size = weights.seek(0, io.SEEK_END)
        weights.seek(0)
        with zipfile.ZipFile(path, "w") as archive:
            _add(archive, _METADATA, json.dumps({"keras_version": _KERAS_VERSION, "date_saved": _DATE}))
            _add(archive, _CONFIG, json.dumps(_keras_config(about, dtype)))
            entry = zipfile.ZipInfo(_WEIGHTS, _TIME)
            entry.file_size = size  # so that a large one gets a header for large files
            with archive.open(entry, "w") as member:
                shutil.copyfileobj(weights, member, _PIECE)


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    with archive.open(zipfile.ZipInfo(name, _TIME), "w") as member:
        member.write(text.encode())


def _dtype_of(tensors: Mapping[str, TensorLike]) -> str:
    """Return the dtype of all tensors."""
    dtypes = {tensor.dtype.name for tensor in tensors.values()}
    if len(dtypes) != 1 or not dtypes <= set(_FLOATS):
        raise CheckpointError(
            f"the tensors are {', '.join(sorted(dtypes))}, and a Keras model has one floating dtype for all: give one "
            'with dtype="float32" (--dtype float32).'
        )
    return dtypes.pop()


def _keras_config(about: About, dtype: str) -> dict[str, Any]:
    """Return what Keras notes of a model that is newly made."""
    family = FAMILIES[about.config.model_type]
    class_name = family.model_name(about.head, "tf")
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": dtype}, "registered_name": None}
    config: dict[str, Any] = {
        "name": snake_case(class_name),
        "trainable": True,
        "dtype": policy,
        "config": about.config.to_dict(),
    }
    if about.head == "Model" and family.model_type in KERAS_POOLED:
        config["add_pooling_layer"] = True
    return {
        "module": f"isobert.tf.{family.model_type}",
        "class_name": class_name,
        "config": config,
        "registered_name": f"isobert>{class_name}",
        "build_config": {"shapes_dict": {}},
        "compile_config": dict(about.compiled),
    }
