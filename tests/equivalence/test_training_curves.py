"""Both trainers, given the same data and options, have the same losses step by step."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isobert.core.registry import import_part
from isobert.core.tasks import task_of
from isobert.core.training.history import History, read_history
from isobert.core.training.options import TrainingOptions
from isobert.core.training.report import draw_curves
from isobert.errors import InputError
from support.training import config_for, examples, model_for, tokenizer_for
from training_curves import TOLERANCES, difference, losses, run, train_in_both


def check(histories: dict[str, History], dtype: str, steps: int, parts: int = 1) -> None:
    mine, other = histories.values()
    assert len(mine.steps) == len(other.steps) == steps
    assert difference(histories) <= TOLERANCES[dtype]
    for a, b in zip(mine.steps, other.steps, strict=True):
        # Keras fills parts up to one size, of which there may be more than PyTorch computes.
        free = ("loss", "seconds") if parts == 1 else ("loss", "seconds", "padded_tokens")
        assert {**a, **dict.fromkeys(free)} == {**b, **dict.fromkeys(free)}
    # It is training, in steps of which each has another loss than the one before.
    assert losses(mine)[-10:].mean() < 0.9 * losses(mine)[:10].mean()
    assert np.abs(np.diff(losses(mine))).min() > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_hundred_steps_on_real_text_have_the_same_losses_in_both_frameworks(dtype: str, tmp_path: Path) -> None:
    histories = run(dtype)
    check(histories, dtype, 100)
    draw_curves(tmp_path / "curves.png", histories)
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("task", "family", "dtype", "change"),
    [
        ("token-classification", "convbert", "float64", {"accumulation": 3, "schedule": "cosine"}),
        ("question-answering", "squeezebert", "float32", {"max_grad_norm": 0.1}),
        ("text-generation", "rembert", "float64", {"accumulation": 3, "max_grad_norm": None}),
        ("pretraining", "mobilebert", "float64", {"accumulation": 2, "batch_size": 10}),
        ("fill-mask", "rembert", "float32", {"whole_words": True}),
        ("multiple-choice", "squeezebert", "float64", {"schedule": "constant", "warmup_ratio": 0.0}),
    ],
)
def test_every_task_has_the_same_losses_in_both_frameworks(
    task: str, family: str, dtype: str, change: dict[str, Any]
) -> None:
    settings = {"max_steps": 100, "batch_size": 9, "learning_rate": 5e-3, "dropout": 0.0, "device": "cpu", **change}
    options = TrainingOptions(**settings, dtype=dtype, weight_decay=0.1, log_every=50)
    data = examples(task, 40)
    config = config_for(task, data, options, family, num_hidden_layers=1)
    histories = train_in_both(task_of(task), data, tokenizer_for(task, family), config, options)
    check(histories, dtype, 100, options.accumulation)


class _StopsAt:
    """A wish to stop that comes when a trainer has asked for it so often: once before each step."""

    def __init__(self, step: int) -> None:
        self.left = step + 1

    @property
    def asked(self) -> bool:
        self.left -= 1
        return not self.left


def test_a_run_that_pytorch_began_goes_on_in_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = TrainingOptions(
        max_steps=20, batch_size=9, learning_rate=5e-3, weight_decay=0.1, dropout=0.0, device="cpu", dtype="float64",
        resume=True,
    )  # fmt: skip
    task, data = task_of("token-classification"), examples("token-classification", 40)
    tokenizer = tokenizer_for(task.name)
    config = config_for(task.name, data, options, num_hidden_layers=1)

    def trainer(framework: str) -> Any:
        trainers = import_part(f".{framework}.trainer")
        with trainers.model_scope(options):
            model = model_for(task.name, config, framework)
        found = trainers.TFTrainer if framework == "tf" else trainers.Trainer
        return found(model, tokenizer, task, options, progress=False)

    trainer("pt").train(data, data, output=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("isobert.pt.trainer.stops_politely", lambda: nullcontext(_StopsAt(12)))
        assert trainer("pt").train(data, data, output=tmp_path / "moved").state.step == 12
    assert trainer("tf").train(data, data, output=tmp_path / "moved").state.step == 20
    whole, moved = (read_history(tmp_path / name) for name in ("whole", "moved"))
    assert [record["step"] for record in moved.steps] == list(range(1, 21))
    assert difference({"PyTorch": whole, "both": moved}) <= TOLERANCES["float64"]
    for a, b in zip(whole.evaluations, moved.evaluations, strict=True):
        assert (a["step"], a["metrics"]) == (b["step"], pytest.approx(b["metrics"], rel=1e-8))
    with pytest.raises(InputError, match="was begun in Keras"):
        trainer("pt").train(data, data, output=tmp_path / "moved")
