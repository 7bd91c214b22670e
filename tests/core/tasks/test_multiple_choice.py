"""Multiple choice: choices in every form, rows of choices, answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isobert.core.config import PretrainedConfig
from isobert.core.tasks import task_of
from isobert.core.tasks.files import parse_columns
from isobert.core.tasks.options import TaskOptions
from isobert.errors import InputError

TASK = task_of("multiple-choice")


def test_choices_are_found_in_every_form(tmp_path: Path) -> None:
    swag = tmp_path / "swag.csv"
    swag.write_text("sent1,sent2,ending0,ending1,ending2,ending3,label\nShe lives,she,a,b,c,d,2\n")
    (found,) = TASK.read(swag)
    assert (found["text"], found["question"], found["choices"], found["label"]) == ("She lives", "she", [*"abcd"], 2)
    (tmp_path / "bare.tsv").write_text("who\tx\ty\tB\n")
    (found,) = TASK.read(tmp_path / "bare.tsv", parse_columns("text=0,choices=1+2,label=3"))
    assert (found["text"], found["choices"], found["label"]) == ("who", ["x", "y"], 1)
    asked = {"question": "who", "choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": "B"}
    (found,) = TASK.gather([asked], labelled=True)
    assert (found["text"], found["choices"], found["label"]) == ("who", ["x", "y"], 1)
    race = {"article": "Long.", "question": "who", "options": ["x", "y"], "answer": "A"}
    (found,) = TASK.gather([race], labelled=True)
    assert (found["text"], found["question"], found["label"]) == ("Long.", "who", 0)


@pytest.mark.parametrize(("label", "number"), [("1", 1), (0, 0), ("b", 1), ("B", 1), ("here", 1), ("A", 0)])
def test_a_label_is_a_number_a_letter_or_the_choice(label: Any, number: int) -> None:
    (found,) = TASK.gather([{"text": "who", "choices": ["now", "here"], "label": label}], labelled=True)
    assert found["label"] == number


@pytest.mark.parametrize("label", [2, -1, "C", "there", None, 1.5])
def test_a_label_of_no_choice_is_refused(label: Any) -> None:
    with pytest.raises(InputError, match="input 0: label is .*; it must be a number from 0 to 1, a letter from A to B"):
        TASK.gather([{"text": "who", "choices": ["now", "here"], "label": label}], labelled=True)


def test_rows_have_the_text_beside_each_choice(tokenizer: Any, config: PretrainedConfig) -> None:
    values: list[Any] = [
        {"text": "who lives here", "question": "is it", "choices": ["anna", "the long river", "paris"]},
        ("where", ["now", "in paris", "here"]),
    ]
    examples = TASK.gather(values)
    encoded = TASK.encode(examples, tokenizer, config, TaskOptions(max_length=9), labelled=False)
    batch = TASK.collate(encoded, tokenizer, TaskOptions(), length=16)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 3, 16)
    texts = [
        ("who lives here", "is it anna"),
        ("who lives here", "is it the long river"),
        ("who lives here", "is it paris"),
    ]
    texts += [("where", choice) for choice in ("now", "in paris", "here")]
    expected = tokenizer(texts, truncation=True, max_length=9)
    for row, mask, types, ids, own in zip(
        batch["input_ids"].reshape(6, 16),
        batch["attention_mask"].reshape(6, 16),
        batch["token_type_ids"].reshape(6, 16),
        expected["input_ids"],
        expected["token_type_ids"],
        strict=True,
    ):
        assert row[mask == 1].tolist() == ids
        assert types[mask == 1].tolist() == own
        assert mask.tolist() == [1] * len(ids) + [0] * (16 - len(ids))
    assert encoded.truncated > 0


def test_examples_have_as_many_choices(wordpiece: Any, config: PretrainedConfig) -> None:
    examples = TASK.gather([("a", ["b", "c"]), ("a", ["b", "c", "d"])])
    with pytest.raises(InputError, match="input 1: there are 3 choices, and 2 at input 0"):
        TASK.encode(examples, wordpiece, config, TaskOptions(), labelled=False)
    for wrong in (["b"], "bc", [1, 2], None):
        with pytest.raises(InputError, match="it must be a list of two texts or more"):
            TASK.gather([("a", wrong)])


def test_the_best_choice_is_the_answer(wordpiece: Any, config: PretrainedConfig) -> None:
    examples = TASK.gather([{"text": "a", "choices": ["b", "c"], "label": label} for label in (1, 0)], labelled=True)
    features = TASK.encode(examples, wordpiece, config, TaskOptions())
    assert TASK.collate(features, wordpiece, TaskOptions(), length=8)["labels"].tolist() == [1, 0]
    kept = [{"logits": np.array([0.0, np.log(3.0)])}] * 2
    found = TASK.answers(kept, features, examples, wordpiece, config, TaskOptions())
    assert found[0]["choice"] == 1
    assert found[0]["scores"] == pytest.approx([0.25, 0.75])
    assert TASK.metrics(found, examples, config, TaskOptions()) == {"accuracy": 0.5}
