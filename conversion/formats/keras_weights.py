"""The `.weights.h5` form of Keras 3, for this library's own models: read and written one tensor at a time.

The file keeps no checksums, names no model's class and holds no config. Of an encoder alone, names come without its
prefix, as everywhere. `keras_names.py` says what is where.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import ml_dtypes
import numpy as np

from ...core.registry import FAMILIES, Family
from ...errors import CheckpointError
from ..keras_names import (
    KERAS_OPTIMIZER,
    KERAS_SHARED,
    groups_of,
    keras_table,
    parts_of,
    place_of,
    snake_case,
    variable_names,
)
from ..layouts import foreign_shape, from_hub
from ..names import KERAS_LEAVES, family_names
from .base import About, LazyTensor, TensorLike, aligned_empty
from .foreign import ForeignFile
from .hdf5 import new_hdf5

# Keras notes the one dtype that HDF5 does not have, and stores the bits.
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

_LAYOUTS = {keras: layout for keras, _, layout in KERAS_LEAVES}


def recognises(path: Path) -> bool:
    """Say whether a file is HDF5 with the groups that Keras 3 makes; the HDF5 of Keras 2 has other ones."""
    if not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return "layer_names" not in file.attrs and ("vars" in file or "layers" in file)
    except (OSError, RuntimeError):
        return False


def open_weights(path: Path) -> ForeignFile:
    """Open a file of weights. Its layers tell the family.

    Raises:
        CheckpointError: the file is damaged, or of no model of this library.
    """
    file = open_h5(path, path)
    try:
        family, tensors = tensors_of(file, path)
        names = family_names(family.model_type)
        return ForeignFile(path, tensors, keras_table(family), names.base_prefix, file.close)
    except BaseException:
        file.close()
        raise


def open_h5(source: Path | BinaryIO, path: Path) -> Any:
    """Open HDF5 in a file of its own, or inside the file `path`.

    Raises:
        CheckpointError: it is no HDF5, or cut off.
    """
    try:
        return h5py.File(source, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as HDF5 ({error}): it is damaged or was not copied whole. Fetch it again."
        ) from error


def tensors_of(file: Any, path: Path) -> tuple[Family, dict[str, LazyTensor]]:
    """Return the family of an open file of weights, and what it holds.

    Returns:
        The family and the variables by their layer's and their own name ("encoder.layer.0.output.dense/kernel"); what
        is no variable of a layer of this library, such as an optimizer's, by its place ("optimizer/vars/0").

    Raises:
        CheckpointError: it is damaged, or of no model of this library.
    """
    with _damage_told(path):
        groups = {place: (layer, group) for place, layer, group in _layers(file, "", (), path)}
        family = _family_of(groups, path)
        tensors: dict[str, LazyTensor] = {}
        for place, (layer, group) in groups.items():
            variables = [_dataset(group, str(index), path) for index in range(len(group))]
            named = None if place.startswith("optimizer") else variable_names(layer, [len(v.shape) for v in variables])
            for index, variable in enumerate(variables):
                key = f"{place}/vars/{index}" if named is None else f"{layer}/{named[index]}"
                if key in tensors:
                    raise CheckpointError(
                        f"{path} holds {key} twice: it is no model of this library, or a changed one."
                    )
                tensors[key] = _lazy(variable, path)
    return family, tensors


def _layers(group: Any, place: str, parts: tuple[str, ...], path: Path) -> Iterator[tuple[str, str, Any]]:
    """Yield every layer's place, name and group of variables. The first name is the model's own and does not count."""
    if "vars" in group:
        variables = group["vars"]
        if place:
            parts = (*parts, str(variables.attrs.get("name", f"<{place}>")))
        yield place, ".".join(parts), variables
    for key in sorted(set(group) - {"vars"}):
        inner = f"{place}/{key}".lstrip("/")
        # Links, which may lead to other files, are none of Keras's.
        is_own = group.get(key, getclass=True, getlink=True) is h5py.HardLink
        if not is_own or not isinstance(group[key], h5py.Group):
            raise CheckpointError(f"{path}: {inner} is no layer, as Keras writes them; the file is damaged or changed.")
        yield from _layers(group[key], inner, parts, path)


def _family_of(groups: Mapping[str, tuple[str, Any]], path: Path) -> Family:
    """Tell the family by the class of its encoder's layers, and a model by where in it these are."""
    for family in FAMILIES.values():
        prefix = f"{family_names(family.model_type).base_prefix}."
        for place, (layer, _) in groups.items():
            is_first = place.endswith(f"/{snake_case(f'{family.prefix}Layer')}")
            if is_first and layer.removeprefix(prefix).startswith("encoder."):
                return family
    raise CheckpointError(
        f"{path} holds the weights of no model of this library. Open it with the code that wrote it; if one of this "
        "library's models is a part of that, save that part alone."
    )


def _dataset(group: Any, key: str, path: Path) -> Any:
    """Return one variable, after a look at whether all of it is in this file."""
    variable = group[key]
    if not isinstance(variable, h5py.Dataset) or variable.external or variable.is_virtual:
        raise CheckpointError(f"{path}: {group.name}/{key} is no array of this file, as Keras writes them.")
    if variable.chunks is None and variable.id.get_storage_size() != variable.nbytes:
        raise CheckpointError(f"{path} is damaged: {variable.name} was never written. Save or fetch it again.")
    return variable


def _lazy(variable: Any, path: Path) -> LazyTensor:
    dtype = _BFLOAT16 if variable.attrs.get("dtype") == _BFLOAT16.name else variable.dtype

    def load() -> np.ndarray:
        array = aligned_empty(variable.shape, dtype)
        with _damage_told(path):
            if array.size:
                variable.read_direct(array.view(variable.dtype))
        return array

    return LazyTensor(tuple(variable.shape), dtype, load)


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turn what h5py raises over a damaged file into one error."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Fetch it again.") from error


def write(path: Path, tensors: Mapping[str, TensorLike], about: About) -> None:
    """Write tensors so that `model.load_weights` of the model finds them.

    Raises:
        CheckpointError: the model's config is not given.
    """
    with open(path, "w+b", buffering=0) as raw, new_hdf5(raw) as file:
        write_groups(file, tensors, about, path)


def write_groups(file: Any, tensors: Mapping[str, TensorLike], about: About, path: Path) -> None:
    """Write tensors into an open HDF5 file that belongs to `path`.

    Raises:
        CheckpointError: the model's config is not given.
    """
    if about.config is None:
        raise CheckpointError(f"{path} cannot be written without the model's config: add the checkpoint's config.json.")
    family = FAMILIES[about.config.model_type]
    _named_group(file, "", snake_case(family.model_name(about.head, "tf")))
    for layer, names in _by_layer(tensors, about).items():
        parts = parts_of(layer)
        for end in range(1, len(parts)):
            _named_group(file, place_of(parts[:end], family), parts[end - 1])
        variables = _named_group(file, place_of(parts, family), parts[-1])
        kinds = variable_names(layer, [len(tensors[name].shape) for name in names])
        if kinds is None:
            raise CheckpointError(f"no model of this library has {' and '.join(names)} of these shapes.")
        for index, (name, kind) in enumerate(zip(names, kinds, strict=True)):
            tensor, layout = tensors[name], _LAYOUTS[kind]
            if layout == "grouped":
                groups, (width_out, width_in, _) = groups_of(layer, about.config), tensor.shape
                shape: tuple[int, ...] = (groups, width_in, width_out // groups)
            else:
                shape = foreign_shape(tensor.shape, layout)
            _write_variable(variables, str(index), from_hub(np.asarray(tensor), layout, shape))
    for number, tensor in about.optimizer.items():
        _write_variable(_named_group(file, "optimizer", KERAS_OPTIMIZER), number, np.asarray(tensor))


def _write_variable(group: Any, key: str, array: np.ndarray) -> None:
    variable = group.create_dataset(key, data=np.ascontiguousarray(array).reshape(array.shape))
    if array.dtype == _BFLOAT16:
        variable.attrs["dtype"] = _BFLOAT16.name


def _named_group(file: Any, place: str, name: str) -> Any:
    """Return the group of a layer's variables, which notes the layer's name."""
    group = file.require_group(f"{place}/vars")
    group.attrs["name"] = name
    return group


def _by_layer(tensors: Mapping[str, TensorLike], about: About) -> dict[str, list[str]]:
    """Return the tensors' names by the layer that Keras has them in, weights before biases."""
    names = family_names(about.config.model_type)
    shared = KERAS_SHARED.get(about.config.model_type)
    is_shared = about.config.tie_word_embeddings and any(name.startswith("cls.predictions.") for name in tensors)
    layers: dict[str, list[str]] = {}
    for name in sorted(tensors, key=lambda name: name.endswith(".bias")):
        layer = (name.removeprefix(f"{names.base_prefix}.") if about.head == "Model" else name).rpartition(".")[0]
        if shared and is_shared and name == names.tied[0][1]:
            layer = shared
        layers.setdefault(layer, []).append(name)
    return layers
