"""Trimming a checkpoint's vocabulary: its tables of words keep the rows that a smaller tokenizer still has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..core.auto import config_class
from ..core.hub import read_json, resolve_file, write_json
from ..errors import CheckpointError, InputError
from .checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from .convert import Progress, modern_names, numpy_dtype
from .formats import LazyTensor
from .formats.base import byte_size
from .names import family_names
from .report import ConversionReport
from .target import appearing, check_target
from .verify import Traceable, Verification, compare, head_of

FAMILY = "rembert"
"""The family whose vocabulary is worth trimming: nearly half of its parameters are tables of words."""

TABLES = ("embeddings.word_embeddings.weight", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
"""The tensors with a row for each token, without the family's prefix. The first is in every checkpoint."""

_CONFIGS = ("config.json", "generation_config.json")

# Settings of generation that list ids in forms of their own.
_LISTS = ("bad_words_ids", "force_words_ids", "forced_decoder_ids", "suppress_tokens", "begin_suppress_tokens")


class Savable(Protocol):
    """A tokenizer."""

    def save_pretrained(self, folder: str | os.PathLike[str]) -> tuple[str, ...]:
        """Write the tokenizer's files into a folder."""


@dataclass(frozen=True)
class TrimReport:
    """What a trimming saved, before and after.

    Attributes:
        tokens: how many rows the tables of words have.
        parameters: how many numbers the checkpoint holds; what is stored twice or carries no weights does not count.
        bytes: how many these take.
        tables: the tensors that were cut.
        files: the files that hold the tensors now.
    """

    tokens: tuple[int, int]
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    tables: tuple[str, ...]
    files: tuple[Path, ...]

    def __str__(self) -> str:
        rows = [
            f"{name}: {before:,} to {after:,} ({after / before:.1%})"
            for name, (before, after) in (("tokens", self.tokens), ("parameters", self.parameters))
        ]
        before, after = (size / 1e6 for size in self.bytes)
        return "\n".join([*rows, f"MB: {before:,.1f} to {after:,.1f} ({after / before:.1%})"])


def token_ids(name_or_path: str | os.PathLike[str]) -> dict[int, str]:
    """Return the ids of the tokens that a checkpoint's configs name, each with its place: these tokens are to be kept.

    Ids beyond the vocabulary name nothing and are left out.

    Raises:
        CheckpointNotFoundError: there is no `config.json`.
        InputError: it is of another family, or a file lists ids in a form that cannot be renumbered.
    """
    configs = _configs(name_or_path)
    size = _vocab_size(configs)
    found: dict[int, str] = {}
    for file, content in configs.items():
        for key in _LISTS:
            if content.get(key):
                raise InputError(
                    f"{name_or_path}: {file} has {key}, whose ids would be those of other tokens after trimming: "
                    "remove it, and set it anew afterwards."
                )
        for key, token_id in _ids_in(content):
            if 0 <= token_id < size:
                found.setdefault(token_id, f"{file}: {key}")
    return found


def trim(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    tokenizer: Savable,
    kept: Sequence[int],
    *,
    force: bool = False,
    check: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
) -> TrimReport:
    """Write the checkpoint `src` into a new folder `dst` with fewer tokens.

    The tables of words, at the input and at the output, keep the rows `kept` in this order; all other tensors stay as
    they are. `vocab_size` and the ids of special tokens in the configs follow. Tensors are read and written one at a
    time, as safetensors under today's names. `dst` appears only when everything is in it.

    Args:
        src: a folder, or a repository of the Hub.
        dst: the new folder.
        tokenizer: the smaller tokenizer, which is saved into it.
        kept: the old id of each of its tokens; `tokenization.trim.trim_tokenizer` returns both.
        force: replace `dst` if it exists and holds nothing but a checkpoint.
        check: called with the finished folder before that gets its name; what it raises keeps it from appearing.
        progress: told of every tensor.

    Raises:
        InputError: `dst` exists and may not be replaced, `src` is of a family whose vocabulary cannot be trimmed, or
            its configs name a token that is not kept.
        CheckpointNotFoundError: `src` holds no checkpoint, or no config.
        CheckpointError: `src` is damaged, or a table of words does not have `vocab_size` rows.
    """
    target = Path(dst).expanduser()
    if Path(src).expanduser().resolve() == target.resolve():
        raise InputError(f"{dst} is the checkpoint itself; name a new folder.")
    check_target(target, force)
    configs = _configs(src)
    size = _vocab_size(configs)
    new = {old: index for index, old in enumerate(kept)}
    if not kept or max(kept) >= size or min(kept) < 0:
        raise InputError(
            f"{src}: config.json has vocab_size {size}, and the tokenizer {max(kept, default=-1) + 1} tokens: give the "
            "model a row for each (`resize_token_embeddings`) before it is trimmed."
        )
    for token_id, place in token_ids(src).items():
        if token_id not in new:
            raise InputError(f"{src}: {place} is {token_id}, a token that is not kept: keep it, or remove that line.")
    with open_checkpoint(src) as checkpoint, appearing(target) as staging:
        names = modern_names(checkpoint, configs["config.json"], ConversionReport(checkpoint.form, "safetensors"))
        whole = {name: _tensor(checkpoint, held) for name, held in names.items()}
        tables = _tables(whole, size, str(src))
        tensors = whole | {name: _rows_of(whole[name], np.array(kept)) for name in tables}
        files = write_checkpoint(staging, _announced(tensors, progress))
        for file, content in configs.items():
            write_json(staging / file, _renumbered(content, new, len(kept)))
        tokenizer.save_pretrained(staging)
        if check is not None:
            check(staging)
    return TrimReport(
        tokens=(size, len(kept)),
        parameters=(_count(whole), _count(tensors)),
        bytes=(_size(whole), _size(tensors)),
        tables=tables,
        files=tuple(target / file.name for file in files),
    )


def verify_trimmed(
    original: Traceable, trimmed: Traceable, inputs: Mapping[str, np.ndarray], kept: Sequence[int]
) -> Verification:
    """Run a model and its trimmed form on the same text, and compare all they compute.

    Args:
        original: the model as it was.
        trimmed: the trimmed one, of the same head.
        inputs: what the trimmed model is called with.
        kept: the old id of each of its tokens. Of the original's scores of words, those of these tokens count.
    """
    old = np.array(kept)
    traces = [
        original.trace({**inputs, "input_ids": old[inputs["input_ids"]]}, gradients=False),
        trimmed.trace(inputs, gradients=False),
    ]
    if head_of(trimmed) in ("ForMaskedLM", "ForCausalLM"):
        outputs = traces[0].outputs
        traces[0] = replace(traces[0], outputs={**outputs, "logits": outputs["logits"][..., old]})
    return compare(*traces, names=("the original", "the trimmed model"))


def _configs(name_or_path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Read the configs that name tokens, by file."""
    paths = {file: resolve_file(name_or_path, file, required=file == "config.json") for file in _CONFIGS}
    found = {file: read_json(path, "config") for file, path in paths.items() if path is not None}
    family = found["config.json"].get("model_type")
    if family != FAMILY:
        raise InputError(f"{name_or_path} is of the family {family!r}; only {FAMILY!r} vocabularies can be trimmed.")
    return found


def _vocab_size(configs: Mapping[str, dict[str, Any]]) -> int:
    size: int = config_class(FAMILY).from_dict(configs["config.json"]).vocab_size
    return size


def _ids_in(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield key and value of each id of a token in a config; some keys hold several."""
    for key, value in config.items():
        if key.endswith("_token_id"):
            yield from ((key, token) for token in (value if isinstance(value, list) else [value]) if _is_id(token))


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _renumbered(config: Mapping[str, Any], new: Mapping[int, int], size: int) -> dict[str, Any]:
    """Return a config with the new ids; those of no token stay."""
    found = dict(config)
    for key, value in config.items():
        if key.endswith("_token_id"):
            found[key] = (
                [new.get(token, token) for token in value] if isinstance(value, list) else new.get(value, value)
            )
        elif key == "vocab_size":
            found[key] = size
    return found


def _tensor(checkpoint: Checkpoint, name: str) -> LazyTensor:
    return LazyTensor(checkpoint.shape(name), numpy_dtype(checkpoint, name), lambda: checkpoint.read(name))


def _rows_of(table: LazyTensor, rows: np.ndarray) -> LazyTensor:
    return LazyTensor((len(rows), *table.shape[1:]), table.dtype, lambda: table.load()[rows])


def _tables(tensors: Mapping[str, LazyTensor], size: int, where: str) -> tuple[str, ...]:
    """Return the names of the tensors with a row for each token."""
    prefix = f"{family_names(FAMILY).base_prefix}."
    found = tuple(name for name in tensors if name.removeprefix(prefix) in TABLES)
    if not any(name.endswith(TABLES[0]) for name in found):
        raise CheckpointError(f"{where} holds no tensor {prefix}{TABLES[0]}, so it has no vocabulary to trim.")
    for name in found:
        if tensors[name].shape[0] != size:
            raise CheckpointError(
                f"{where}: tensor {name} has {tensors[name].shape[0]} rows, and config.json has vocab_size {size}."
            )
    return found


def _announced(tensors: Mapping[str, LazyTensor], progress: Progress | None) -> dict[str, LazyTensor]:
    """Return tensors that tell of themselves when they are written."""
    if progress is None:
        return dict(tensors)
    done, total = 0, _size(tensors)

    def announce(name: str, tensor: LazyTensor) -> LazyTensor:
        def load() -> np.ndarray:
            nonlocal done
            array = tensor.load()
            done += array.nbytes
            progress(name, done, total)
            return array

        return replace(tensor, load=load)

    return {name: announce(name, tensor) for name, tensor in tensors.items()}


def _count(tensors: Mapping[str, LazyTensor]) -> int:
    return sum(prod(tensor.shape) for tensor in tensors.values())


def _size(tensors: Mapping[str, LazyTensor]) -> int:
    return sum(map(byte_size, tensors.values()))
