"""Predictions and metrics are the same from either framework, for every task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isobert
from isobert.core.tasks import TASKS, task_of
from support.tasks import inputs_of, labelled_examples, make_checkpoint

# A family each, so that all are seen.
PREDICTED = {
    "text-classification": "mobilebert",
    "token-classification": "convbert",
    "question-answering": "squeezebert",
    "multiple-choice": "convbert",
    "fill-mask": "rembert",
    "text-generation": "rembert",
    "embedding": "squeezebert",
}
MEASURED = {**PREDICTED, "pretraining": "mobilebert"}
del MEASURED["embedding"]


def both(task: str, folder: Path, **options: Any) -> list[Any]:
    return [isobert.pipeline(task, folder, framework=name, batch_size=3, **options) for name in ("pt", "tf")]


def assert_equal(pt: Any, tf: Any, where: str = "") -> None:
    """Hold answers to each other: numbers within 1e-5, everything else exactly."""
    assert type(pt) is type(tf), where
    if isinstance(pt, dict):
        assert list(pt) == list(tf), where
        for name in pt:
            assert_equal(pt[name], tf[name], f"{where}.{name}")
    elif isinstance(pt, list):
        assert len(pt) == len(tf), where
        for index, values in enumerate(zip(pt, tf, strict=True)):
            assert_equal(*values, f"{where}[{index}]")
    elif isinstance(pt, float):
        assert abs(pt - tf) <= 1e-5 * max(1.0, abs(pt)), f"{where}: {pt} and {tf}"
    else:
        assert pt == tf, where


def test_all_tasks_are_held_to_each_other() -> None:
    assert MEASURED.keys() | PREDICTED.keys() == TASKS.keys()


@pytest.mark.parametrize(("task", "family"), PREDICTED.items())
def test_both_frameworks_give_the_same_answers(task: str, family: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, family, task)
    pipelines = both(task, tmp_path, **({"doc_stride": 8} if task == "question-answering" else {}))
    inputs = inputs_of(task, pipelines[0].tokenizer)
    pt, tf = (pipeline(inputs) for pipeline in pipelines)
    assert len(pt) == len(inputs)
    assert_equal(pt, tf)
    # Answers that were all alike would show nothing.
    texts = {str({name: value for name, value in answer.items() if name != "scores"}) for answer in pt}
    assert len(texts) > 1


@pytest.mark.parametrize(("task", "family"), MEASURED.items())
def test_both_frameworks_measure_the_same(task: str, family: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, family, task)
    options = isobert.core.tasks.options.TaskOptions(max_length=24, doc_stride=4)
    examples = labelled_examples(task)
    found = []
    for framework, head in (("pt", "AutoModel"), ("tf", "TFAutoModel")):
        suffix = "" if task_of(task).head == "Model" else task_of(task).head
        model = getattr(isobert, head + suffix).from_pretrained(tmp_path)
        tokenizer = isobert.AutoTokenizer.from_pretrained(tmp_path)
        made = getattr(isobert, framework).inference.Pipeline(model, tokenizer, task_of(task), options, batch_size=3)
        found.append(made.evaluate(examples))
    assert_equal(*found)
    assert found[0]
    assert all(np.isfinite(value) for value in found[0].values())
