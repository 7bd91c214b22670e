"""The PyTorch trainer: what it learns, what a step weighs, and that a run can be stopped anywhere."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import isobert
from isobert.core.tasks import task_of
from isobert.core.training.history import read_history
from isobert.core.training.options import TrainingOptions
from isobert.core.training.plan import decays, prepare
from isobert.core.training.report import Outcome
from isobert.core.training.state import RunState
from isobert.errors import CheckpointError, InputError, MissingDependencyError
from isobert.pt.trainer import Trainer
from support.training import TASKS, config_for, examples, model_for, tokenizer_for
from support.weights import parameters

RUN = Path(__file__).with_name("run_to_kill.py")
TWO = Path(__file__).with_name("run_two_processes.py")

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
    device="cpu",
    resume=True,
)


def trainer_for(task: str, options: TrainingOptions, count: int = 45, **fields: Any) -> tuple[Trainer, Any]:
    data = examples(task, count)
    model = model_for(task, config_for(task, data, options, **fields), "pt")
    return Trainer(model, tokenizer_for(task), task_of(task), options, progress=False), data


def run(task: str, options: TrainingOptions, output: Path, count: int = 45, **fields: Any) -> tuple[Trainer, Outcome]:
    trainer, data = trainer_for(task, options, count, **fields)
    return trainer, trainer.train(data, examples(task, 20, seed=1), output=output)


def losses(trainer: Trainer) -> list[float]:
    return [record["loss"] for record in trainer.history.steps]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_learnt_and_leaves_a_checkpoint_that_measures_the_same(task: str, tmp_path: Path) -> None:
    options = TrainingOptions(epochs=10, batch_size=8, learning_rate=8e-3, dropout=0.0, max_length=24, device="cpu")
    trainer, outcome = run(task, options, tmp_path)
    curve = losses(trainer)
    assert np.mean(curve[-5:]) < 0.8 * np.mean(curve[:5])
    head = type(trainer.model).__name__
    again = Trainer(getattr(isobert, head).from_pretrained(tmp_path), trainer.tokenizer, trainer.task, options)
    assert again.evaluate(examples(task, 20, seed=1)) == pytest.approx(outcome.metrics, rel=1e-6)
    assert json.loads((tmp_path / "eval.json").read_text()) == pytest.approx(outcome.metrics)


@pytest.mark.parametrize("task", TASKS)
def test_a_step_in_parts_is_the_step_in_one(task: str, tmp_path: Path) -> None:
    # Parts with different counts of labels, and a last batch that cannot be parted evenly.
    options = {"epochs": 2, "batch_size": 9, "learning_rate": 3e-3, "dropout": 0.0, "dtype": "float64", "device": "cpu"}
    found = [run(task, TrainingOptions(**options, accumulation=n), tmp_path / str(n), count=40)[0] for n in (1, 3)]
    assert losses(found[0]) == pytest.approx(losses(found[1]), rel=1e-10)
    mine, other = (parameters(trainer.model) for trainer in found)
    for name, value in mine.items():
        np.testing.assert_allclose(value, other[name], rtol=1e-8, atol=1e-10, err_msg=name)


def test_a_step_is_what_torch_makes_of_the_mean_loss(tmp_path: Path) -> None:
    options = TrainingOptions(
        epochs=1, batch_size=8, learning_rate=1e-2, warmup_ratio=0.0, weight_decay=0.1, max_grad_norm=0.3,
        schedule="constant", dropout=0.0, dtype="float64", keep_best=False, device="cpu",
    )  # fmt: skip
    trainer, data = trainer_for("token-classification", options)
    reference = model_for("token-classification", trainer.model.config, "pt").double().train()
    parts = [[p for n, p in reference.named_parameters() if decays(n) is decayed] for decayed in (True, False)]
    groups = [{"params": parts[0], "weight_decay": 0.1}, {"params": parts[1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, foreach=False, fused=False)
    plan = prepare(trainer.task, trainer.tokenizer, reference.config, data, options)
    for _, batch in plan.steps():
        inputs = {name: torch.from_numpy(array) for name, array in plan.inputs(batch).items()}
        reference(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.3)
        optimizer.step()
        optimizer.zero_grad()
    trainer.train(data, output=tmp_path)
    expected = parameters(reference)
    for name, value in parameters(trainer.model).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-8, atol=1e-10, err_msg=name)


def test_the_best_weights_are_kept_and_patience_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = TrainingOptions(epochs=20, batch_size=16, learning_rate=1e-3, patience=2, device="cpu")
    trainer, data = trainer_for("text-classification", options)
    seen: list[dict[str, np.ndarray]] = []

    def figures(*_: Any, **__: Any) -> dict[str, float]:
        seen.append({name: value.copy() for name, value in parameters(trainer.model).items()})
        return {"accuracy": [0.5, 0.7, 0.7, 0.6][len(seen) - 1]}

    monkeypatch.setattr("isobert.pt.inference.Pipeline.evaluate", figures)
    outcome = trainer.train(data, examples("text-classification", 5), output=tmp_path)
    assert len(seen) == 4
    assert (outcome.state.best, outcome.state.best_step, outcome.state.step) == (0.7, 6, 12)
    assert outcome.metrics == {"accuracy": 0.7}
    kept = isobert.SqueezeBertForSequenceClassification.from_pretrained(tmp_path)
    for name, value in seen[1].items():
        np.testing.assert_array_equal(parameters(kept)[name], value)
        np.testing.assert_array_equal(parameters(trainer.model)[name], value)


@pytest.mark.parametrize(
    "change", [{"dtype": "bfloat16"}, {"gradient_checkpointing": True}, {"buckets": (8, 24)}, {"compile": True}]
)
def test_other_ways_to_compute_learn_the_same(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    # What is traced is run as it is: a compiler of machine code takes long, and is not what is tested.
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compiled.append(how))
    options = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "dropout": 0.0, "device": "cpu"}
    expected, _ = run("text-classification", TrainingOptions(**options), tmp_path / "plain")
    found, _ = run("text-classification", TrainingOptions(**options, **change), tmp_path / "other")
    assert losses(found) == pytest.approx(losses(expected), rel=2e-2 if "dtype" in change else 1e-5)
    # In half precision something is rounded, or it was not used.
    assert (losses(found) != losses(expected)) or "dtype" not in change
    assert found.model.dtype == torch.float32
    assert found.model.base_model.encoder.gradient_checkpointing == ("gradient_checkpointing" in change)
    lengths = {record["padded_tokens"] // 8 for record in found.history.steps[:5]}
    assert lengths == ({8, 24} if "buckets" in change else {8, 16})
    assert compiled == ([{"dynamic": False}] if "compile" in change else [])
    # Nothing of how it was trained is left in the model.
    assert "forward" not in vars(found.model)


def start(output: Path, kill: str) -> int:
    """Run the script that trains as KILLED says, until it is killed; return its exit status."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(RUN.parents[1])}
    return subprocess.run([sys.executable, RUN, output, kill], env=environment, check=False).returncode


def figures_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


@pytest.fixture
def _one_thread() -> Any:
    """Add numbers up in the same order as the killed process does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_one_thread")
def test_a_run_killed_anywhere_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, outcome = run("text-classification", KILLED, tmp_path / "whole")
    assert outcome.state.step == 12
    broken = tmp_path / "broken"
    # In the middle of an epoch, while a checkpoint is written, and between the two moves that put it in its place.
    for kill, step in (("step 5", 3), ("write 6", 3), ("move 9", 6)):
        assert start(broken, kill) == -signal.SIGKILL
        held = broken / ("checkpoint" if kill != "move 9" else ".checkpoint.old")
        assert RunState.load(held).step == step, kill
    # A wish to stop is followed at once, with a checkpoint.
    assert start(broken, "term 8") == -signal.SIGTERM
    assert RunState.load(broken / "checkpoint").step == 8
    found, other = run("text-classification", KILLED, broken)
    for name, value in parameters(whole.model).items():
        np.testing.assert_array_equal(parameters(found.model)[name], value, err_msg=name)
    states = [torch.load(tmp_path / n / "checkpoint/optimizer.pt", weights_only=True) for n in ("whole", "broken")]
    torch.testing.assert_close(states[0]["state"], states[1]["state"], rtol=0, atol=0)
    histories = [read_history(tmp_path / name) for name in ("whole", "broken")]
    assert figures_of(histories[0].steps) == figures_of(histories[1].steps)
    assert figures_of(histories[0].evaluations) == figures_of(histories[1].evaluations)
    assert (other.state.tokens, other.metrics) == (outcome.state.tokens, outcome.metrics)


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    # Named, or Accelerate says which defaults it takes; a free port is one that nobody else listens at.
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    for name, command in (("one", [sys.executable]), ("two", launch)):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TWO.parents[1])}
        subprocess.run([*command, TWO, tmp_path / name], env=environment, check=True)
    for task in TASKS:
        one, two = (load_file(tmp_path / name / task / "model.safetensors") for name in ("one", "two"))
        for name, value in one.items():
            np.testing.assert_allclose(two[name], value, rtol=1e-8, atol=1e-10, err_msg=f"{task} {name}")
        mine, other = (read_history(tmp_path / name / task) for name in ("one", "two"))
        for a, b in zip(mine.steps, other.steps, strict=True):
            assert (b["step"], b["tokens"], b["loss"]) == (a["step"], a["tokens"], pytest.approx(a["loss"], rel=1e-10))
        assert mine.evaluations[0]["metrics"] == pytest.approx(other.evaluations[0]["metrics"], rel=1e-8)
    card = (tmp_path / "two" / "pretraining" / "README.md").read_text()
    assert "MobileBertForPreTraining for pretraining" in card


def test_what_is_in_shards_is_gathered_and_shared_out_again() -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TWO.parents[1])}
    subprocess.run([*launch, TWO.with_name("run_shards.py")], env=environment, check=True)


def test_a_run_goes_on_only_as_it_began(tmp_path: Path) -> None:
    options = {"max_steps": 2, "batch_size": 8, "device": "cpu"}
    run("text-classification", TrainingOptions(**options), tmp_path)
    with pytest.raises(InputError, match="holds a run already.*--resume"):
        run("text-classification", TrainingOptions(**options), tmp_path)
    with pytest.raises(InputError, match=r"other settings: learning_rate is 0\.001 and was 5e-05"):
        run("text-classification", TrainingOptions(**options, learning_rate=1e-3, resume=True), tmp_path)
    with pytest.raises(InputError, match="training data of 45 rows, and these have 44"):
        run("text-classification", TrainingOptions(**options, resume=True), tmp_path, count=44)
    state = RunState.load(tmp_path / "checkpoint")
    dataclasses.replace(state, framework="tf").save(tmp_path / "checkpoint")
    with pytest.raises(InputError, match="begun in Keras.*--framework tf"):
        run("text-classification", TrainingOptions(**options, resume=True), tmp_path)
    state.save(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "optimizer.pt").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"optimizer\.pt cannot be read"):
        run("text-classification", TrainingOptions(**options, resume=True), tmp_path)


def test_mistakes_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = TrainingOptions(max_steps=2, device="cpu")
    trainer, data = trainer_for("text-classification", options)
    with pytest.raises(InputError, match="label 'fair' is none of the model's, which are 'bad', 'good'"):
        trainer.train([{**data[0], "label": "fair"}], output=tmp_path)
    with pytest.raises(InputError, match="the list of them is empty"):
        trainer.train([], output=tmp_path)
    with torch.no_grad():
        trainer.model.classifier.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="The loss of step 1 is nan"):
        trainer.train(data, output=tmp_path)
    if not torch.accelerator.is_available():
        with pytest.raises(InputError, match="no GPU"):
            Trainer(trainer.model, trainer.tokenizer, trainer.task, TrainingOptions(device="gpu"))
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingDependencyError, match=r"isobert\[pt,train\]"):
        Trainer(trainer.model, trainer.tokenizer, trainer.task, options)
