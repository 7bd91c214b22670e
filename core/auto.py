"""`AutoConfig`: the config of whichever family a checkpoint is of."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from .config import CONFIG_NAME, PretrainedConfig, load_config_dict
from .registry import FAMILIES, family_of


def config_class(model_type: Any, where: str = CONFIG_NAME) -> type[PretrainedConfig]:
    """Return the config class of a `model_type`.

    Raises:
        UnknownNameError: no family with models is called so.
    """
    family = family_of(model_type, where)
    if family.config_name is None:
        family = family_of(f"{model_type} (tokenizers only)", where)
    found: type[PretrainedConfig] = getattr(
        import_module(f".{family.model_type}", __package__), str(family.config_name)
    )
    return found


class AutoConfig:
    """Picks the config class by `model_type`. Not instantiated."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str], **overrides: Any) -> PretrainedConfig:
        """Open the `config.json` of a folder or Hub repository; `overrides` replace fields of it.

        Raises:
            CheckpointNotFoundError: there is no such file.
            UnknownNameError: its `model_type` is of no family here.
            ConfigError: a field is not legal.
        """
        content = load_config_dict(name_or_path)
        where = f"{name_or_path}/{CONFIG_NAME}"
        return config_class(content.get("model_type"), where).from_dict(content, **overrides)

    @staticmethod
    def from_size(name: str, **overrides: Any) -> PretrainedConfig:
        """Return the config of a named size of any family, such as `mobilebert-uncased`.

        Raises:
            UnknownNameError: no family has a size of that name.
        """
        from ..errors import UnknownNameError

        known: list[str] = []
        for model_type, family in FAMILIES.items():
            if family.heads:
                candidate = config_class(model_type)
                if name in candidate.sizes:
                    return candidate.from_size(name, **overrides)
                known.extend(candidate.sizes)
        raise UnknownNameError(f"There is no size {name!r}; the named sizes are {', '.join(known)}.")
