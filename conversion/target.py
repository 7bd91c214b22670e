"""The folder that a new checkpoint is written into: what may be replaced, and appearing whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CheckpointError, InputError, IsobertError
from .formats import FORMS

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "sentencepiece.model",
)
COMPANIONS = ("config.json", "generation_config.json", *TOKENIZER_FILES)
"""What goes along with the tensors."""


def check_target(target: Path, force: bool) -> None:
    """Raise when the target exists and may not be replaced: only a folder that is a checkpoint and nothing more may."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise InputError(f"{target} is a file; name a new folder.")
    if not force:
        raise InputError(f"{target} exists and is not empty; name a new folder, or replace it with force (--force).")
    weights = "|".join(
        re.escape(form.file_name) + r"(\.index\.json)?|" + re.escape(form.shard_name(0, 0)).replace("00000", r"\d{5}")
        for form in FORMS.values()
        if form.file_name
    )
    for entry in sorted(target.iterdir()):
        if entry.is_dir() or not (entry.name in (*COMPANIONS, "optimizer.pt") or re.fullmatch(weights, entry.name)):
            raise InputError(
                f"{target} holds {entry.name!r}, which is no part of a checkpoint and would be lost; "
                "move it away, or name a new folder."
            )


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target` that takes its place on success and vanishes on failure."""
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    staging = target.with_name(f".{target.name}.{mark}")
    staging.mkdir()
    try:
        yield staging
        if target.exists():
            old = target.with_name(f".{target.name}.{mark}.old")
            os.rename(target, old)
            try:
                os.rename(staging, target)
            except BaseException:
                os.rename(old, target)
                raise
            shutil.rmtree(old)
        else:
            os.rename(staging, target)
    except IsobertError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"{target} could not be written ({error}), and nothing of it was kept. Free space there, or choose another "
            "place."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
