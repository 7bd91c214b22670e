"""What a checkpoint of a run in PyTorch holds beside the model: the optimizer, and where generators stand."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..core.hub import atomic_write
from ..core.registry import family_of, model_class
from ..errors import CheckpointError
from .modeling import PreTrainedModel

if TYPE_CHECKING:
    from accelerate import Accelerator

RANDOM_FILE = "random_states.pt"


def random_states(accelerator: Accelerator) -> dict[str, Any]:
    """Return where the generators of all processes stand, and float16's scale; all processes call this together."""
    states = [_random_state(accelerator.device)]
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        states = list(gather_object(states))
    scaler = None if accelerator.scaler is None else accelerator.scaler.state_dict()
    return {"processes": states, "scaler": scaler}


def restore_random_states(accelerator: Accelerator, states: Mapping[str, Any]) -> None:
    """Go on with the generators where they stood, if there are as many processes as there were."""
    if len(states["processes"]) == accelerator.num_processes:
        _set_random_state(states["processes"][accelerator.process_index], accelerator.device)
    if accelerator.scaler is not None and states["scaler"] is not None:
        accelerator.scaler.load_state_dict(states["scaler"])


def whole_weights(model: PreTrainedModel, wrapped: nn.Module) -> PreTrainedModel:
    """Return a copy, on the CPU, of a model whose weights are in shards; all processes call this together.

    Only in the main process does the copy have the weights. `wrapped` is what shares the model out.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    weights = get_model_state_dict(wrapped, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    # To shard a model gives it a class of another name.
    made = model_class(model.config.model_type, _head_of(model), "pt")
    with torch.device("meta"):
        whole: PreTrainedModel = made(model.config)
    whole.load_state_dict(weights, strict=False, assign=True)
    whole.tie_weights()
    return whole


def optimizer_state(wrapped: nn.Module, optimizer: torch.optim.Optimizer, *, is_sharded: bool) -> dict[str, Any]:
    """Return an optimizer's `state_dict`; with shards, the whole on the CPU, and all processes call this together."""
    if not is_sharded:
        return optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    named: Any = get_optimizer_state_dict(wrapped, optimizer, options=options)
    # By name there, by number in what an optimizer without shards takes over.
    names = [name for group in named.get("param_groups", ()) for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    groups = [
        {**group, "params": [numbers[name] for name in group["params"]], "param_names": list(group["params"])}
        for group in named.get("param_groups", ())
    ]
    return {"state": {numbers[name]: held for name, held in named.get("state", {}).items()}, "param_groups": groups}


def restore_optimizer(
    wrapped: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], *, fused: bool, is_sharded: bool
) -> None:
    """Let an optimizer go on from what `optimizer_state` returned, or an optimizer of Keras wrote.

    Args:
        wrapped: the model, as it is trained.
        optimizer: the model's, with the same groups of parameters.
        state: the state.
        fused: how the optimizer computes, which does not hang on how it did before.
        is_sharded: whether the weights are in shards.
    """
    groups = [{**group, "fused": fused, "foreach": None} for group in state["param_groups"]]
    if not is_sharded:
        optimizer.load_state_dict({**state, "param_groups": groups})
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    names = {n: name for group in groups for n, name in zip(group["params"], group["param_names"], strict=True)}
    named: Any = {
        "state": {names[number]: held for number, held in state["state"].items()},
        "param_groups": [
            {key: value for key, value in group.items() if key != "param_names"} | {"params": group["param_names"]}
            for group in groups
        ],
    }
    set_optimizer_state_dict(wrapped, optimizer, named, options=StateDictOptions(full_state_dict=True))


def _head_of(model: PreTrainedModel) -> str:
    """Return the head of a model ("ForMaskedLM"), whatever its class has been wrapped in."""
    family = family_of(model.config.model_type)
    names = [kind.__name__ for kind in type(model).__mro__]
    return next(head for name in names for head in family.heads if name == family.model_name(head, "pt"))


def save_content(content: Any, path: Path) -> None:
    """Write what `torch.save` takes; what is there stays until the new is complete."""
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def load_content(path: Path) -> Any:
    """Read a file of a checkpoint, without running code of it.

    Raises:
        CheckpointError: it is not there, or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}): a run cannot go on from here. Begin anew in another "
            "folder."
        ) from error


def _random_state(device: torch.device) -> dict[str, Any]:
    """Return where the generators of this process stand, in what `torch.load` reads without running code."""
    # Nothing here draws from Python's or NumPy's, but a model of the user's may.
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    state = {"python": random.getstate(), "numpy": (name, np.asarray(keys).tolist(), *rest)}
    state["torch"] = torch.get_rng_state()  # type: ignore[assignment]
    if device.type == "cuda":
        state["device"] = torch.cuda.get_rng_state(device)  # type: ignore[assignment]
    return state


def _set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "device" in state:
        torch.cuda.set_rng_state(state["device"], device)
