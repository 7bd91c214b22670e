"""Training that stops in one framework and goes on in the other is the training that never stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from isobert import TFAdamW
from isobert.core.registry import FAMILIES, model_class
from support.configs import random_config
from support.weights import randomise

HEAD = "ForMaskedLM"
STEPS = 100
BATCH, LENGTH = 8, 12
# A power of two, so that Keras, which may hold it in float32, has it exactly.
RATE = 2.0**-8
SETTINGS: dict[str, Any] = {"betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.1}
UNDECAYED = ("bias", "LayerNorm", "layernorm")
# Of a loss that falls from about 6 to about 1.
TOLERANCES = {"float32": 1e-4, "float64": 1e-8}


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[str]:
    """Set the dtype of what Keras computes besides the model: its mean of the losses and its learning rate."""
    before = keras.config.floatx()
    keras.config.set_floatx(request.param)
    yield request.param
    keras.config.set_floatx(before)


def batches(config: Any, first: int, last: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the batches of some steps, four that come again and again: of rising ids, a fifth hidden, with padding."""
    mask_id = config.vocab_size - 1
    for step in range(first, last):
        random = np.random.default_rng([7, step % 4])
        start, pace = random.integers(0, mask_id, (BATCH, 1)), random.integers(1, 4, (BATCH, 1))
        ids = (start + pace * np.arange(LENGTH)) % mask_id
        mask = np.arange(LENGTH) < random.integers(LENGTH // 2, LENGTH + 1, (BATCH, 1))
        hidden = (random.random((BATCH, LENGTH)) < 0.2) & mask
        hidden[:, 1] = True
        yield {
            "input_ids": np.where(hidden, mask_id, np.where(mask, ids, config.pad_token_id)),
            "attention_mask": mask.astype(np.int64),
            "labels": np.where(hidden, ids, -100),
        }


def train_in_torch(model: Any, optimizer: torch.optim.Optimizer, first: int, last: int) -> list[float]:
    losses = []
    for batch in batches(model.config, first, last):
        optimizer.zero_grad()
        loss = model(**{name: torch.from_numpy(array) for name, array in batch.items()}).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_in_keras(model: Any, first: int, last: int) -> list[float]:
    batch = next(batches(model.config, 0, 1))
    signature = {name: tf.TensorSpec(array.shape, array.dtype) for name, array in batch.items()}
    data = tf.data.Dataset.from_generator(lambda: batches(model.config, first, last), output_signature=signature)
    # An epoch of one step: its loss is the step's own and not a mean.
    return model.fit(data, epochs=last - first, steps_per_epoch=1, shuffle=False, verbose=0).history["loss"]


def torch_optimizer(model: Any) -> torch.optim.AdamW:
    """Return the optimizer as everyone makes it: biases and norms do not decay."""
    # One family's parameters have to be named; of the others the usual order is enough.
    is_named = model.config.model_type == "convbert"
    groups: list[dict[str, Any]] = [{"params": []}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = groups[any(part in name for part in UNDECAYED)]
            group["params"].append((name, parameter) if is_named else parameter)
    return torch.optim.AdamW(groups, lr=RATE, **SETTINGS)


def keras_optimizer() -> TFAdamW:
    return TFAdamW(
        RATE,
        weight_decay=SETTINGS["weight_decay"],
        beta_1=SETTINGS["betas"][0],
        beta_2=SETTINGS["betas"][1],
        epsilon=SETTINGS["eps"],
        undecayed=UNDECAYED,
    )


def start(family: str, dtype: str, folder: Path) -> None:
    """Save a new model without dropout."""
    config = random_config(family, 3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_hidden_layers=1)
    randomise(model_class(family, HEAD, "pt")(config).to(getattr(torch, dtype)), 3).save_pretrained(folder)


def open_model(family: str, framework: str, folder: Path, dtype: str) -> Any:
    return model_class(family, HEAD, framework).from_pretrained(folder, dtype=dtype)


def run_in_torch(family: str, folder: Path, half: Path, steps: int, dtype: str) -> list[float]:
    """Train all steps in PyTorch; save model and optimizer after half of them, as a user would."""
    model = open_model(family, "pt", folder, dtype).train()
    optimizer = torch_optimizer(model)
    losses = train_in_torch(model, optimizer, 0, steps // 2)
    model.save_pretrained(half)
    torch.save(optimizer.state_dict(), half / "optimizer.pt")
    return losses + train_in_torch(model, optimizer, steps // 2, steps)


def run_in_keras(family: str, folder: Path, half: Path, steps: int, dtype: str) -> list[float]:
    model = open_model(family, "tf", folder, dtype)
    model.compile(optimizer=keras_optimizer())
    losses = train_in_keras(model, 0, steps // 2)
    model.save_pretrained(half)
    model.optimizer.save_pretrained(half, model)
    return losses + train_in_keras(model, steps // 2, steps)


def go_on_in_torch(family: str, half: Path, steps: int, dtype: str, alter: Any = None) -> list[float]:
    model = open_model(family, "pt", half, dtype).train()
    optimizer = torch_optimizer(model)
    state = torch.load(half / "optimizer.pt")
    if alter is not None:
        alter(state["state"])
    optimizer.load_state_dict(state)
    return train_in_torch(model, optimizer, steps // 2, steps)


def go_on_in_keras(family: str, half: Path, steps: int, dtype: str) -> list[float]:
    model = open_model(family, "tf", half, dtype)
    model.compile(optimizer=TFAdamW.from_pretrained(half, model))
    return train_in_keras(model, steps // 2, steps)


def difference(found: list[float], expected: list[float]) -> float:
    assert len(found) == len(expected)
    return float(np.abs(np.subtract(found, expected)).max())


def check_carried_training(family: str, dtype: str, steps: int, tmp_path: Path) -> None:
    """Compare training that moves over half-way with training that stays, in both directions."""
    new, from_torch, from_keras = tmp_path / "new", tmp_path / "from-torch", tmp_path / "from-keras"
    start(family, dtype, new)
    in_torch = run_in_torch(family, new, from_torch, steps, dtype)
    in_keras = run_in_keras(family, new, from_keras, steps, dtype)
    carried = {
        "PyTorch then Keras": in_torch[: steps // 2] + go_on_in_keras(family, from_torch, steps, dtype),
        "Keras then PyTorch": in_keras[: steps // 2] + go_on_in_torch(family, from_keras, steps, dtype),
    }
    assert difference(in_keras, in_torch) <= TOLERANCES[dtype]
    for way, losses in carried.items():
        assert difference(losses, in_torch) <= TOLERANCES[dtype], way
        assert difference(losses, in_keras) <= TOLERANCES[dtype], way
    # It is training: the loss falls, before the move and after it.
    tenth, half = steps // 10, steps // 2
    means = [np.mean(in_torch[a : a + tenth]) for a in (0, half - tenth, steps - tenth)]
    assert means[0] > 1.1 * means[1]
    assert means[1] > 1.1 * means[2]


def test_training_that_moves_over_half_way_has_the_losses_of_training_that_stays(dtype: str, tmp_path: Path) -> None:
    check_carried_training("mobilebert", dtype, STEPS, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "mobilebert"])
def test_training_of_every_other_family_moves_over_too(family: str, dtype: str, tmp_path: Path) -> None:
    check_carried_training(family, dtype, STEPS, tmp_path)


def _swap_moments(state: dict[int, dict[str, torch.Tensor]]) -> None:
    for held in state.values():
        held["exp_avg"], held["exp_avg_sq"] = held["exp_avg_sq"], held["exp_avg"].abs()


def _drop_step(state: dict[int, dict[str, torch.Tensor]]) -> None:
    for held in state.values():
        held["step"] = torch.zeros_like(held["step"])


def _exchange_two(state: dict[int, dict[str, torch.Tensor]]) -> None:
    shapes = [tuple(held["exp_avg"].shape) for held in state.values()]
    first = next(number for number, shape in enumerate(shapes) if shapes.count(shape) > 1)
    second = shapes.index(shapes[first], first + 1)
    numbers = list(state)
    state[numbers[first]], state[numbers[second]] = state[numbers[second]], state[numbers[first]]


@pytest.mark.parametrize("alter", [dict.clear, _drop_step, _swap_moments, _exchange_two])
def test_the_losses_tell_when_the_state_is_lost_or_altered(alter: Any, tmp_path: Path) -> None:
    new, half = tmp_path / "new", tmp_path / "half"
    start("mobilebert", "float32", new)
    stayed = run_in_torch("mobilebert", new, half, 20, "float32")[10:]
    assert difference(go_on_in_torch("mobilebert", half, 20, "float32"), stayed) <= TOLERANCES["float32"]
    assert difference(go_on_in_torch("mobilebert", half, 20, "float32", alter), stayed) > 10 * TOLERANCES["float32"]


def gradients(shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield some gradients, a part of them not much larger than epsilon."""
    random = np.random.default_rng(3)
    for _ in range(20):
        yield random.normal(size=shape) * 10.0 ** random.uniform(-9, 1, shape)


@pytest.mark.parametrize("decays", [True, False])
def test_every_step_is_that_of_torchs_adamw(decays: bool) -> None:
    begin = np.random.default_rng(4).normal(size=(5, 3))
    expected = torch.nn.Parameter(torch.from_numpy(begin.copy()))
    theirs = torch.optim.AdamW([expected], lr=RATE, **{**SETTINGS, "weight_decay": 0.1 if decays else 0.0})
    found = keras.Variable(begin, dtype="float64", name="kernel")
    ours = keras_optimizer()
    if not decays:
        ours.undecayed = ("kernel",)
    stock = keras.optimizers.AdamW(RATE, 0.1, 0.9, 0.98, 1e-6)
    other = keras.Variable(begin, dtype="float64", name="kernel")
    for gradient in gradients((5, 3)):
        expected.grad = torch.from_numpy(gradient)
        theirs.step()
        ours.apply([keras.ops.convert_to_tensor(gradient)], [found])
        stock.apply([keras.ops.convert_to_tensor(gradient)], [other])
        np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=1e-14, atol=1e-15)
    # Keras's own steps are others, else this class would have no purpose.
    assert np.abs(other.numpy() - expected.detach().numpy()).max() > 1e-4


def test_rows_of_a_table_that_are_used_twice_add_up_before_they_are_squared() -> None:
    begin = np.random.default_rng(5).normal(size=(4, 3))
    rows = np.array([2, 0, 2])
    expected = torch.nn.Parameter(torch.from_numpy(begin.copy()))
    theirs = torch.optim.AdamW([expected], lr=RATE, **SETTINGS)
    found = keras.Variable(begin, dtype="float64", name="embeddings")
    ours = keras_optimizer()
    for gradient in gradients((3, 3)):
        expected.grad = torch.zeros(4, 3, dtype=torch.float64).index_add_(
            0, torch.from_numpy(rows), torch.from_numpy(gradient)
        )
        theirs.step()
        ours.apply([tf.IndexedSlices(tf.constant(gradient), tf.constant(rows), tf.constant([4, 3]))], [found])
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=1e-13, atol=1e-15)


def test_the_optimizer_works_compiled_by_xla(tmp_path: Path) -> None:
    start("squeezebert", "float32", tmp_path)
    losses = []
    for jit in (False, True):
        model = open_model("squeezebert", "tf", tmp_path, "float32")
        model.compile(optimizer=keras_optimizer(), jit_compile=jit)
        losses.append(train_in_keras(model, 0, 5))
    assert difference(losses[0], losses[1]) <= 1e-5
