"""The Auto classes of Keras: the model of whichever family a checkpoint is of, one class for each head."""

from ..core.auto import auto_model_classes

_auto_classes = auto_model_classes("tf", __name__)
globals().update(_auto_classes)
__all__ = list(_auto_classes)
