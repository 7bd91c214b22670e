"""The Auto classes: the config, or the model, of whichever family a checkpoint is of."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, ClassVar

from ..errors import UnknownNameError
from .config import CONFIG_NAME, PretrainedConfig, load_config_dict
from .registry import FAMILIES, all_heads, family_of, model_class


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
        known: list[str] = []
        for model_type, family in FAMILIES.items():
            if family.heads:
                candidate = config_class(model_type)
                if name in candidate.sizes:
                    return candidate.from_size(name, **overrides)
                known.extend(candidate.sizes)
        raise UnknownNameError(f"There is no size {name!r}; the named sizes are {', '.join(known)}.")


class AutoModelBase:
    """Picks the model class by `model_type`. Not instantiated; there is a subclass for every framework and head."""

    framework: ClassVar[str]
    head: ClassVar[str]

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> Any:
        """Return a new model of the config's family.

        Raises:
            UnknownNameError: the family has no model with this head.
        """
        return model_class(config.model_type, cls.head, cls.framework)(config)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, config: PretrainedConfig | None = None, **kwargs: Any
    ) -> Any:
        """Open a checkpoint with the class of its family; all arguments are those of that class's `from_pretrained`.

        Raises:
            CheckpointNotFoundError: there is no config or no checkpoint.
            UnknownNameError: the config's `model_type` is of no family here, or the family has no model with this head.
        """
        model_type = (AutoConfig.from_pretrained(name_or_path) if config is None else config).model_type
        opened: Any = model_class(model_type, cls.head, cls.framework)
        return opened.from_pretrained(name_or_path, config=config, **kwargs)


def auto_model_classes(framework: str, module: str) -> dict[str, type[AutoModelBase]]:
    """Make the Auto classes of a framework, by name: one for every head in the registry. `module` is their home."""
    prefix = "TFAutoModel" if framework == "tf" else "AutoModel"
    classes: dict[str, type[AutoModelBase]] = {}
    for head in all_heads():
        name = prefix if head == "Model" else f"{prefix}{head}"
        what = "bare encoder" if head == "Model" else f"model `...{head}`"
        about = {"framework": framework, "head": head, "__module__": module}
        classes[name] = type(
            name, (AutoModelBase,), {**about, "__doc__": f"Picks the {what} of a checkpoint's family."}
        )
    return classes
