"""The learning rate of each step."""

from __future__ import annotations

import math

import pytest
import torch

from isobert.core.schedules import SCHEDULES, learning_rate_at
from isobert.core.training.options import TrainingOptions
from isobert.errors import InputError


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("total", "ratio", "warmup"), [(50, 0.1, 5), (7, 0.0, 0), (30, 0.1, 3), (10, 0.25, 3), (1, 0.0, 0)]
)
def test_a_rate_rises_in_the_warm_up_and_then_falls_to_nothing(
    schedule: str, total: int, ratio: float, warmup: int
) -> None:
    options = TrainingOptions(learning_rate=0.3, schedule=schedule, warmup_ratio=ratio)
    rates = [learning_rate_at(step, total, options) for step in range(total)]
    assert rates[:warmup] == pytest.approx([0.3 * step / warmup for step in range(warmup)])
    assert max(rates) == rates[warmup] == 0.3
    done = [(step - warmup) / (total - warmup) for step in range(warmup, total)]
    expected = {
        "linear": [0.3 * (1 - part) for part in done],
        "cosine": [0.15 * (1 + math.cos(math.pi * part)) for part in done],
        "constant": [0.3 for _ in done],
    }
    assert rates[warmup:] == pytest.approx(expected[schedule])


def test_cosine_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    options = TrainingOptions(learning_rate=0.2, schedule="cosine", warmup_ratio=0.0)
    for step in range(20):
        assert learning_rate_at(step, 20, options) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-12, abs=1e-15
        )
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("step", [-1, 10])
def test_there_is_no_rate_of_a_step_that_there_is_not(step: int) -> None:
    with pytest.raises(InputError, match=f"no step {step}: the steps are 0 to 9"):
        learning_rate_at(step, 10, TrainingOptions())
