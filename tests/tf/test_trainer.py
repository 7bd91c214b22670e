"""The Keras trainer: what it learns, what a step weighs on several devices, and that a run can be stopped anywhere."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

import isobert
from isobert.core.batches import Batches
from isobert.core.tasks import task_of
from isobert.core.training.history import read_history
from isobert.core.training.options import TrainingOptions
from isobert.core.training.plan import prepare
from isobert.core.training.report import Outcome
from isobert.core.training.state import RunState
from isobert.errors import CheckpointError, InputError
from isobert.tf.data import element
from isobert.tf.distribution import strategy_of
from isobert.tf.trainer import TFTrainer, model_scope
from support.training import TASKS, config_for, examples, model_for, tokenizer_for
from support.weights import parameters

KILL = Path(__file__).with_name("run_to_kill.py")
SEVERAL = Path(__file__).with_name("run_on_several_devices.py")

# Enough of every kind of state: dropout, an epoch that ends with a small batch, evaluations, more than one part a step.
KILLED = TrainingOptions(
    epochs=2,
    batch_size=8,
    accumulation=2,
    learning_rate=2e-3,
    dropout=0.2,
    eval_every=4,
    save_every=3,
    log_every=2,
    resume=True,
)


def trainer_for(task: str, options: TrainingOptions, count: int = 45, **fields: Any) -> tuple[TFTrainer, Any]:
    data = examples(task, count)
    with model_scope(options):
        model = model_for(task, config_for(task, data, options, **{"num_hidden_layers": 1, **fields}), "tf")
    return TFTrainer(model, tokenizer_for(task), task_of(task), options, progress=False), data


def run(task: str, options: TrainingOptions, output: Path, count: int = 45, **fields: Any) -> tuple[TFTrainer, Outcome]:
    trainer, data = trainer_for(task, options, count, **fields)
    return trainer, trainer.train(data, examples(task, 20, seed=1), output=output)


def losses(trainer: TFTrainer) -> list[float]:
    return [record["loss"] for record in trainer.history.steps]


def test_a_task_is_learnt_and_leaves_a_checkpoint_that_measures_the_same(tmp_path: Path) -> None:
    options = TrainingOptions(epochs=10, batch_size=8, learning_rate=8e-3, dropout=0.0, max_length=24)
    trainer, outcome = run("text-classification", options, tmp_path)
    curve = losses(trainer)
    assert np.mean(curve[-5:]) < 0.5 * np.mean(curve[:5])
    assert outcome.metrics["accuracy"] > 0.8
    assert json.loads((tmp_path / "eval.json").read_text()) == pytest.approx(outcome.metrics)
    assert read_history(tmp_path).steps == trainer.history.steps
    assert "trained with isobert in TensorFlow/Keras" in (tmp_path / "README.md").read_text()
    for prefix in ("", "TF"):
        model = getattr(isobert, f"{prefix}SqueezeBertForSequenceClassification").from_pretrained(tmp_path)
        kept = parameters(model)
        for name, value in parameters(trainer.model).items():
            np.testing.assert_array_equal(kept[name], value, err_msg=name)
    again = TFTrainer(model, trainer.tokenizer, trainer.task, options)
    assert again.evaluate(examples("text-classification", 20, seed=1)) == pytest.approx(outcome.metrics, rel=1e-6)


def test_the_best_weights_are_kept_and_patience_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = TrainingOptions(epochs=20, batch_size=16, learning_rate=1e-3, patience=2)
    trainer, data = trainer_for("text-classification", options)
    seen: list[dict[str, np.ndarray]] = []

    def figures(*_: Any, **__: Any) -> dict[str, float]:
        seen.append({name: value.copy() for name, value in parameters(trainer.model).items()})
        return {"accuracy": [0.5, 0.7, 0.7, 0.6][len(seen) - 1]}

    monkeypatch.setattr("isobert.tf.inference.Pipeline.evaluate", figures)
    outcome = trainer.train(data, examples("text-classification", 5), output=tmp_path)
    assert len(seen) == 4
    assert (outcome.state.best, outcome.state.best_step, outcome.state.step) == (0.7, 6, 12)
    assert outcome.metrics == {"accuracy": 0.7}
    kept = isobert.TFSqueezeBertForSequenceClassification.from_pretrained(tmp_path)
    for name, value in seen[1].items():
        np.testing.assert_array_equal(parameters(kept)[name], value)
        np.testing.assert_array_equal(parameters(trainer.model)[name], value)


PLAIN: dict[str, Any] = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "dropout": 0.0, "max_length": 24}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TFTrainer:
    """Return a trainer that has trained as others do in other ways."""
    return run("text-classification", TrainingOptions(**PLAIN), tmp_path_factory.mktemp("plain"))[0]


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        ({"dtype": "bfloat16"}, 2e-2),
        ({"dtype": "float16"}, 5e-3),
        ({"gradient_checkpointing": True}, 1e-5),
        ({"steps_per_execution": 4}, 1e-6),
        ({"compile": True, "buckets": (24,)}, 1e-5),
    ],
)
def test_other_ways_to_compute_learn_the_same(
    change: dict[str, Any], tolerance: float, plain: TFTrainer, tmp_path: Path
) -> None:
    found, outcome = run("text-classification", TrainingOptions(**PLAIN, **change), tmp_path)
    assert losses(found) == pytest.approx(losses(plain), rel=tolerance)
    # All steps are there, those of the last execution, which is shorter, included.
    assert [record["step"] for record in found.history.steps] == [1, 2, 3, 4, 5, 6]
    assert [record["step"] for record in found.history.evaluations] == [6]
    assert outcome.state.tokens == sum(record["tokens"] for record in plain.history.steps)
    assert {keras.backend.standardize_dtype(variable.dtype) for variable in found.model.weights} == {"float32"}


def test_steps_of_float16_that_overflow_are_left_out(tmp_path: Path) -> None:
    options = TrainingOptions(max_steps=3, batch_size=8, learning_rate=1e-3, dtype="float16", warmup_ratio=0.0)
    trainer, data = trainer_for("text-classification", options)
    monkey = keras.optimizers.LossScaleOptimizer
    before = monkey.__init__.__defaults__
    before_weights = parameters(trainer.model)
    try:
        # The largest scale that there is: the first steps overflow, and each halves it.
        monkey.__init__.__defaults__ = (2.0**120, *before[1:])
        trainer.train(data, output=tmp_path)
    finally:
        monkey.__init__.__defaults__ = before
    assert len(trainer.history.steps) == 3
    for name, value in parameters(trainer.model).items():
        np.testing.assert_array_equal(value, before_weights[name])


@pytest.mark.parametrize("task", TASKS)
def test_devices_and_parts_share_the_rows_and_what_counts_of_a_step(task: str) -> None:
    options = TrainingOptions(batch_size=6, accumulation=2)
    data = examples(task, 7)
    config = config_for(task, data, options)
    plan = prepare(task_of(task), tokenizer_for(task), config, data, options, fill=True)
    assert isinstance(plan.batches, Batches)
    *_, (_, last) = list(plan.steps())[: plan.steps_per_epoch]
    whole = plan.inputs(last)
    for replicas in (1, 2, 4):
        elements = [element(plan, last, replica, replicas) for replica in range(replicas)]
        shapes = {name: array.shape for name, array in elements[0][0].items()}
        ids: list[Any] = []
        for inputs, counts in elements:
            assert {name: array.shape for name, array in inputs.items()} == shapes
            labels = inputs["labels"] if "labels" in inputs else inputs["start_positions"]
            is_counted = (labels != -100).reshape(*labels.shape[:2], -1)
            for part, row in np.argwhere(is_counted.any(-1)):
                ids.append(inputs["input_ids"][part, row].tolist())
            words = is_counted[..., 1:] if task == "text-generation" else is_counted
            assert counts["labels"].tolist() == words.sum((1, 2)).tolist()
        assert ids == whole["input_ids"][last.counted].tolist()


def start(script: Path, *arguments: Any, **environment: str) -> subprocess.Popen[bytes]:
    around = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(script.parents[1]), **environment}
    return subprocess.Popen([sys.executable, script, *map(str, arguments)], env=around)


def figures_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def test_a_run_killed_anywhere_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, outcome = run("text-classification", KILLED, tmp_path / "whole")
    assert outcome.state.step == 12
    broken = tmp_path / "broken"
    # While the checkpoint after step 6, in the middle of an epoch, is written.
    assert start(KILL, broken, "write 6").wait() == -signal.SIGKILL
    assert RunState.load(broken / "checkpoint").step == 3
    # A wish to stop is followed at once, with a checkpoint.
    assert start(KILL, broken, "term 8").wait() == -signal.SIGTERM
    assert RunState.load(broken / "checkpoint").step == 8
    found, other = run("text-classification", KILLED, broken)
    for name, value in parameters(whole.model).items():
        np.testing.assert_array_equal(parameters(found.model)[name], value, err_msg=name)
    states = [load_file(tmp_path / name / "checkpoint/keras_state.safetensors") for name in ("whole", "broken")]
    assert any(name.startswith("dropout") for name in states[0])
    for name, value in states[0].items():
        np.testing.assert_array_equal(states[1][name], value, err_msg=name)
    histories = [read_history(tmp_path / name) for name in ("whole", "broken")]
    assert figures_of(histories[0].steps) == figures_of(histories[1].steps)
    assert figures_of(histories[0].evaluations) == figures_of(histories[1].evaluations)
    assert (other.state.tokens, other.metrics) == (outcome.state.tokens, outcome.metrics)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.mark.parametrize("strategy", ["mirrored", "multiworker"])
def test_two_devices_and_two_processes_learn_what_one_does(strategy: str, tmp_path: Path) -> None:
    workers: list[dict[str, str]] = [{}]
    if strategy == "multiworker":
        cluster = {"worker": [f"localhost:{port}" for port in _free_ports(2)]}
        tasks = [{"cluster": cluster, "task": {"type": "worker", "index": index}} for index in range(2)]
        workers = [{"TF_CONFIG": json.dumps(task)} for task in tasks]
    running = [start(SEVERAL, tmp_path / "two", strategy, **environment) for environment in workers]
    alone = start(SEVERAL, tmp_path / "one", "default", strategy)
    assert [process.wait() for process in (*running, alone)] == [0] * (len(workers) + 1)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-8, atol=1e-10, err_msg=name)
    mine, other = (read_history(tmp_path / name) for name in ("one", "two"))
    assert len(mine.steps) == 3
    for a, b in zip(mine.steps, other.steps, strict=True):
        assert (b["step"], b["tokens"], b["loss"]) == (a["step"], a["tokens"], pytest.approx(a["loss"], rel=1e-10))
    assert mine.evaluations[0]["metrics"] == pytest.approx(other.evaluations[0]["metrics"], rel=1e-8)


def test_a_run_goes_on_only_as_it_began(tmp_path: Path) -> None:
    options = {"max_steps": 2, "batch_size": 8}
    run("text-classification", TrainingOptions(**options), tmp_path)
    with pytest.raises(InputError, match="holds a run already.*--resume"):
        run("text-classification", TrainingOptions(**options), tmp_path)
    with pytest.raises(InputError, match=r"other settings: learning_rate is 0\.001 and was 5e-05"):
        run("text-classification", TrainingOptions(**options, learning_rate=1e-3, resume=True), tmp_path)
    with pytest.raises(InputError, match="training data of 45 rows, and these have 44"):
        run("text-classification", TrainingOptions(**options, resume=True), tmp_path, count=44)
    state = tmp_path / "checkpoint" / "keras_state.safetensors"
    whole = state.read_bytes()
    state.write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"keras_state\.safetensors cannot be read"):
        run("text-classification", TrainingOptions(**options, resume=True), tmp_path)
    state.write_bytes(whole)
    with pytest.raises(CheckpointError, match="is of another model, or of other settings"):
        # What is saved has no dropout.
        run("text-classification", TrainingOptions(**options, resume=True), tmp_path, hidden_dropout_prob=0.0)


def test_mistakes_are_answered(tmp_path: Path) -> None:
    options = TrainingOptions(max_steps=2)
    trainer, data = trainer_for("text-classification", options)
    with pytest.raises(InputError, match="label 'fair' is none of the model's, which are 'bad', 'good'"):
        trainer.train([{**data[0], "label": "fair"}], output=tmp_path)
    with pytest.raises(InputError, match="the list of them is empty"):
        trainer.train([], output=tmp_path)
    trainer.model.classifier.kernel.assign(np.full(trainer.model.classifier.kernel.shape, np.nan))
    with pytest.raises(InputError, match="The loss of step 1 is nan"):
        trainer.train(data, output=tmp_path)
    parts = (trainer.model, trainer.tokenizer, trainer.task)
    with pytest.raises(InputError, match="is in float32, and dtype='bfloat16' wants mixed_bfloat16"):
        TFTrainer(*parts, TrainingOptions(dtype="bfloat16"))
    with pytest.raises(InputError, match="made outside of the strategy 'mirrored'"):
        TFTrainer(*parts, TrainingOptions(strategy="mirrored"))
    if not keras.distribution.list_devices("gpu"):
        with pytest.raises(InputError, match="no GPU"):
            TFTrainer(*parts, TrainingOptions(device="gpu"))
    with pytest.raises(InputError, match="no TPU"):
        strategy_of(TrainingOptions(strategy="tpu"))
