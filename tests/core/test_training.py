"""What both frameworks train by: options, the plan of steps, the history, the state, the report."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isobert.conversion.expected import expected_tensors
from isobert.conversion.parameter_order import UNDECAYED_PARTS
from isobert.core.auto import config_class
from isobert.core.registry import FAMILIES
from isobert.core.tasks import task_of
from isobert.core.training.history import History, read_history
from isobert.core.training.options import TrainingOptions
from isobert.core.training.plan import TrainingPlan, counts_of, decays, prepare, read_data, training_config
from isobert.core.training.report import Outcome, draw_curves, model_card, write_report
from isobert.core.training.state import RunState, last_checkpoint, new_checkpoint, publish_checkpoint
from isobert.errors import CheckpointError, InputError
from support.training import TASKS, config_for, examples, tokenizer_for

PAIRS = [(family, head) for family, entry in FAMILIES.items() for head in entry.heads]


def plan_for(task: str, options: TrainingOptions, count: int = 21, **how: Any) -> TrainingPlan:
    data = examples(task, count)
    return prepare(task_of(task), tokenizer_for(task), config_for(task, data, options), data, options, **how)


def test_options_survive_json(tmp_path: Path) -> None:
    options = TrainingOptions(
        buckets=(16, 32), columns={"text": ("a", 1), "label": 2}, max_grad_norm=0.0, max_length=32
    )
    options.save(tmp_path)
    assert TrainingOptions.load(tmp_path) == options
    assert options.max_grad_norm is None


def test_every_option_says_what_it_does_and_checks_itself() -> None:
    for spec in dataclasses.fields(TrainingOptions):
        assert spec.metadata["help"], spec.name
        with pytest.raises(InputError, match=f"The option {spec.name} is .*; it must be"):
            TrainingOptions(**{spec.name: object()})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"batch_size": 8, "accumulation": 3}, "multiple of accumulation"),
        ({"buckets": (8, 16), "max_length": 20}, "last of the buckets is 16 and max_length 20"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be None or a number from 0"),
        ({"schedule": "step"}, "'linear', 'cosine', 'constant'"),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TrainingOptions(**given)


def test_an_unknown_option_in_a_file_is_refused() -> None:
    with pytest.raises(InputError, match="'epoch' is no option; the options are accumulation, "):
        TrainingOptions.from_dict({"epoch": 3})


def test_a_run_may_go_on_elsewhere_but_not_otherwise() -> None:
    before = TrainingOptions(device="gpu", log_every=5)
    TrainingOptions(device="cpu", log_every=7, resume=True).check_resumes(before, "out")
    with pytest.raises(
        InputError, match="out was begun with other settings: seed is 2 and was 0; epochs is 4 and was 3"
    ):
        TrainingOptions(epochs=4, seed=2).check_resumes(before, "out")


@pytest.mark.parametrize(("family", "head"), PAIRS)
def test_biases_and_norms_do_not_decay(family: str, head: str) -> None:
    names = expected_tensors(config_class(family)(num_hidden_layers=1), head)
    kept = [name for name in names if not decays(name)]
    assert kept == [name for name in names if any(part in name for part in UNDECAYED_PARTS[0])]


def test_the_labels_and_the_dropout_of_a_config_are_those_of_the_run() -> None:
    options = TrainingOptions(dropout=0.0)
    data = examples("text-classification", 10)
    config = config_for("text-classification", data, options, "convbert", summary_last_dropout=0.3)
    assert config.label2id == {"bad": 0, "good": 1}
    dropouts = {name: value for name, value in config.to_dict().items() if "dropout" in name}
    assert set(dropouts.values()) == {0.0}
    assert config.head_dropout_prob == 0
    kept = config_for("text-classification", data, TrainingOptions(), "convbert", summary_last_dropout=0.3)
    assert kept.summary_last_dropout == 0.3
    with pytest.raises(InputError, match="embedding only predicts"):
        training_config(config, task_of("embedding"), data, None, options)


@pytest.mark.parametrize(("epochs", "max_steps", "total"), [(2, None, 6), (2, 5, 5), (1, 7, 7)])
def test_a_plan_goes_on_at_any_step(epochs: int, max_steps: int | None, total: int) -> None:
    options = TrainingOptions(epochs=epochs, max_steps=max_steps, batch_size=8)
    plan = plan_for("fill-mask", options)
    assert (plan.total_steps, plan.steps_per_epoch) == (total, 3)
    steps = list(plan.steps())
    assert [number for number, _ in steps] == list(range(total))
    for start in range(total + 1):
        for (number, batch), (again, other) in zip(steps[start:], plan.steps(start), strict=True):
            assert (number, batch.epoch, batch.index) == (again, other.epoch, other.index)
            for name, array in plan.inputs(batch).items():
                np.testing.assert_array_equal(array, plan.inputs(other)[name])
    assert [n for n in range(1, total + 1) if plan.evaluates_after(n)] == [n for n in (3, 6, total) if n <= total][
        : -(-total // 3)
    ]


@pytest.mark.parametrize("task", TASKS)
def test_the_parts_of_a_step_hold_what_counts_once(task: str) -> None:
    # Three processes of two parts each: most of the last batch only fills it up.
    options = TrainingOptions(batch_size=18, accumulation=2, max_steps=2)
    whole = [
        counts_of(task_of(task), plan_for(task, options).inputs(batch)) for _, batch in plan_for(task, options).steps()
    ]
    found = [dict.fromkeys(counts, 0) for counts in whole]
    for process in range(3):
        for step, batch in plan_for(task, options, process=process, processes=3).steps():
            parts = list(plan_for(task, options, process=process, processes=3).parts(batch))
            assert len(parts) == 2
            for inputs, counts in parts:
                assert len(inputs["input_ids"]) >= 1
                for name, count in counts.items():
                    found[step][name] += count
    assert found == whole


def test_what_a_loss_is_a_mean_of_is_counted() -> None:
    ids = np.ones((2, 3), np.int32)
    words = np.array([[5, -100, 7], [-100, -100, 9]])
    count = {
        "token-classification": ({"labels": words}, {"labels": 3}),
        "text-generation": ({"labels": words}, {"labels": 2}),
        "text-classification": ({"labels": np.array([1, -100])}, {"labels": 1}),
        "question-answering": ({"start_positions": np.array([0, 2])}, {"labels": 2}),
        "pretraining": (
            {"labels": words, "next_sentence_label": np.array([1, -100])},
            {"labels": 3, "next_sentence_label": 1},
        ),
    }
    for task, (labels, expected) in count.items():
        assert counts_of(task_of(task), {"input_ids": ids, **labels}) == expected
    several = np.array([[1.0, 0.0, 1.0], [np.nan] * 3], np.float32)
    assert counts_of(task_of("text-classification"), {"input_ids": ids, "labels": several}) == {"labels": 1}


def test_data_that_cannot_be_trained_on_are_refused(tmp_path: Path) -> None:
    options = TrainingOptions(buckets=(64,))
    with pytest.raises(InputError, match="last of the buckets is 64, and the model has 40 positions"):
        plan_for("text-classification", options)
    with pytest.raises(InputError, match="4 processes|shared evenly by 5 processes"):
        plan_for("text-classification", TrainingOptions(), processes=5)
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(InputError, match="empty.tsv: there is no example"):
        read_data(
            task_of("text-classification"), tmp_path / "empty.tsv", TrainingOptions(columns={"text": 0, "label": 1})
        )


def step_record(step: int) -> dict[str, Any]:
    figures = {"step": step, "epoch": step / 3, "loss": 1.0 / step, "learning_rate": 1e-3}
    return figures | {"tokens": 5, "padded_tokens": 8, "seconds": 0.5 * step}


def test_a_history_is_cut_where_a_run_goes_on(tmp_path: Path) -> None:
    history = History(tmp_path)
    for step in range(1, 6):
        history.add_step(**step_record(step))
    history.add_evaluation(step=3, epoch=1.0, metrics={"f1": math.nan, "accuracy": 0.5}, seconds=2.0)
    history.add_evaluation(step=5, epoch=2.0, metrics={"f1": 0.1}, seconds=2.0)
    history.close()
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # as a kill leaves it
    again = History(tmp_path, done=4)
    assert [record["step"] for record in again.steps] == [1, 2, 3, 4]
    assert again.evaluations[0]["metrics"] == {"f1": None, "accuracy": 0.5}
    again.add_step(**step_record(5))
    again.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "history.jsonl").open()] == [1, 2, 3, 3, 4, 5]
    assert History(tmp_path).steps == []
    (tmp_path / "history.jsonl").write_text('nothing\n{"step": 1}\n')
    with pytest.raises(CheckpointError, match=r"history\.jsonl:1: this line is no record"):
        read_history(tmp_path)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_a_run(loss: float) -> None:
    with pytest.raises(InputError, match=f"The loss of step 7 is {loss}: training has diverged"):
        History().add_step(**{**step_record(7), "loss": loss})


def test_the_best_evaluation_is_known(tmp_path: Path) -> None:
    state = RunState(rows=9)
    verdicts = []
    for step, value in enumerate((0.5, math.nan, 0.7, 0.7, 0.6), 1):
        state.step = step
        verdicts.append(state.judge({"accuracy": value}, "accuracy"))
    assert verdicts == [True, False, True, False, False]
    assert (state.best, state.best_step, state.worse, state.evaluated) == (0.7, 3, 2, 5)
    falling = RunState(step=1)
    assert [falling.judge({"perplexity": value}, "perplexity") for value in (9.0, 8.0, 8.5)] == [True, True, False]
    state.save(tmp_path)
    assert RunState.load(tmp_path) == state
    with pytest.raises(InputError, match="training data of 9 rows, and these have 8"):
        state.check_data(8, "out")


@pytest.mark.parametrize("change", [{"step": "3"}, {"best": []}, {"speed": 1}])
def test_a_damaged_state_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    RunState().save(tmp_path)
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=r"trainer_state\.json is damaged"):
        RunState.load(tmp_path)


def test_a_checkpoint_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for number in range(2):
        (new_checkpoint(tmp_path) / "file").write_text(str(number))
        publish_checkpoint(tmp_path)
        found = last_checkpoint(tmp_path)
        assert found is not None
        assert (found / "file").read_text() == str(number)
    # Cut short between the two moves.
    (new_checkpoint(tmp_path) / "file").write_text("2")
    (tmp_path / "checkpoint").rename(tmp_path / ".checkpoint.old")
    found = last_checkpoint(tmp_path)
    assert found is not None
    assert (found / "file").read_text() == "1"


def test_a_report_says_what_was_done(tmp_path: Path) -> None:
    options = TrainingOptions(weight_decay=0.2, whole_words=True)
    data = examples("text-classification", 12)
    history = History()
    for step in range(1, 300):
        history.add_step(**step_record(step))
    history.add_evaluation(step=3, epoch=1.0, metrics={"accuracy": 0.75}, seconds=2.0)
    outcome = Outcome(
        task=task_of("text-classification"),
        config=config_for("text-classification", data, options),
        options=options,
        framework="tf",
        base="some/model",
        train_source="train|a.tsv",
        train_examples=12,
        eval_source="dev.tsv",
        eval_examples=5,
        state=RunState(step=299, tokens=60, padded_tokens=80, best=0.75, best_step=3, metric="accuracy"),
        metrics={"accuracy": 0.75, "f1": math.nan},
        parameters=1234,
    )
    write_report(tmp_path, outcome, history)
    assert json.loads((tmp_path / "eval.json").read_text()) == {"accuracy": 0.75, "f1": None}
    assert (tmp_path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    card = (tmp_path / "README.md").read_text()
    for words in (
        *("pipeline_tag: text-classification", "TensorFlow/Keras", "`some/model`", "1,234 parameters"),
        *("| accuracy | 0.7500 |", "| of what was computed, padding | 25.0% |", "| training | train\\|a.tsv | 12 |"),
        *(
            "`bad`, `good`",
            "| weight_decay | 0.2 |",
            "| whole_words | True |",
            "TFSqueezeBertForSequenceClassification",
        ),
    ):
        assert words in card, words
    pt, tf = (model_card(dataclasses.replace(outcome, framework=name), with_curve=True) for name in ("pt", "tf"))
    assert pt.replace("PyTorch", "TensorFlow/Keras") == tf
    draw_curves(tmp_path / "both.png", {"PyTorch": history, "Keras": history}, "accuracy")
    assert (tmp_path / "both.png").stat().st_size > 10_000
