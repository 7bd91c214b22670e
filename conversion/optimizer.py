"""The state of AdamW, apart from any framework: what lets training stop in one and go on in the other.

AdamW (Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101, algorithm 2) keeps of each parameter two running
means, of its gradient and of the gradient's square, and counts its steps. PyTorch keeps them by the parameter's number
(`torch.save(optimizer.state_dict(), "optimizer.pt")`, which Trainers write too), Keras by the variable's place; here
they have the parameter's name and layout on the Hub. `optimizer_keras.py` reads and writes Keras's form.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.hub import atomic_write
from ..core.registry import family_of
from ..errors import CheckpointError, InputError
from .expected import expected_tensors
from .formats import keras, keras_weights, torch_bin
from .formats.base import LazyTensor, TensorLike
from .optimizer_keras import KERAS_VARIABLES_PLACE, state_of_keras
from .optimizer_state import Moments, OptimizerState, check_state
from .parameter_order import is_trained, torch_orders, undecayed_sets

OPTIMIZER_FILE = "optimizer.pt"
"""What PyTorch's optimizer state is called beside a checkpoint."""


def read_optimizer(
    path: str | os.PathLike[str], config: Any, head: str, *, names: Sequence[str] | None = None
) -> OptimizerState:
    """Read the state of AdamW from PyTorch's `optimizer.pt`, or from the `.weights.h5` or `.keras` of a Keras model.

    Which number is which parameter is told in PyTorch's file by the names, which an optimizer keeps that was made from
    `model.named_parameters()`. Without names it is told by the order: all parameters in one group, or two groups, of
    which the second is left out of weight decay; the order may be that of this library's models or of transformers'.
    What fits the shapes must be one assignment only. In Keras's files it is told by the order alone.

    Args:
        path: the file; what it is is told by its content.
        config: the config of the model that was trained.
        head: the model's name after its family's, such as "ForMaskedLM".
        names: the parameters' Hub names in the order in which the optimizer was given them, where it is none of these,
            such as after a part of a Keras model was frozen.

    Raises:
        CheckpointError: the file is damaged, asks for code, holds another optimizer's state or another model's, or its
            parameters cannot be told apart.
        InputError: `names` are not the model's.
        MissingDependencyError: torch is not installed.
    """
    path = Path(path)
    if keras.recognises(path) or keras_weights.recognises(path):
        return _read_keras(path, config, head, names)
    return _read_torch(path, config, head, names)


def optimizer_file(files: Sequence[Path]) -> Path | None:
    """Return the file with the optimizer's state of a checkpoint; None if it has none.

    Args:
        files: the checkpoint's files. Keras keeps the state in them, PyTorch in `optimizer.pt` beside them.
    """
    first = files[0]
    if keras.recognises(first) or keras_weights.recognises(first):
        return first if _keras_state(first) else None
    beside = first.parent / OPTIMIZER_FILE
    return beside if beside.exists() else None


def _keras_state(path: Path) -> dict[str, TensorLike]:
    """Return the variables of the optimizer in a file of Keras, by their numbers."""
    source = keras.weights_in(open(path, "rb"), path) if keras.recognises(path) else path  # noqa: SIM115 (read later)
    _, tensors = keras_weights.tensors_of(keras_weights.open_h5(source, path), path)
    return {
        place.removeprefix(KERAS_VARIABLES_PLACE): tensor
        for place, tensor in tensors.items()
        if place.startswith(KERAS_VARIABLES_PLACE)
    }


def _read_keras(path: Path, config: Any, head: str, names: Sequence[str] | None) -> OptimizerState:
    """Read the state in a file that Keras wrote."""
    variables = _keras_state(path)
    if not variables:
        raise CheckpointError(
            f"{path} holds no optimizer's state: it was saved from a model that was not compiled. Save it after "
            "compile() and fit()."
        )
    noted = keras.read_config(path).get("compile_config") if keras.recognises(path) else None
    optimizer = noted.get("optimizer") if isinstance(noted, dict) else None
    return state_of_keras(variables, config, head, path, names=names, optimizer=optimizer)


def _read_torch(path: Path, config: Any, head: str, names: Sequence[str] | None) -> OptimizerState:
    """Read the state in a file that PyTorch wrote."""
    content = torch_bin.unpickle(path)
    groups = _groups(content, path)
    _check_arithmetic(groups, path)
    numbers = [number for group in groups for number in group["params"]]
    shapes = expected_tensors(config, head)
    file = torch_bin.TorchBinFile(path, _tensors)
    held = {number: file.shape(f"{number}.exp_avg") for number in numbers if number in content["state"]}
    given = _names_given(groups, numbers, names, shapes, path)
    if given is None:
        named, undecayed = _names_by_order(groups, held, config, head, path)
    else:
        named, undecayed = dict(zip(numbers, given, strict=True)), _undecayed(groups, given)
        _check_shapes(named, held, shapes, path)

    def lazy(key: str) -> LazyTensor:
        return LazyTensor(file.shape(key), np.dtype(file.dtype(key)), lambda: file.read(key))

    return OptimizerState(
        step=_step(content["state"], path),
        moments={named[number]: Moments(lazy(f"{number}.exp_avg"), lazy(f"{number}.exp_avg_sq")) for number in held},
        parameters=tuple(name for name in shapes if name in named.values()),
        undecayed=tuple(name for name in shapes if name in undecayed),
        learning_rate=float(groups[0]["lr"]),
        betas=(float(groups[0]["betas"][0]), float(groups[0]["betas"][1])),
        epsilon=float(groups[0]["eps"]),
        weight_decay=max(float(group["weight_decay"]) for group in groups),
    )


def _groups(content: Any, path: Path) -> list[dict[str, Any]]:
    """Return the groups of parameters of an AdamW's state, whose form is found to be right."""
    if not isinstance(content, Mapping) or not {"state", "param_groups"} <= set(content):
        held = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"{path} holds no optimizer's state, which is a dict of `state` and `param_groups`; it holds: {held}. "
            "Save optimizer.state_dict() alone."
        )
    groups, state = content["param_groups"], content["state"]
    is_sound = isinstance(groups, list) and groups and all(isinstance(group, Mapping) for group in groups)
    if not (is_sound and isinstance(state, Mapping) and all(isinstance(held, Mapping) for held in state.values())):
        raise CheckpointError(f"{path} is damaged: its `param_groups` or its `state` are not what PyTorch writes.")
    wanted = {"params", "lr", "betas", "eps", "weight_decay"}
    for number, group in enumerate(groups):
        if not wanted <= set(group):
            unset = ", ".join(sorted(wanted - set(group)))
            raise CheckpointError(f"{path} is of another optimizer than AdamW: its group {number} has no {unset}.")
    numbers = {number for group in groups for number in group["params"]}
    for number, held in state.items():
        if number not in numbers:
            raise CheckpointError(f"{path} is damaged: it holds the state of parameter {number}, which is in no group.")
        lacking = [key for key in ("step", "exp_avg", "exp_avg_sq") if key not in held]
        if lacking:
            raise CheckpointError(
                f"{path}: the state of parameter {number} has no {' and no '.join(lacking)}; it has "
                f"{', '.join(map(str, held)) or 'nothing'}. It is of another optimizer than AdamW, or damaged."
            )
        if held["exp_avg"].shape != held["exp_avg_sq"].shape:
            raise CheckpointError(f"{path} is damaged: the two moments of parameter {number} are of two shapes.")
    return groups


# Settings that change what the moments mean, and the values that they must have.
_ARITHMETIC = (("amsgrad", False), ("maximize", False), ("decoupled_weight_decay", True), ("correct_bias", True))


def _check_arithmetic(groups: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Raise where the state is not that of plain AdamW with one set of settings."""
    for group in groups:
        for key, value in _ARITHMETIC:
            if group.get(key, value) != value and not (key == "decoupled_weight_decay" and not group["weight_decay"]):
                raise CheckpointError(
                    f"{path} is of an optimizer with {key}={group[key]}; only plain AdamW ({key}={value}) is carried."
                )
    for key in ("lr", "betas", "eps"):
        values = list(dict.fromkeys(str(group[key]) for group in groups))
        if len(values) > 1:
            raise CheckpointError(
                f"{path}: its groups have different {key} ({', '.join(values)}). Keras has one for all, so this state "
                "cannot be carried."
            )
    decays = {float(group["weight_decay"]) for group in groups} - {0.0}
    if len(decays) > 1:
        raise CheckpointError(
            f"{path}: its groups have different weight_decay ({', '.join(map(str, sorted(decays)))}). Keras has one, "
            "and none for what is left out of it, so this state cannot be carried."
        )


def _tensors(content: Any, path: Path) -> dict[str, Any]:
    """Return the moments by the parameter's number and what they are called."""
    state = content["state"].items()
    return {f"{number}.{key}": held[key] for number, held in state for key in ("exp_avg", "exp_avg_sq")}


def _step(state: Mapping[int, Mapping[str, Any]], path: Path) -> int:
    steps = sorted({int(held["step"]) for held in state.values()})
    if len(steps) > 1:
        raise CheckpointError(
            f"{path}: its parameters made different numbers of steps ({steps[0]} to {steps[-1]}), since some were "
            "frozen for a time. Keras counts them once for all, so this state cannot be carried."
        )
    return steps[0] if steps else 0


# What wrappers of PyTorch put before each name.
_WRAPPERS = ("module.", "_orig_mod.")


def _names_given(
    groups: Sequence[Mapping[str, Any]],
    numbers: Sequence[int],
    names: Sequence[str] | None,
    shapes: Mapping[str, Any],
    path: Path,
) -> list[str] | None:
    """Return the name of each parameter where the caller or the file gives it; None if neither does."""
    error: type[Exception] = InputError
    given = list(names) if names is not None else []
    if names is None:
        if not all("param_names" in group for group in groups):
            return None
        error = CheckpointError
        given = [_unwrapped(name) for group in groups for name in group["param_names"]]
    unknown = [name for name in given if name not in shapes]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise error(
            f"{path}: the model has no parameter {', '.join(unknown[:5])}{more}; the state is of another model."
        )
    if len(given) != len(numbers) or len(set(given)) != len(given):
        raise error(f"{path}: {len(set(given))} different names are given for the state's {len(numbers)} parameters.")
    return given


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _undecayed(groups: Sequence[Mapping[str, Any]], given: Sequence[str]) -> frozenset[str]:
    """Return the parameters in groups without decay beside one that decays, or that comes before."""
    rest = iter(given)
    parts = [(float(group["weight_decay"]), [next(rest) for _ in group["params"]]) for group in groups]
    main = max(range(len(parts)), key=lambda number: (parts[number][0], -number))
    return frozenset(
        name for number, (decay, part) in enumerate(parts) if number != main and not decay for name in part
    )


def _check_shapes(
    named: Mapping[int, str], held: Mapping[int, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    for number, shape in held.items():
        name = named[number]
        if shape != shapes[name]:
            raise CheckpointError(
                f"{path}: the moments of {name} are {list(shape)}, and by the config it is {list(shapes[name])}: the "
                "state is of another model, or the config is not its own."
            )


def _candidates(sizes: Sequence[int], config: Any, head: str) -> Iterator[tuple[tuple[str, ...], frozenset[str]]]:
    """Yield the orders in which an optimizer may have been given the parameters, and what it does not decay."""
    shapes = expected_tensors(config, head)
    for order in torch_orders(config, head).values():
        trained = tuple(name for name in order if is_trained(name, config, head))
        for listed in dict.fromkeys((order, trained)):
            if list(sizes) == [len(listed)]:
                yield listed, frozenset()
            for left_out in undecayed_sets(shapes):
                decayed = tuple(name for name in listed if name not in left_out)
                undecayed = tuple(name for name in listed if name in left_out)
                if list(sizes) == [len(decayed), len(undecayed)]:
                    yield (*decayed, *undecayed), frozenset(undecayed)


def _names_by_order(
    groups: Sequence[Mapping[str, Any]], held: Mapping[int, tuple[int, ...]], config: Any, head: str, path: Path
) -> tuple[dict[int, str], frozenset[str]]:
    """Find the one usual order that fits the groups' sizes and the moments' shapes."""
    shapes = expected_tensors(config, head)
    numbers = [number for group in groups for number in group["params"]]
    sizes = [len(group["params"]) for group in groups]
    found: dict[Any, tuple[dict[int, str], frozenset[str]]] = {}
    for order, undecayed in _candidates(sizes, config, head):
        named = dict(zip(numbers, order, strict=True))
        if all(shape == shapes[named[number]] for number, shape in held.items()):
            # Two orders that part only in parameters without moments are one.
            found[(*(named[number] for number in held), undecayed)] = named, undecayed
    cure = (
        "make the optimizer from named parameters (torch.optim.AdamW(model.named_parameters())), which keeps the names "
        "in its state, or give `names`, the parameters in the order in which it was given them."
    )
    model = f"{family_of(config.model_type).prefix}{head}, which has {len(shapes)}"
    if len(found) > 1:
        raise CheckpointError(
            f"{path}: {len(found)} ways to assign its parameters to those of a {model}, fit their shapes: {cure}"
        )
    if not found:
        reason = (
            "its moments have other shapes than the parameters"
            if any(True for _ in _candidates(sizes, config, head))
            else f"its groups of {' and '.join(map(str, sizes))} parameters are in no usual way those"
        )
        raise CheckpointError(f"{path}: {reason} of a {model}. The state is of another model, or: {cure}")
    return next(iter(found.values()))


def write_optimizer(path: str | os.PathLike[str], state: OptimizerState, config: Any, head: str) -> None:
    """Write a state as PyTorch does: `optimizer.load_state_dict(torch.load(path))` takes it over.

    The parameters are in one group, in the order of the model's `named_parameters()`; where some are left out of weight
    decay, these are in a second group, as Trainers have it. An optimizer that is to take the state over must have the
    same groups. One tensor at a time is in memory.

    Args:
        path: the file; what is there stays until the new one is complete.
        state: the state.
        config: the config of the model.
        head: the model's name after its family's, such as "ForMaskedLM".

    Raises:
        CheckpointError: a moment is not of its parameter's shape, or the model has no such parameter.
        InputError: the state lacks settings that the form holds.
        MissingDependencyError: torch is not installed.
    """
    path = Path(path)
    shapes = expected_tensors(config, head)
    check_state(state, shapes, path)
    lacking = [name for name in ("learning_rate", "betas", "epsilon", "weight_decay") if getattr(state, name) is None]
    if lacking:
        raise InputError(
            f"{path} cannot be written, since the state lacks {', '.join(lacking)}, which PyTorch takes over with it. "
            "Put them in with dataclasses.replace(state, ...)."
        )
    listed = [name for name in shapes if name in state.parameters]
    decayed = [name for name in listed if name not in state.undecayed]
    undecayed = [name for name in listed if name in state.undecayed]
    settings = {
        "lr": state.learning_rate,
        "betas": state.betas,
        "eps": state.epsilon,
        "weight_decay": state.weight_decay,
        "amsgrad": False,
        "maximize": False,
        "foreach": None,
        "capturable": False,
        "differentiable": False,
        "fused": None,
        "decoupled_weight_decay": True,
    }
    groups: list[dict[str, Any]] = [{**settings, "params": list(range(len(decayed))), "param_names": decayed}]
    if undecayed:
        numbers = list(range(len(decayed), len(listed)))
        groups.append({**settings, "weight_decay": 0.0, "params": numbers, "param_names": undecayed})
    tensors: dict[str, TensorLike] = {}
    entries: dict[int, dict[str, Any]] = {}
    for number, name in enumerate((*decayed, *undecayed)):
        if name in state.moments:
            moments = state.moments[name]
            own: dict[str, TensorLike] = {
                "step": np.array(state.step, np.float32),
                "exp_avg": moments.mean,
                "exp_avg_sq": moments.square,
            }
            tensors |= {f"{name}.{key}": tensor for key, tensor in own.items()}
            entries[number] = {
                key: torch_bin.hollow_tensor(f"{name}.{key}", tensor, path) for key, tensor in own.items()
            }
    with atomic_write(path) as temporary:
        torch_bin.save({"state": entries, "param_groups": groups}, tensors, temporary)
