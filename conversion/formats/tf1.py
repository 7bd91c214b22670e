"""The authors' own TensorFlow 1 checkpoints, which are only read: `model.ckpt-N.index` and its `.data-...` files.

The index is a sorted table of the variables' names, shapes and places; TensorFlow's reader checks its blocks and each
variable by a checksum.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import CheckpointError, CheckpointNotFoundError, MissingDependencyError
from ..names import family_names
from ..tf1_names import TF1, TF1_BESIDE_A_GENERATOR
from .base import LazyTensor
from .foreign import ForeignFile

# A table ends with this number (leveldb's, from which the format is taken), little-endian.
_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")

# A variable by which a family is known: what its encoder has and no other does.
_SIGNS = {
    "mobilebert": r"bert/embeddings/embedding_transformation/|bert/encoder/layer_\d+/(bottleneck|ffn_layer_\d+)/"
    r"|bert/.*FakeLayerNorm/",
    "rembert": r"bert/encoder/embedding_hidden_mapping_in/",
    "convbert": r"electra/encoder/layer_\d+/attention/self/conv_attn_key/",
}


def recognises(path: Path) -> bool:
    """Say whether a file is the index of such a checkpoint."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(_MAGIC), 2)
            return file.read() == _MAGIC
    except OSError:
        return False


def find(folder: Path) -> Path | None:
    """Return the index of the checkpoint that a folder holds; None if it holds none.

    Of several it is the one that TensorFlow's own note, a file called `checkpoint`, calls the latest. The note may name
    a path on the machine of the training; only the last part of it counts, so it never leads out of the folder.

    Raises:
        CheckpointError: there are several and no note, or the note names one that is not there.
    """
    indices = sorted(path for path in folder.glob("*.index") if path.is_file())
    indices = [path for path in indices if recognises(path) or any(folder.glob(f"{glob.escape(path.stem)}.data-*"))]
    if not indices:
        return None
    held = ", ".join(path.name for path in indices)
    note = folder / "checkpoint"
    named = _noted(note) if note.is_file() else None
    if named is not None:
        if folder / f"{named}.index" in indices:
            return folder / f"{named}.index"
        raise CheckpointError(
            f"{note} names {named} as the latest checkpoint, which is not there; there are {held}. "
            "Correct or remove it."
        )
    if len(indices) > 1:
        raise CheckpointError(
            f"{folder} holds several TensorFlow checkpoints, {held}, and no file `checkpoint` that names the latest. "
            "Name the one that is meant."
        )
    return indices[0]


def _noted(note: Path) -> str | None:
    """Return the name that TensorFlow's note gives the latest checkpoint."""
    text = note.read_text(encoding="utf-8", errors="replace")
    found = re.search(r'^\s*model_checkpoint_path:\s*"([^"]+)"', text, re.MULTILINE)
    return PurePosixPath(found.group(1).replace("\\", "/")).name if found else None


class Tf1File(ForeignFile):
    """One open checkpoint of the authors' TensorFlow 1 code, told by its index.

    Attributes:
        family: the `model_type` of the family, told by the variables' names.

    Raises:
        CheckpointError: it is damaged, or of another model, or holds a variable that is in no table.
        CheckpointNotFoundError: a file of its data is missing.
        MissingDependencyError: TensorFlow is not installed.
    """

    def __init__(self, path: Path) -> None:
        reader = _Reader(path)
        shapes = reader.shapes()
        self.family = _family_of(shapes, path)
        tensors = {name: reader.tensor(name, shape) for name, shape in sorted(shapes.items())}
        beside_a_generator = any(name.startswith("generator/") for name in shapes)
        table = TF1_BESIDE_A_GENERATOR if beside_a_generator else TF1[self.family]
        tensors |= _implied(self.family, tensors)
        super().__init__(path, tensors, table, family_names(self.family).base_prefix, reader.close)


def _family_of(names: Mapping[str, Any], path: Path) -> str:
    """Return the family whose variables these are."""
    for family, sign in _SIGNS.items():
        if any(re.match(sign, name) for name in names):
            return family
    some = ", ".join(sorted(names)[:3])
    raise CheckpointError(
        f"{path} holds the variables of a model that isobert does not know ({some}, ...): read are the checkpoints of "
        f"the authors' code of {', '.join(TF1)}."
    )


def _implied(family: str, held: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Return what a model of the Hub has and the authors' graph does without, by the authors' names.

    Each has no effect: the output's table beyond the word embeddings where they are as wide as the stream (no columns),
    and the map of the embeddings where there is nothing to map (the identity).
    """
    made: dict[str, LazyTensor] = {}
    if family != "mobilebert":
        return made
    bias = held.get("cls/predictions/output_bias")
    extra = "cls/predictions/extra_output_weights"
    if bias is not None and extra not in held:
        shape = (*bias.shape, 0)
        made[extra] = LazyTensor(shape, bias.dtype, lambda: np.zeros(shape, bias.dtype))
    words = held.get("bert/embeddings/word_embeddings")
    scope = "bert/embeddings/embedding_transformation"
    if words is not None and f"{scope}/kernel" not in held:
        width, dtype = words.shape[-1], words.dtype
        made[f"{scope}/kernel"] = LazyTensor((width, width), dtype, lambda: np.eye(width, dtype=dtype))
        made[f"{scope}/bias"] = LazyTensor((width,), dtype, lambda: np.zeros(width, dtype))
    return made


class _Reader:
    """TensorFlow's reader of checkpoints, with every complaint of it turned into one of ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            import tensorflow as tf
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"{path} is a TensorFlow checkpoint and TensorFlow is not installed: pip install 'isobert[tf]'."
            ) from error
        prefix = path.with_suffix("")
        _check_data(path, prefix)
        self._reader: Any = self._told(lambda: tf.train.load_checkpoint(str(prefix)))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return every variable's shape."""
        shapes = self._told(self._reader.get_variable_to_shape_map)
        return {name: tuple(shape) for name, shape in shapes.items()}

    def tensor(self, name: str, shape: tuple[int, ...]) -> LazyTensor:
        """Describe a variable, to be read when its turn comes."""
        dtype = np.dtype(self._reader.get_variable_to_dtype_map()[name].as_numpy_dtype)
        return LazyTensor(shape, dtype, lambda: np.asarray(self._told(lambda: self._reader.get_tensor(name), name)))

    def close(self) -> None:
        """Let go of the files."""
        self._reader = None

    def _told(self, call: Callable[[], Any], name: str = "") -> Any:
        try:
            return call()
        except Exception as error:
            what = f": variable {name}" if name else ""
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"{self.path}{what} cannot be read as a TensorFlow checkpoint ({reason}): it or its data is damaged or "
                "was not copied whole. Fetch it again."
            ) from error


def _check_data(path: Path, prefix: Path) -> None:
    """Raise unless every file of the data lies beside the index."""
    pattern = re.compile(re.escape(prefix.name) + r"\.data-(\d{5})-of-(\d{5})")
    found = [match for entry in path.parent.iterdir() if (match := pattern.fullmatch(entry.name))]
    numbers, counts = {int(match[1]) for match in found}, {int(match[2]) for match in found}
    count = max(counts, default=1)
    missing = [f"{prefix.name}.data-{i:05d}-of-{count:05d}" for i in range(count) if i not in numbers]
    if missing:
        raise CheckpointNotFoundError(f"{path} needs {', '.join(missing)} beside it. Fetch or copy it too.")
