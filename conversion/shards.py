"""Checkpoints in several files: reading their index, and dealing tensors into files of a size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..core.hub import read_json
from ..errors import CheckpointError, InputError
from .formats import TensorFile, TensorLike
from .formats.base import byte_size


def read_index(index: Path) -> dict[str, str]:
    """Return an index's map from a tensor to its shard, each a plain path inside the folder."""
    where = read_json(index, "index of shards").get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(shard, str) for shard in where.values()):
        raise CheckpointError(f"{index}: `weight_map` should map each tensor's name to the name of a shard.")
    for shard in where.values():
        path = PurePosixPath(shard)
        if path.is_absolute() or ".." in path.parts or "\\" in shard or ":" in shard or not path.parts:
            raise CheckpointError(f"{index} names the shard {shard!r}, which is not a file inside its own folder.")
    return where


def check_shards(index: Path, where: Mapping[str, str], shards: Mapping[str, TensorFile]) -> None:
    """Raise when a tensor is not in the shard that the index names, or lies in two."""
    held = {shard: set(file.names()) for shard, file in shards.items()}
    lacking = [f"{name} (in {shard})" for name, shard in where.items() if name not in held[shard]]
    if lacking:
        raise CheckpointError(f"{index} names tensors that their shards do not hold: {_listed(lacking)}.")
    seen: dict[str, str] = {}
    for shard, names in held.items():
        for name in sorted(names):
            if name in seen:
                raise CheckpointError(f"{index}: tensor {name} lies in two shards, {seen[name]} and {shard}.")
            seen[name] = shard


def _listed(items: list[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def split_by_size(tensors: Mapping[str, TensorLike], limit: int) -> list[dict[str, TensorLike]]:
    """Deal tensors, in their order, into shards of at most `limit` bytes; a larger tensor gets a shard of its own."""
    shards: list[dict[str, Any]] = []
    filled = 0
    for name, tensor in tensors.items():
        size = byte_size(tensor)
        if not shards or filled + size > limit:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
    return shards


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(size: int | str) -> int:
    """Return a size in bytes.

    Raises:
        InputError: it is not a positive number of bytes.

    Example:
        >>> parse_size("5GB"), parse_size("1.5KiB"), parse_size(300)
        (5000000000, 1536, 300)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(size))
    unit = _UNITS.get(found.group(2).upper()) if found else None
    count = int(float(found.group(1)) * unit) if found and unit else 0
    if count < 1:
        raise InputError(f"size {size!r} is not a positive number of bytes such as 300, '500MB' or '5GiB'.")
    return count
