"""The Auto classes: the model of whichever family a checkpoint is of, one class for each head."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from ..core.auto import AutoConfig
from ..core.config import PretrainedConfig
from ..core.registry import all_heads, model_class
from .modeling import TFPreTrainedModel


class TFAutoModelBase:
    """Picks the model class by `model_type`. Not instantiated; subclasses are made for every head in the registry."""

    head: ClassVar[str]

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> TFPreTrainedModel:
        """Return a new model of the config's family.

        Raises:
            UnknownNameError: the family has no model with this head.
        """
        model: TFPreTrainedModel = model_class(config.model_type, cls.head, "tf")(config)
        return model

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        config: PretrainedConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        """Open a checkpoint with the class of its family; arguments are those of `TFPreTrainedModel.from_pretrained`.

        Raises:
            CheckpointNotFoundError: there is no config or no checkpoint.
            UnknownNameError: the config's `model_type` is of no family here, or the family has no model with this head.
        """
        model_type = (AutoConfig.from_pretrained(name_or_path) if config is None else config).model_type
        return model_class(model_type, cls.head, "tf").from_pretrained(name_or_path, config=config, **kwargs)


def _auto_class(head: str) -> type[TFAutoModelBase]:
    name = "TFAutoModel" if head == "Model" else f"TFAutoModel{head}"
    what = "the bare encoder" if head == "Model" else f"the model `TF...{head}`"
    return type(name, (TFAutoModelBase,), {"head": head, "__doc__": f"Picks {what} of a checkpoint's family."})


_auto_classes = [_auto_class(head) for head in all_heads()]
globals().update({auto.__name__: auto for auto in _auto_classes})
__all__ = [auto.__name__ for auto in _auto_classes]
