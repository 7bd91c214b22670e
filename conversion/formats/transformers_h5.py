"""The form of transformers' TensorFlow classes, `tf_model.h5`: read and written with h5py alone, tensor by tensor.

The file is what Keras 2 saves of a model. Each layer that the model itself holds is a group, listed in the file's
`layer_names`; the group's `weight_names` list its tensors, each under the path of the layers that hold it, with the
model's name in front. In a checkpoint of several files the tensors lie in each file's root, without the model's name,
and `layer_names` lists the tensors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...core.registry import family_of
from ...errors import CheckpointError
from ..layouts import Layout, foreign_shape, from_hub
from ..names import TRANSFORMERS_H5, family_names
from ..rules import ForeignNames
from .base import About, LazyTensor, TensorLike, aligned_empty, elements_of
from .foreign import ForeignFile
from .hdf5 import new_hdf5

FAMILIES = ("mobilebert", "convbert", "rembert")
"""The families that have TensorFlow classes in transformers."""

_DTYPES = ("float16", "float32", "float64")

# A list of names above this size, in bytes, is cut into several attributes: HDF5 keeps an attribute in its object's
# header, which has 64 KiB. The number is Keras's.
_LARGEST_ATTRIBUTE = 64512

# By it Keras decides how to read old files. It is the version that wrote the files which this module is tested with.
_KERAS_VERSION = "2.21.0"

_LACKING_ACTIVATIONS = ("gelu_pytorch_tanh", "relu6", "linear")

# Keras numbers layers that have no name of their own, such as the dropout before a classifier.
_DROPOUT = "dropout"


def recognises(path: Path) -> bool:
    """Say whether a file is HDF5 with a list of layers at its root, as Keras 2 saves weights."""
    try:
        with h5py.File(path, "r") as file:
            return _has_list(file, "layer_names")
    except Exception:  # a damaged file makes h5py raise almost anything
        return False


def open_h5(path: Path) -> ForeignFile:
    """Open a checkpoint in one file.

    Raises:
        CheckpointError: the file is damaged or of another model, or holds a tensor that is in no table.
    """
    return _open(path, {path: set()})


def open_shards(index: Path, where: Mapping[str, str], shards: Mapping[str, Path]) -> ForeignFile:
    """Open a checkpoint in several files as one: how one file's tensors are called hangs on what the others hold.

    Args:
        index: the file that says where each tensor lies.
        where: what it says: a shard's name by a tensor's, which has the model's name in front.
        shards: each shard's path by its name.

    Raises:
        CheckpointError: a file is damaged or of another model, or index and shards disagree.
    """
    said = {path: {name.partition("/")[2] for name in where if where[name] == shard} for shard, path in shards.items()}
    return _open(index, said)


def _open(where: Path, paths: Mapping[Path, set[str]]) -> ForeignFile:
    """Open the files that hold one model, each with names of tensors that it should hold."""
    files: list[h5py.File] = []

    def close() -> None:
        for file in files:
            file.close()

    tensors: dict[str, LazyTensor] = {}
    try:
        for path, said in paths.items():
            held = _tensors(path, files)
            if said - held.keys():
                raise CheckpointError(
                    f"{where} names tensors that {path.name} does not hold: {_some(said - held.keys())}."
                )
            if tensors.keys() & held.keys():
                raise CheckpointError(f"{where}: tensors lie in two shards: {_some(tensors.keys() & held.keys())}.")
            tensors |= held
        family = _family(where, tensors)
        file = ForeignFile(where, tensors, TRANSFORMERS_H5[family], family_names(family).base_prefix, close)
        _check_axes(file)
    except BaseException:
        close()
        raise
    return file


def _tensors(path: Path, files: list[h5py.File]) -> dict[str, LazyTensor]:
    """Open one file, add it to those that are open, and return its tensors by their names without the model's."""
    try:
        file = h5py.File(path, "r")
        files.append(file)
        places = _places(file) if _has_list(file, "layer_names") else []
        tensors = {_name(file, place): _lazy(path, file[place]) for place in places}
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file makes h5py raise almost anything
        raise CheckpointError(_damaged(path, error)) from error
    if not tensors:
        raise CheckpointError(
            f"{path} is HDF5, but no checkpoint of transformers' TensorFlow classes: no layers with tensors are listed "
            "at its root. Give the `tf_model.h5` that `save_pretrained` wrote."
        )
    if len(tensors) < len(places):
        raise CheckpointError(f"{path} holds a tensor twice, as of two models. Save the model that is meant alone.")
    return tensors


def _has_list(group: h5py.Group, attribute: str) -> bool:
    """Say whether there is a list of names, be it in one attribute or cut into several.

    The names themselves are not read, but taken from where the tensors lie. They are strings of any length, and reading
    those from a damaged file makes HDF5 crash or loop for ever, as flipping bits has shown; walking the file does not.
    """
    return attribute in group.attrs or f"{attribute}0" in group.attrs


def _places(file: h5py.File) -> list[str]:
    """Return where the file's tensors lie. Links, which could lead into any file of the reader's, are not followed."""
    places: list[str] = []

    def visit(place: str, held: Any) -> None:
        if isinstance(held, h5py.Dataset):
            places.append(place)

    file.visititems(visit)
    return places


def _name(file: h5py.File, place: str) -> str:
    """Return the name of a tensor, without the model's, from where it lies."""
    layer, _, inner = place.partition("/")
    if not isinstance(file[layer], h5py.Group) or not _has_list(file[layer], "weight_names"):
        return place  # as in a checkpoint of several files
    name = inner.partition("/")[2]
    # A layer may hold a tensor of another: ConvBERT's head does the embeddings', which it scores words with.
    return name if name.startswith(f"{layer}/") else f"{layer}/{name}"


def _lazy(path: Path, dataset: h5py.Dataset) -> LazyTensor:
    """Describe a tensor, to be read when its turn comes."""
    name = dataset.name
    if dataset.dtype.name not in _DTYPES:
        raise CheckpointError(
            f"{path}: tensor {name} has dtype {dataset.dtype}, which is not supported; supported: {', '.join(_DTYPES)}."
        )
    if dataset.external or dataset.is_virtual:
        raise CheckpointError(f"{path}: tensor {name} lies in another file, which is not read. Save it in one file.")
    # Elements in the other byte order are turned around as they are read.
    shape, dtype = dataset.shape, dataset.dtype.newbyteorder("=")
    size = _size(dataset.file)

    def load() -> np.ndarray:
        array = aligned_empty(shape, dtype)
        try:
            if array.size:
                dataset.read_direct(array)
        except Exception as error:
            raise CheckpointError(_damaged(path, error)) from error
        if _size(dataset.file) < size:
            # HDF5 takes what lies beyond a file's end for zeros; how long it should be is compared at opening alone.
            raise CheckpointError(f"{path} was cut short after it had been opened: tensor {name} cannot be read.")
        return array

    return LazyTensor(shape, dtype, load)


def _size(file: h5py.File) -> int:
    """Return a file's length in bytes, now."""
    return os.fstat(file.id.get_vfd_handle()).st_size


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} cannot be read as HDF5 ({error}): it is damaged or was not copied whole. Fetch or save it again."


def _some(names: Iterable[str]) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more" if others else first


def _family(where: Path, names: Iterable[str]) -> str:
    """Return the family whose encoder is among the layers."""
    layers = dict.fromkeys(name.partition("/")[0] for name in names)
    found = [layer for layer in layers if layer in FAMILIES]
    if len(found) != 1:
        raise CheckpointError(
            f"{where} holds the layers {', '.join(layers)}, and exactly one should be an encoder that isobert knows: "
            f"{', '.join(FAMILIES)}. It is another model's checkpoint."
        )
    return found[0]


def _check_axes(file: ForeignFile) -> None:
    """Raise where a tensor has not the number of axes that its layout tells."""
    for name in file.names():
        try:
            file.shape(name)
        except ValueError as error:
            raise CheckpointError(
                f"{file.path}: tensor {file.foreign_names[name]} has not the three axes of a convolution. It is "
                "another model's checkpoint, or was changed."
            ) from error


_LAYERS: dict[str, tuple[str, ...]] = {
    # What the model of a head holds beside the encoder, in the order of its making.
    "Model": (),
    "ForPreTraining": ("predictions___cls", "seq_relationship___cls"),
    "ForMaskedLM": ("predictions___cls",),
    "ForNextSentencePrediction": ("seq_relationship___cls",),
    "ForSequenceClassification": (_DROPOUT, "classifier"),
    "ForMultipleChoice": (_DROPOUT, "classifier"),
    "ForTokenClassification": (_DROPOUT, "classifier"),
    "ForQuestionAnswering": ("qa_outputs",),
}

# Where a family does it in its own way.
_OWN_LAYERS: dict[tuple[str, str], tuple[str, ...]] = {
    ("convbert", "ForMaskedLM"): ("generator_predictions", "generator_lm_head"),
    ("convbert", "ForSequenceClassification"): ("classifier",),
    ("convbert", "ForMultipleChoice"): ("sequence_summary", "classifier"),
    ("rembert", "ForMaskedLM"): ("mlm___cls",),
    ("rembert", "ForCausalLM"): ("mlm___cls",),
}

# A weight of a layer: its name in the file, its name on the Hub, and its layout.
_Weight = tuple[str, str, Layout]


def write(path: Path, tensors: Mapping[str, TensorLike], about: About) -> None:
    """Write a model's tensors into one file, with no more than one of them in memory.

    The same tensors give the same bytes. A table that transformers stores a second time, where the Hub ties it, is
    written a second time.

    Args:
        path: the file.
        tensors: by the names of a model with a head, for a bare encoder too.
        about: the model's config and head.

    Raises:
        CheckpointError: there is no config; transformers has no TensorFlow class that could make the model; a tensor is
            not this model's, or its dtype has no place in this form.
    """
    config, head = about.config, about.head
    if config is None:
        raise CheckpointError(
            f"{path.name} names the layers of a model, which its config tells: there is no config.json."
        )
    reason = why_refused(config, head)
    if reason is not None:
        raise CheckpointError(
            f"{path.name} is the form of transformers' TensorFlow classes, and these cannot make this model: {reason}. "
            "Write another form, such as safetensors."
        )
    table = TRANSFORMERS_H5[config.model_type]
    if getattr(config, "normalization_type", None) == "no_norm":
        table = TRANSFORMERS_H5["mobilebert-no-norm"]
    tensors = _with_tied(tensors, table, config.model_type, head)
    layers = _layers(config, head)
    weights = _weights(path, tensors, table, layers)
    prefix = family_of(config.model_type).prefix
    model = _snake_case(f"TF{prefix}{head}")
    written: dict[int, h5py.Dataset] = {}
    with open(path, "w+b", buffering=0) as raw, new_hdf5(raw) as file:
        _set_names(file, "layer_names", layers)
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = _KERAS_VERSION.encode()
        # Sorted as Keras does it, before the group of what belongs to no layer, which is nothing.
        for layer in (*sorted(layers), "top_level_model_weights"):
            group = file.create_group(layer)
            held = weights.get(layer, [])
            _set_names(group, "weight_names", [f"{model}/{name}" for name, _, _ in held])
            for name, hub, layout in held:
                tensor, place = tensors[hub], f"{model}/{name}"
                if id(tensor) in written:
                    # To load it again might be to read and cast it again.
                    group[place] = written[id(tensor)][...]
                else:
                    written[id(tensor)] = _write_tensor(group, place, hub, tensor, layout)


def why_refused(config: Any, head: str) -> str | None:
    """Say why transformers' TensorFlow classes cannot make a model; None if they can."""
    family = config.model_type
    if family not in FAMILIES:
        return f"they are of {', '.join(FAMILIES)} alone"
    if config.hidden_act in _LACKING_ACTIVATIONS:
        return f"they lack the activation {config.hidden_act} (hidden_act)"
    if family == "convbert":
        heads = config.num_attention_heads
        if config.hidden_size % heads or config.hidden_size // heads * config.attention_heads != config.attention_width:
            return f"in ConvBERT they know no head_ratio but 2, and this has {config.head_ratio}, of {heads} heads"
        if head == "ForMaskedLM" and not config.tie_word_embeddings:
            return "in ConvBERT they score words with the embeddings' table alone (tie_word_embeddings)"
    if family == "mobilebert":
        if config.normalization_type == "manual_layer_norm":
            return "in MobileBERT they know no manual_layer_norm (normalization_type)"
        from_bottleneck = config.use_bottleneck_attention or config.key_query_shared_bottleneck
        if config.true_hidden_size != config.hidden_size and not from_bottleneck:
            return "in MobileBERT they take queries and keys from a bottleneck alone (key_query_shared_bottleneck)"
    return None


def _with_tied(
    tensors: Mapping[str, TensorLike], table: ForeignNames, model_type: str, head: str
) -> dict[str, TensorLike]:
    """Return the tensors and those that are tied to one of them, where the form has a place of their own for them."""
    tied = family_names(model_type).tied if head in ("ForPreTraining", "ForMaskedLM", "ForCausalLM") else ()
    also = {alias: tensors[source] for alias, source in tied if table.to_foreign(alias) and source in tensors}
    return {**tensors, **{alias: tensor for alias, tensor in also.items() if alias not in tensors}}


def _layers(config: Any, head: str) -> tuple[str, ...]:
    """Return the names of the layers that a model holds, in the order of their making."""
    per_layer = {
        "mobilebert": 2 if getattr(config, "use_bottleneck", True) else 3,
        "convbert": 3,
        "rembert": 5 if getattr(config, "add_cross_attention", False) else 3,
    }
    # The number of dropouts made before the classifier's: one of the embeddings, and those of the encoder's layers.
    dropout = f"{_DROPOUT}_{1 + config.num_hidden_layers * per_layer[config.model_type]}"
    own = _OWN_LAYERS.get((config.model_type, head)) or _LAYERS[head]
    return (config.model_type, *(dropout if layer == _DROPOUT else layer for layer in own))


def _weights(
    path: Path, tensors: Mapping[str, TensorLike], table: ForeignNames, layers: Sequence[str]
) -> dict[str, list[_Weight]]:
    """Return the weights of each layer."""
    weights: dict[str, list[_Weight]] = {layer: [] for layer in layers}
    for hub, tensor in tensors.items():
        name, layout = table.to_foreign(hub) or ("", "same")
        layer = name.partition("/")[0]
        if layer not in weights:
            raise CheckpointError(f"{path.name} has no place for the tensor {hub}: it is none of this model's.")
        if tensor.dtype.name not in _DTYPES:
            raise CheckpointError(
                f"tensor {hub} has dtype {tensor.dtype}, which {path.name} cannot hold; it can hold "
                f"{', '.join(_DTYPES)}. Convert to one of these."
            )
        weights[layer].append((name, hub, layout))
    if "generator_lm_head" in weights:
        weights["generator_lm_head"] += [it for it in weights["convbert"] if it[0].startswith("convbert/embeddings/")]
    return weights


def _write_tensor(group: h5py.Group, name: str, hub: str, tensor: TensorLike, layout: Layout) -> h5py.Dataset:
    shape = foreign_shape(tuple(tensor.shape), layout)
    dataset = group.create_dataset(name, shape, tensor.dtype)
    if dataset.size:
        array = np.frombuffer(elements_of(hub, tensor), tensor.dtype.newbyteorder("<")).reshape(tensor.shape)
        dataset[...] = from_hub(array, layout, shape)
    return dataset


def _set_names(group: h5py.Group, attribute: str, names: Sequence[str]) -> None:
    """Write a list of names; one that is too large is cut into as few attributes of like length as will hold it."""
    encoded = [name.encode() for name in names]
    padded = np.array(encoded, np.bytes_)
    if padded.nbytes <= _LARGEST_ATTRIBUTE:
        group.attrs[attribute] = encoded
        return
    cuts = (np.array_split(padded, number) for number in count(2))
    pieces = next(cut for cut in cuts if all(piece.nbytes <= _LARGEST_ATTRIBUTE for piece in cut))
    for index, piece in enumerate(pieces):
        group.attrs[f"{attribute}{index}"] = piece


def _snake_case(name: str) -> str:
    """Return the name that Keras gives a model of this class.

    Example:
        >>> _snake_case("TFMobileBertForMaskedLM")
        'tf_mobile_bert_for_masked_lm'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
