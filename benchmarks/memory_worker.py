"""One side of the memory benchmark: a model that ours or the peer's library creates, saves and opens, and its peaks.

The script is the worker: `memory_worker.py ours|peer pt|tf`. The peer's interpreter runs it without isobert: both
libraries name their Auto classes alike.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

from runner import PEAK_RESET, resident, serve


class Side:
    """What a worker does when it is asked. Memory is counted from what the process has once all is imported.

    Args:
        library: "isobert" or "transformers".
        framework: "pt" or "tf".
    """

    def __init__(self, library: str, framework: str) -> None:
        self.library = library
        self.framework = framework
        self.model: Any = None

    def prepare(self, folder: str, head: str) -> dict[str, Any]:
        """Import the framework and the class of a head ("Model", "ForMaskedLM") for a folder's `config.json`."""
        names = {"pt": ["torch"], "tf": ["tensorflow", "keras" if self.library == "isobert" else "tf_keras"]}
        framework, *_ = [import_module(name) for name in names[self.framework]]
        self.sum = framework.sum if self.framework == "pt" else framework.reduce_sum
        library = import_module(self.library)
        suffix = "" if head == "Model" else head
        self.auto_model = getattr(library, f"{'TF' if self.framework == 'tf' else ''}AutoModel{suffix}")
        self.config = library.AutoConfig.from_pretrained(folder)
        self._import_class(head)
        settle()
        self.before = resident("VmRSS")
        return {
            "process": os.getpid(),
            "private": resident("RssAnon"),
            "versions": {name: version(name) for name in [self.library, *names[self.framework]]},
        }

    def _import_class(self, head: str) -> None:
        """Import the module of the family's models, which both libraries put off until one of them is made."""
        if self.library == "isobert":
            from isobert.core.registry import model_class

            model_class(self.config.model_type, head, self.framework)
        else:
            prefix = "modeling" if self.framework == "pt" else "modeling_tf"
            family = self.config.model_type
            import_module(f"transformers.models.{family}.{prefix}_{family}")

    def create(self) -> int:
        """Make a model with new weights and return the peak."""
        return self._peak(self._create)

    def _create(self) -> None:
        self.model = self.auto_model.from_config(self.config)
        if self.library == "transformers" and self.framework == "tf":
            self.model.build_in_name_scope()  # until then it has no variables

    def save(self, folder: str) -> int:
        """Save the model and return the peak, what the model itself takes included."""
        return self._peak(lambda: self.model.save_pretrained(folder))

    def open(self, folder: str) -> int:
        """Open the model, read every parameter once, and return the peak."""
        return self._peak(self._open, folder)

    def _open(self, folder: str) -> None:
        self.model = self.auto_model.from_pretrained(folder)
        # A library may leave parameters in a mapped file until they are used.
        parameters = self.model.parameters() if self.framework == "pt" else self.model.weights
        for parameter in parameters:
            self.sum(parameter)

    def size(self) -> int:
        """Return the bytes of the model's parameters."""
        if self.framework == "pt":
            return sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())
        return 4 * int(self.model.num_parameters())

    def _peak(self, call: Callable[..., object], *arguments: str) -> int:
        """Return the most bytes that were resident during a call, beyond those once all was imported.

        Pages of files that the process has mapped into memory count as well.
        """
        PEAK_RESET.write_text("5")
        call(*arguments)
        peak = resident("VmHWM") - self.before
        settle()
        return peak


def settle() -> None:
    """Hand memory back to the system that is held for nothing, so that it is not taken for the next action's."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    side = Side("isobert" if sys.argv[1] == "ours" else "transformers", sys.argv[2])
    serve({name: getattr(side, name) for name in ("prepare", "create", "save", "open", "size")})


if __name__ == "__main__":
    main()
