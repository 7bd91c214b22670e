"""The state of AdamW by the parameters' names: read from and written to what PyTorch and Keras keep."""

from __future__ import annotations

import json
import os
import random as python_random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

import isobert
from isobert.conversion.checkpoint import open_checkpoint
from isobert.conversion.convert import convert
from isobert.conversion.formats import keras as keras_form
from isobert.conversion.formats import keras_weights
from isobert.conversion.formats.base import About
from isobert.conversion.layouts import from_hub, to_hub
from isobert.conversion.optimizer import optimizer_file, read_optimizer, write_optimizer
from isobert.conversion.optimizer_keras import compile_config, keras_variables
from isobert.conversion.optimizer_state import Moments, OptimizerState
from isobert.conversion.parameter_order import is_trained, keras_order, torch_orders
from isobert.core.registry import FAMILIES, model_class
from isobert.errors import CheckpointError, CheckpointNotFoundError, InputError
from support.configs import CONFIG_SEEDS, random_config
from support.weights import hub_variables, random_value

PAIRS = [(family, head) for family, entry in FAMILIES.items() for head in entry.heads]
ORDERS = Path(__file__).parents[1] / "oracle" / "fixtures" / "parameter_orders.json"
STEP = 123
SETTINGS: dict[str, Any] = {"lr": 2.0**-9, "betas": (0.85, 0.98), "eps": 1e-6, "weight_decay": 0.02}


def moments_of(name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return two moments that hang on the name and the shape alone, so that any exchange shows."""
    mean, square = random_value(f"{name}.mean", shape, 1), random_value(f"{name}.square", shape, 2) ** 2
    return mean.astype(np.float32), square.astype(np.float32)


def fill(optimizer: torch.optim.Optimizer, named: dict[str, torch.nn.Parameter]) -> None:
    """Give every trained parameter moments, as after some steps."""
    for name, parameter in named.items():
        if parameter.requires_grad:
            mean, square = map(torch.from_numpy, moments_of(name, tuple(parameter.shape)))
            optimizer.state[parameter] = {"step": torch.tensor(float(STEP)), "exp_avg": mean, "exp_avg_sq": square}


def assert_state(state: OptimizerState, names: Sequence[str]) -> None:
    """Check that a state holds the moments of exactly these parameters."""
    assert state.step == STEP
    assert set(state.moments) == set(names)
    for name, held in state.moments.items():
        mean, square = moments_of(name, tuple(held.mean.shape))
        assert np.array_equal(np.asarray(held.mean), mean), name
        assert np.array_equal(np.asarray(held.square), square), name


def everything(named: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"params": list(named.values())}]


def without(*parts: str) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """Return what makes two groups of the trained parameters, the second without weight decay."""

    def groups(named: dict[str, Any]) -> list[dict[str, Any]]:
        trained = {name: p for name, p in named.items() if p.requires_grad}
        decayed = [p for name, p in trained.items() if not any(part in name for part in parts)]
        rest = [p for name, p in trained.items() if any(part in name for part in parts)]
        return [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]

    return groups


def vectors_apart(named: dict[str, Any]) -> list[dict[str, Any]]:
    many, one = [p for p in named.values() if p.ndim > 1], [p for p in named.values() if p.ndim < 2]
    return [{"params": many}, {"params": one, "weight_decay": 0.0}]


def trained_alone(named: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"params": [p for p in named.values() if p.requires_grad]}]


def shuffled_with_names(named: dict[str, Any]) -> list[dict[str, Any]]:
    items = list(named.items())
    python_random.Random(0).shuffle(items)
    return [{"params": items[::2]}, {"params": items[1::2], "weight_decay": 0.0}]


GROUPINGS = [
    everything,
    trained_alone,
    without("bias", "LayerNorm", "layernorm"),
    without("bias", "LayerNorm.weight"),
    vectors_apart,
    shuffled_with_names,
]


def torch_model(family: str, head: str, seed: int = 0, **overrides: Any) -> Any:
    return model_class(family, head, "pt")(random_config(family, seed, **overrides))


def save_torch(model: Any, path: Path, grouping: Callable[..., Any] = everything) -> torch.optim.AdamW:
    named = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(grouping(named), **SETTINGS)
    fill(optimizer, named)
    torch.save(optimizer.state_dict(), path)
    return optimizer


def trained_names(config: Any, head: str) -> tuple[str, ...]:
    return keras_order(config, head)


# Which number is which parameter.


@pytest.mark.parametrize("seed", CONFIG_SEEDS[:3])
@pytest.mark.parametrize(("family", "head"), PAIRS)
def test_the_keras_order_is_that_of_the_models_trainable_variables(family: str, head: str, seed: int) -> None:
    config = random_config(family, seed)
    with keras.StatelessScope():  # makes no values
        model = model_class(family, head, "tf")(config)
    trained = [found for found in hub_variables(model) if found[0].trainable]
    assert keras_order(config, head) == tuple(name for _, name, _ in trained)
    # What is computed for an optimizer has the variables' shapes.
    empty = OptimizerState(0, {}, keras_order(config, head), learning_rate=0.5)
    _, _, *slots = keras_variables(empty, config, head).values()
    assert [slot.shape for slot in slots] == [tuple(v.shape) for v, _, _ in trained for _ in range(2)]


@pytest.mark.parametrize("seed", CONFIG_SEEDS[:3])
@pytest.mark.parametrize(("family", "head"), PAIRS)
def test_what_counts_as_trained_is_what_the_torch_model_trains(family: str, head: str, seed: int) -> None:
    config = random_config(family, seed)
    with torch.device("meta"):
        model = model_class(family, head, "pt")(config)
    for name, parameter in model.named_parameters():
        assert is_trained(name, config, head) == parameter.requires_grad, name


@pytest.mark.parametrize("case", json.loads(ORDERS.read_text(encoding="utf-8")), ids=lambda c: c["family"] + c["head"])
def test_the_order_of_transformers_models_is_known(case: dict[str, Any]) -> None:
    if case["head"] not in FAMILIES[case["family"]].heads:
        pytest.skip("a model that this library does not have")
    config_name = FAMILIES[case["family"]].config_name
    assert config_name is not None
    config = getattr(isobert, config_name)(**case["fields"])
    assert list(torch_orders(config, case["head"])["transformers"]) == case["names"]


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize(
    ("family", "head"),
    [(family, "ForTokenClassification" if family == "convbert" else "ForMaskedLM") for family in FAMILIES],
)
def test_a_state_is_read_by_name_however_the_optimizer_was_given_its_parameters(
    family: str, head: str, grouping: Callable[..., Any], tmp_path: Path
) -> None:
    model = torch_model(family, head, seed=3)
    optimizer = save_torch(model, tmp_path / "optimizer.pt", grouping)
    state = read_optimizer(tmp_path / "optimizer.pt", model.config, head)
    assert_state(state, trained_names(model.config, head))
    assert (state.learning_rate, state.betas, state.epsilon, state.weight_decay) == tuple(SETTINGS.values())
    by_id = {id(p): name for name, p in model.named_parameters()}
    groups = [{by_id[id(p)] for p in group["params"]} for group in optimizer.param_groups]
    assert set(state.parameters) == set().union(*groups)
    assert set(state.undecayed) == (groups[1] if len(groups) > 1 else set())


@pytest.mark.parametrize(("family", "head"), [pair for pair in PAIRS if pair[1] != "ForMaskedLM"])
def test_a_state_of_every_other_head_is_read_by_name(family: str, head: str, tmp_path: Path) -> None:
    model = torch_model(family, head, seed=2)
    save_torch(model, tmp_path / "optimizer.pt", without("bias", "LayerNorm", "layernorm"))
    state = read_optimizer(tmp_path / "optimizer.pt", model.config, head)
    assert_state(state, trained_names(model.config, head))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "squeezebert"])
def test_a_state_in_the_order_of_transformers_models_is_told_from_one_in_this_librarys(
    family: str, tmp_path: Path
) -> None:
    model = torch_model(family, "ForMaskedLM", seed=3)
    named = dict(model.named_parameters())
    theirs = torch_orders(model.config, "ForMaskedLM")["transformers"]
    assert theirs != tuple(named)
    optimizer = torch.optim.AdamW([named[name] for name in theirs], **SETTINGS)
    fill(optimizer, named)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    state = read_optimizer(tmp_path / "optimizer.pt", model.config, "ForMaskedLM")
    assert_state(state, trained_names(model.config, "ForMaskedLM"))


def test_names_may_be_given_where_a_part_was_frozen(tmp_path: Path) -> None:
    model = torch_model("rembert", "ForTokenClassification", seed=3)
    model.base_model.embeddings.requires_grad_(False)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    save_torch(model, tmp_path / "optimizer.pt", trained_alone)
    with pytest.raises(CheckpointError, match="in no usual way"):
        read_optimizer(tmp_path / "optimizer.pt", model.config, "ForTokenClassification")
    state = read_optimizer(tmp_path / "optimizer.pt", model.config, "ForTokenClassification", names=list(named))
    assert_state(state, list(named))
    with pytest.raises(InputError, match=r"no parameter nonsense"):
        read_optimizer(tmp_path / "optimizer.pt", model.config, "ForTokenClassification", names=["nonsense"])


def test_an_assignment_that_the_shapes_leave_open_is_refused(tmp_path: Path) -> None:
    # The head's norm comes after its map here and before it in transformers, and all that is in the second group are
    # vectors of one width.
    model = torch_model("convbert", "ForMaskedLM")
    save_torch(model, tmp_path / "optimizer.pt", without("bias", "LayerNorm"))
    with pytest.raises(CheckpointError, match=r"2 ways to assign.*named_parameters\(\)"):
        read_optimizer(tmp_path / "optimizer.pt", model.config, "ForMaskedLM")


# To and from Keras.


@pytest.fixture(scope="module", params=list(FAMILIES))
def keras_case(request: pytest.FixtureRequest) -> tuple[Any, str]:
    """Return a compiled Keras model whose optimizer has moments, and its head."""
    head = "ForMaskedLM"
    model = model_class(request.param, head, "tf")(random_config(request.param, 3))
    model.compile(
        optimizer=isobert.TFAdamW(2.0**-9, 0.02, 0.85, 0.98, 1e-6, undecayed=("bias", "LayerNorm", "layernorm"))
    )
    model.optimizer.build(model.trainable_variables)
    give_moments(model)
    return model, head


def give_moments(model: Any) -> None:
    _, _, *slots = model.optimizer.variables
    model.optimizer.iterations.assign(STEP)
    trained = [found for found in hub_variables(model) if found[0].trainable]
    for (_, name, layout), mean, square in zip(trained, slots[::2], slots[1::2], strict=True):
        shape = to_hub(np.empty(mean.shape, np.uint8), layout).shape
        for slot, value in zip((mean, square), moments_of(name, shape), strict=True):
            slot.assign(from_hub(value, layout, tuple(slot.shape)))


@pytest.mark.parametrize("file", ["model.keras", "model.weights.h5"])
def test_what_keras_saves_is_read_by_name(keras_case: tuple[Any, str], file: str, tmp_path: Path) -> None:
    model, head = keras_case
    (model.save if file == "model.keras" else model.save_weights)(tmp_path / file)
    state = read_optimizer(tmp_path / file, model.config, head)
    assert_state(state, keras_order(model.config, head))
    assert state.learning_rate == SETTINGS["lr"]
    if file == "model.keras":
        assert (state.betas, state.epsilon, state.weight_decay) == ((0.85, 0.98), 1e-6, 0.02)
        assert state.undecayed
    else:
        assert (state.betas, state.epsilon, state.weight_decay) == (None, None, None)
        with pytest.raises(InputError, match=r"betas, epsilon, weight_decay.*dataclasses\.replace"):
            write_optimizer(tmp_path / "optimizer.pt", state, model.config, head)
        assert os.listdir(tmp_path) == [file]


def test_a_state_goes_from_keras_to_torch_and_back_bit_for_bit(keras_case: tuple[Any, str], tmp_path: Path) -> None:
    model, head = keras_case
    model.save_pretrained(tmp_path)
    model.optimizer.save_pretrained(tmp_path, model)
    twin = model_class(model.config.model_type, head, "pt").from_pretrained(tmp_path)
    named = dict(twin.named_parameters())
    optimizer = torch.optim.AdamW(without("bias", "LayerNorm", "layernorm")(named))
    optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pt"))
    assert len(optimizer.state) == len(keras_order(model.config, head))
    for name, parameter in named.items():
        if parameter.requires_grad:
            held = optimizer.state[parameter]
            mean, square = moments_of(name, tuple(parameter.shape))
            assert torch.equal(held["exp_avg"], torch.from_numpy(mean)), name
            assert torch.equal(held["exp_avg_sq"], torch.from_numpy(square)), name
            assert float(held["step"]) == STEP
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.02, 0.0]
    assert {(g["lr"], g["betas"], g["eps"]) for g in optimizer.param_groups} == {(2.0**-9, (0.85, 0.98), 1e-6)}
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    returned = isobert.TFAdamW.from_pretrained(tmp_path, model)
    for old, new in zip(model.optimizer.variables, returned.variables, strict=True):
        assert np.array_equal(keras.ops.convert_to_numpy(old), keras.ops.convert_to_numpy(new)), old.path
    ours, theirs = returned.get_config(), model.optimizer.get_config()
    assert {**ours, "name": None} == {**theirs, "name": None}


def test_what_keras_notes_of_the_optimizer_is_what_is_written_for_it(
    keras_case: tuple[Any, str], tmp_path: Path
) -> None:
    model, head = keras_case
    model.save(tmp_path / "model.keras")
    state = read_optimizer(tmp_path / "model.keras", model.config, head)
    noted = model.get_compile_config()
    noted["optimizer"]["config"]["name"] = "tf_adam_w"
    assert compile_config(state) == noted


@pytest.mark.parametrize("family", FAMILIES)
def test_a_keras_file_that_is_written_with_a_state_opens_ready_to_go_on(family: str, tmp_path: Path) -> None:
    head = "ForTokenClassification"
    model = torch_model(family, head, seed=3)
    model.save_pretrained(tmp_path)
    save_torch(model, tmp_path / "optimizer.pt", without("bias", "LayerNorm", "layernorm"))
    state = read_optimizer(tmp_path / "optimizer.pt", model.config, head)
    with open_checkpoint(tmp_path) as checkpoint:
        tensors = {name: checkpoint.read(name) for name in checkpoint.names()}
    about = About(model.config, head, keras_variables(state, model.config, head), compile_config(state))
    keras_form.write(tmp_path / "model.keras", tensors, about)
    keras_weights.write(tmp_path / "model.weights.h5", tensors, about)
    keras_class = model_class(family, head, "tf")  # naming it makes it known to Keras
    opened = keras.saving.load_model(tmp_path / "model.keras")
    expected = isobert.TFAdamW.from_pretrained(tmp_path, opened)
    weighted = keras_class(model.config)
    weighted.compile(optimizer=isobert.TFAdamW(undecayed=expected.undecayed))
    weighted.optimizer.build(weighted.trainable_variables)  # Keras loads no state into variables that are not there yet
    weighted.load_weights(tmp_path / "model.weights.h5")
    for optimizer in (opened.optimizer, weighted.optimizer):
        assert {**optimizer.get_config(), "name": None}.items() >= {"undecayed": list(expected.undecayed)}.items()
        for old, new in zip(expected.variables, optimizer.variables, strict=True):
            assert np.array_equal(keras.ops.convert_to_numpy(old), keras.ops.convert_to_numpy(new)), old.path
    assert opened.optimizer.beta_1 == 0.85
    for name in ("model.keras", "model.weights.h5"):
        assert optimizer_file([tmp_path / name]) == tmp_path / name
        assert_state(read_optimizer(tmp_path / name, model.config, head), keras_order(model.config, head))


@pytest.mark.parametrize("family", FAMILIES)
def test_converting_a_checkpoint_to_keras_and_back_leaves_every_bit_of_the_state(family: str, tmp_path: Path) -> None:
    head = "ForSequenceClassification"
    model = torch_model(family, head, seed=2)
    model.save_pretrained(tmp_path / "model")
    save_torch(model, tmp_path / "model" / "optimizer.pt", without("bias", "LayerNorm", "layernorm"))
    convert(tmp_path / "model", tmp_path / "keras", to="keras")
    convert(tmp_path / "keras", tmp_path / "back")
    begin, end = (torch.load(tmp_path / name / "optimizer.pt") for name in ("model", "back"))
    assert [g["params"] for g in begin["param_groups"]] == [g["params"] for g in end["param_groups"]]
    assert begin["state"].keys() == end["state"].keys()
    for number, held in begin["state"].items():
        assert all(torch.equal(held[key], end["state"][number][key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    for key in ("lr", "betas", "eps", "weight_decay"):
        assert [g[key] for g in begin["param_groups"]] == [g[key] for g in end["param_groups"]]


def test_a_schedule_keeps_the_rate_to_itself(tmp_path: Path) -> None:
    model = isobert.TFSqueezeBertForTokenClassification(random_config("squeezebert", 1))
    schedule = keras.optimizers.schedules.PolynomialDecay(0.5, 1000, 0.25)
    model.compile(optimizer=isobert.TFAdamW(schedule))
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(500)
    model.save_weights(tmp_path / "model.weights.h5")
    state = read_optimizer(tmp_path / "model.weights.h5", model.config, "ForTokenClassification")
    assert (state.step, state.learning_rate) == (500, None)
    model.optimizer.save_pretrained(tmp_path, model)
    returned = isobert.TFAdamW.from_pretrained(tmp_path, model, learning_rate=schedule)
    assert float(returned.learning_rate) == 0.375
    assert torch.load(tmp_path / "optimizer.pt")["param_groups"][0]["lr"] == 0.375


def test_a_parameter_that_was_never_updated_has_moments_of_zero_in_keras() -> None:
    config = random_config("mobilebert", 1)
    names = keras_order(config, "ForQuestionAnswering")
    variables = keras_variables(OptimizerState(5, {}, names), config, "ForQuestionAnswering")
    assert int(np.asarray(variables["0"])) == 5
    assert len(variables) == 1 + 2 * len(names)
    assert not any(np.asarray(tensor).any() for number, tensor in variables.items() if number != "0")


def test_moments_of_what_the_keras_model_does_not_train_are_refused() -> None:
    config = random_config("squeezebert", 1)
    name = "transformer.pooler.dense.bias"
    zeros = np.zeros(config.hidden_size, np.float32)
    state = OptimizerState(5, {name: Moments(zeros, zeros)}, (name,))
    with pytest.raises(CheckpointError, match=r"transformer\.pooler\.dense\.bias, which that model does not train"):
        keras_variables(state, config, "ForMaskedLM")


def test_a_frozen_part_is_carried_by_live_models(tmp_path: Path) -> None:
    model = isobert.TFMobileBertForSequenceClassification(random_config("mobilebert", 1))
    model.base_model.embeddings.trainable = False
    model.compile(optimizer=isobert.TFAdamW())
    model.optimizer.build(model.trainable_variables)
    give_moments(model)
    model.optimizer.save_pretrained(tmp_path, model)
    state = read_optimizer(tmp_path / "optimizer.pt", model.config, "ForSequenceClassification")
    assert_state(state, [name for name in keras_order(model.config, "ForSequenceClassification") if "emb" not in name])
    returned = isobert.TFAdamW.from_pretrained(tmp_path, model)
    assert len(returned.variables) == len(model.optimizer.variables)


def test_bfloat16_moments_keep_their_bits_and_one_state_is_always_one_file(tmp_path: Path) -> None:
    model = torch_model("convbert", "ForTokenClassification", seed=1).to(torch.bfloat16)
    named = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(named.values(), **SETTINGS)
    fill(optimizer, named)
    for held in optimizer.state.values():
        held |= {key: held[key].to(torch.bfloat16) for key in ("exp_avg", "exp_avg_sq")}
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    state = read_optimizer(tmp_path / "optimizer.pt", model.config, "ForTokenClassification")
    write_optimizer(tmp_path / "again.pt", state, model.config, "ForTokenClassification")
    write_optimizer(tmp_path / "third.pt", state, model.config, "ForTokenClassification")
    assert (tmp_path / "again.pt").read_bytes() == (tmp_path / "third.pt").read_bytes()
    again = torch.load(tmp_path / "again.pt")
    optimizer.load_state_dict(again)
    for number, held in torch.load(tmp_path / "optimizer.pt")["state"].items():
        for key, tensor in held.items():
            assert again["state"][number][key].dtype == tensor.dtype
            assert torch.equal(again["state"][number][key], tensor)


# Mistakes.


def altered(path: Path, alter: Callable[[Any], Any]) -> Path:
    """Save the state of a small model after some change, and return where."""
    model = torch_model("squeezebert", "Model", seed=1)
    save_torch(model, path)
    content = torch.load(path)
    torch.save(alter(content) or content, path)
    return path


MISTAKES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a state_dict": (lambda c: {"weight": torch.zeros(2)}, r"it holds: weight\. Save optimizer\.state_dict\(\) alone"),
    "a whole trainer": (lambda c: {"model": {}, "optimizer": c}, r"it holds: model, optimizer"),
    "a list": (lambda c: [c], "it holds: list"),
    "no groups": (lambda c: c | {"param_groups": []}, "is damaged: its `param_groups`"),
    "another optimizer": (lambda c: [c["param_groups"][0].pop("betas"), None][1], "of another optimizer .* no betas"),
    "a missing moment": (lambda c: [c["state"][3].pop("exp_avg_sq"), None][1], "parameter 3 has no exp_avg_sq"),
    "momentum": (lambda c: c["state"].update({0: {"momentum_buffer": None}}), "no step and no exp_avg and .*momentum"),
    "two shapes": (lambda c: c["state"][0].update(exp_avg=torch.zeros(2)), "two moments of parameter 0"),
    "a stray number": (lambda c: c["state"].update({999: c["state"][0]}), "parameter 999, which is in no group"),
    "other steps": (lambda c: c["state"][0].update(step=torch.tensor(1.0)), r"numbers of steps \(1 to 123\)"),
    "amsgrad": (lambda c: c["param_groups"][0].update(amsgrad=True), "amsgrad=True"),
    "Adam with decay": (lambda c: c["param_groups"][0].update(decoupled_weight_decay=False), "decoupled_weight_decay"),
    "another number": (
        lambda c: c["param_groups"][0]["params"].append(1000),
        "in no usual way those of a SqueezeBertM",
    ),
    "other names": (lambda c: c["param_groups"][0].update(param_names=["a"]), "has no parameter a;"),
    "other shapes": (
        lambda c: [h.update(exp_avg=torch.zeros(7), exp_avg_sq=torch.zeros(7)) for h in c["state"].values()][:0],
        "other shapes than the parameters of a SqueezeBertModel",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_file_that_holds_no_such_state_is_refused_in_one_message(mistake: str, tmp_path: Path) -> None:
    alter, message = MISTAKES[mistake]
    path = altered(tmp_path / "optimizer.pt", alter)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_optimizer(path, random_config("squeezebert", 1), "Model")
    assert str(path) in str(caught.value)


def test_groups_with_rates_of_their_own_are_refused(tmp_path: Path) -> None:
    model = torch_model("squeezebert", "Model", seed=1)
    named = dict(model.named_parameters())
    for key, values in {"lr": (0.1, 0.2), "weight_decay": (0.1, 0.2)}.items():
        groups = without("bias", "layernorm", "LayerNorm")(named)
        for group, value in zip(groups, values, strict=True):
            group[key] = value
        torch.save(torch.optim.AdamW(groups).state_dict(), tmp_path / "optimizer.pt")
        with pytest.raises(CheckpointError, match=rf"different {key} \(0\.1, 0\.2\)"):
            read_optimizer(tmp_path / "optimizer.pt", model.config, "Model")


class _Code:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


def test_a_pickle_with_code_in_it_is_refused(tmp_path: Path) -> None:
    path = altered(tmp_path / "optimizer.pt", lambda c: c["param_groups"][0].update(lr=_Code()))
    with pytest.raises(CheckpointError, match=r"optimizer\.pt is refused.*can run code"):
        read_optimizer(path, random_config("squeezebert", 1), "Model")


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = altered(tmp_path / "optimizer.pt", lambda c: None)
    whole = path.read_bytes()
    for share in (0.0, 0.01, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CheckpointError, match=r"optimizer\.pt cannot be read"):
            read_optimizer(path, random_config("squeezebert", 1), "Model")


def test_a_state_of_another_model_is_refused_when_it_is_written(tmp_path: Path) -> None:
    config = random_config("squeezebert", 1)
    model = torch_model("squeezebert", "Model", seed=1)
    save_torch(model, tmp_path / "optimizer.pt")
    state = read_optimizer(tmp_path / "optimizer.pt", config, "Model")
    with pytest.raises(CheckpointError, match="has no parameter embeddings"):
        write_optimizer(tmp_path / "other.pt", state, config, "ForMaskedLM")
    with pytest.raises(CheckpointError, match=r"a moment of embeddings\.word_embeddings\.weight is"):
        write_optimizer(tmp_path / "other.pt", state, config.replace(vocab_size=config.vocab_size + 1), "Model")
    assert not (tmp_path / "other.pt").exists()


def test_keras_files_without_a_state_or_with_another_optimizers_are_refused(tmp_path: Path) -> None:
    model = isobert.TFSqueezeBertModel(random_config("squeezebert", 1))
    model.save_weights(tmp_path / "model.weights.h5")
    assert optimizer_file([tmp_path / "model.weights.h5"]) is None
    with pytest.raises(CheckpointError, match="holds no optimizer's state: .* not compiled"):
        read_optimizer(tmp_path / "model.weights.h5", model.config, "Model")
    for optimizer in (keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.AdamW(amsgrad=True)):
        model.compile(optimizer=optimizer)
        model.optimizer.build(model.trainable_variables)
        model.save_weights(tmp_path / "model.weights.h5")
        with pytest.raises(CheckpointError, match=r"another optimizer or another model.*give `names`"):
            read_optimizer(tmp_path / "model.weights.h5", model.config, "Model")
    model.compile(optimizer=keras.optimizers.Lamb())
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    with pytest.raises(CheckpointError, match="the optimizer is 'Lamb'"):
        read_optimizer(tmp_path / "model.keras", model.config, "Model")
    with pytest.raises(CheckpointNotFoundError, match=r"has no optimizer\.pt"):
        isobert.TFAdamW.from_pretrained(tmp_path, model)


def test_a_state_without_settings_can_be_completed(tmp_path: Path) -> None:
    config = random_config("squeezebert", 1)
    names = keras_order(config, "Model")
    state = OptimizerState(0, {}, names, weight_decay=0.1, learning_rate=0.5)
    with pytest.raises(InputError, match="lacks betas, epsilon"):
        compile_config(state)
    write_optimizer(tmp_path / "optimizer.pt", replace(state, betas=(0.9, 0.99), epsilon=1e-8), config, "Model")
    assert torch.load(tmp_path / "optimizer.pt")["state"] == {}
