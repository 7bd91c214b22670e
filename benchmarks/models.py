"""One process of a benchmark: models that one library opens from a checkpoint, run and measured as it is asked.

The script is the worker: `models.py ours|peer|onnx|bert pt|tf THREADS DEVICE`, or `models.py make`. Peers'
interpreters run it without isobert: both libraries call their classes `AutoModel...` and `TFAutoModel...`, and open the
same weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from measured import PART
from model_pt import OnnxRuntime, PyTorch
from model_tf import BIN_FOLDER, TensorFlow
from runner import serve, timed


def make_checkpoint(folder: str, head: str, as_bin: bool) -> None:
    """Write random weights beside a folder's `config.json`, and once more as a library reads them that needs it so."""
    import torch

    from isobert import AutoConfig
    from isobert.core.registry import model_class

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder)
    model = model_class(config.model_type, head, "pt")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _draw(name, parameter)
    model.save_pretrained(folder)
    if as_bin:
        (Path(folder) / BIN_FOLDER).mkdir()
        torch.save(model.state_dict(), Path(folder) / BIN_FOLDER / "pytorch_model.bin")
        config.save_pretrained(Path(folder) / BIN_FOLDER)


def _draw(name: str, parameter: Any) -> None:
    """Fill a parameter so that it shows in the output: new weights are so small that attention is nearly uniform."""
    if name.endswith("bias"):
        parameter.normal_(0.0, 0.1)
    elif parameter.dim() == 1:
        parameter.uniform_(0.8, 1.1)
    elif "embeddings" in name:
        parameter.normal_(0.0, 0.5)
    else:
        parameter.normal_(0.0, 0.6 / parameter[0].numel() ** 0.5)


class Calls:
    """What a worker does when it is asked: prepares the calls of its sides, and measures them.

    Args:
        models: the library's.
        who: the first word of its sides' names.
    """

    def __init__(self, models: PyTorch | TensorFlow, who: str) -> None:
        self.models = models
        self.who = who
        self.calls: dict[str, Callable[[], Any]] = {}

    def prepare(self, side: str, does: str, inputs: str, output: str, **arguments: Any) -> dict[str, Any]:
        """Make one side ready, and write what it computes to an `.npy` file.

        Args:
            side: its name.
            does: a method of the models: "forward", "training_step", ...
            inputs: an `.npz` file, or "" where there are none.
            output: the file, written unless there is nothing to compare.
            arguments: of the method; a `folder` or `target` is a path.

        Returns:
            The libraries' versions, or why this side cannot do it.
        """
        for name in ("folder", "target"):
            if name in arguments:
                arguments[name] = Path(arguments[name])
        if inputs:
            with np.load(inputs) as arrays:
                arguments["inputs"] = dict(arrays)
        if self.who == "bert":
            does, arguments = "yardstick", {"inputs": arguments["inputs"]}
        words = side.split()[1:]
        if PART in words:
            does = PART
        try:
            self.calls[side] = getattr(self.models, does)(words=words, **arguments)
            found = self.calls[side]()
        except Exception as error:
            # What a peer cannot do is a finding; the worker's other sides go on.
            return {"refused": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        if found is not None:
            np.save(output, self.models.numbers(found))
        return {"versions": self.models.versions}

    def forget(self) -> None:
        """Let go of what was prepared."""
        self.calls.clear()

    def time(self, side: str, seconds: float) -> list[float]:
        call = self.calls[side]
        return timed(lambda: self.models.finish(call()), seconds)

    def memory(self, side: str) -> int | None:
        call = self.calls[side]
        return self.models.memory(lambda: self.models.finish(call()))


def main() -> None:
    if sys.argv[1:] == ["make"]:
        serve({"make": make_checkpoint})
        return
    who, framework, threads, device = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    library = "isobert" if who == "ours" else "transformers"
    kind: Callable[..., PyTorch | TensorFlow] = TensorFlow if framework == "tf" else PyTorch
    if who == "onnx":
        kind = OnnxRuntime
    calls = Calls(kind(library, threads, device), who)
    serve({name: getattr(calls, name) for name in ("prepare", "forget", "time", "memory")})


if __name__ == "__main__":
    main()
