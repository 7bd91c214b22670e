"""`AutoTokenizer`: the right tokenizer class for a checkpoint folder or Hub name."""

from __future__ import annotations

import os
from typing import Any

from ..core.hub import resolve_file
from ..core.registry import FAMILIES, Family, family_of, tokenizer_class
from ..errors import TokenizerError, UnknownNameError
from .base import PreTrainedTokenizerBase
from .files import CONFIG_FILE, read_object

MODEL_CONFIG_FILE = "config.json"


class AutoTokenizer:
    """Opens a checkpoint's tokenizer with the class that its files name."""

    def __init__(self) -> None:
        raise TypeError("AutoTokenizer is not instantiated: use AutoTokenizer.from_pretrained(name_or_path).")

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, use_fast: bool = True, **overrides: Any
    ) -> PreTrainedTokenizerBase:
        """Open the tokenizer of a folder or a Hub name.

        `tokenizer_config.json`'s `tokenizer_class` names the class; if it names none of this library's, the
        `model_type` of `config.json` does.

        Args:
            name_or_path: a folder, or a Hub repository's name.
            use_fast: take the one on the `tokenizers` library, instead of the one in Python.
            overrides: constructor arguments that outweigh the files'.

        Raises:
            TokenizerError: neither file names a family that this library knows.
            CheckpointNotFoundError: there is nothing of that name, or no vocabulary in it.
        """
        found: type[PreTrainedTokenizerBase] = tokenizer_class(_family(name_or_path).model_type, fast=use_fast)
        return found.from_pretrained(name_or_path, **overrides)


def _family(name_or_path: str | os.PathLike[str]) -> Family:
    path = resolve_file(name_or_path, CONFIG_FILE, required=False)
    class_name = read_object(path).get("tokenizer_class") if path else None
    for family in FAMILIES.values():
        if class_name in (f"{family.prefix}Tokenizer", f"{family.prefix}TokenizerFast"):
            return family
    path = resolve_file(name_or_path, MODEL_CONFIG_FILE, required=False)
    config = read_object(path) if path else {}
    try:
        return family_of(config.get("model_type"), str(path or name_or_path))
    except UnknownNameError as error:
        raise TokenizerError(
            f"{name_or_path}: tokenizer_class is {class_name!r} in {CONFIG_FILE} and model_type is "
            f"{config.get('model_type')!r} in {MODEL_CONFIG_FILE}, and isobert knows {', '.join(FAMILIES)}: use a "
            "family's own tokenizer class."
        ) from error
