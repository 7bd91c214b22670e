"""What carries a run in PyTorch: the device, the processes, the precision, and each part's share of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..core.training.options import TrainingOptions
from ..core.training.plan import NEXT_SENTENCE
from ..errors import MissingDependencyError
from .inference import find_device
from .losses import cross_entropy

if TYPE_CHECKING:
    from accelerate import Accelerator


def accelerator_of(options: TrainingOptions) -> Accelerator:
    """Return what carries processes and precision.

    Raises:
        InputError: there is no such device.
        MissingDependencyError: accelerate, or for a TPU torch_xla, is not installed.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, PartialState
        from accelerate.utils import GradientAccumulationPlugin
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "Training with PyTorch needs accelerate, which is not installed: pip install 'isobert[pt,train]'."
        ) from error
    on_cpu = False
    if options.device == "tpu":
        try:
            import torch_xla  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                "A TPU needs torch_xla, which is not installed: pip install 'torch_xla[tpu]', or train with Keras."
            ) from error
    else:
        # Accelerate shares work among processes without a GPU only if it is told to.
        on_cpu = find_device(options.device).type == "cpu"
    # Accelerate remembers the first device and precision of a process, and this run may have others.
    AcceleratorState._reset_state(reset_partial_state=not PartialState._shared_state.get("num_processes", 1) > 1)
    mixed = {"bfloat16": "bf16", "float16": "fp16"}.get(options.dtype, "no")
    return Accelerator(
        cpu=on_cpu,
        mixed_precision=mixed,
        # A part's weight is this trainer's business.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )


def shared_loss(output: Mapping[str, Tensor], inputs: Mapping[str, Tensor], shares: Mapping[str, Any]) -> Tensor:
    """Return a part's share of a step's loss: each term of it by its own share.

    Where the shares of two terms differ, the loss is their sum, and one is computed again to tell them apart.
    """
    loss = output["loss"] * shares["labels"]
    if NEXT_SENTENCE in shares:
        other = cross_entropy(output["seq_relationship_logits"], inputs[NEXT_SENTENCE], NEXT_SENTENCE)
        loss = loss + other * (shares[NEXT_SENTENCE] - shares["labels"])
    return loss
