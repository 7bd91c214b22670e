"""Text classification: labels of every kind, pairs, lengths, answers, metrics."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pytest

from isobert.core.config import PretrainedConfig
from isobert.core.tasks import task_of
from isobert.core.tasks.labels import label_order
from isobert.core.tasks.options import TaskOptions
from isobert.errors import InputError

TASK = task_of("text-classification")
OPTIONS = TaskOptions()


def labelled(*labels: Any) -> list[dict[str, Any]]:
    return list(TASK.gather([{"text": "anna is here", "label": label} for label in labels], labelled=True))


def fields(config: PretrainedConfig, *labels: Any, **options: Any) -> dict[str, Any]:
    return TASK.config_fields(labelled(*labels), None, config, TaskOptions(**options))


def labels_of(config: PretrainedConfig, tokenizer: Any, *labels: Any) -> list[Any]:
    return [row["labels"].tolist() for row in TASK.encode(labelled(*labels), tokenizer, config, OPTIONS)]


def test_labels_are_found_in_the_data_in_a_stable_order(config: PretrainedConfig) -> None:
    single = "single_label_classification"
    assert fields(config, "pos", "neg", "pos") == {"problem_type": single, "id2label": {0: "neg", 1: "pos"}}
    assert fields(config, "10", "9", "2")["id2label"] == {0: "2", 1: "9", 2: "10"}
    assert fields(config, 0, 2, 3)["id2label"] == {0: "0", 1: "1", 2: "2", 3: "3"}
    assert label_order(["4", "0"]) == ["0", "4"]
    assert label_order(["1.0", "0.0"]) == ["0", "1"]
    assert fields(config, True, False)["id2label"] == {0: "false", 1: "true"}


def test_a_configs_own_labels_stay_if_they_suffice(config: PretrainedConfig) -> None:
    named = config.replace(id2label={0: "pos", 1: "neg", 2: "other"})
    assert "id2label" not in fields(named, "pos", "neg")
    assert fields(named, "pos", "new")["id2label"] == {0: "new", 1: "pos"}
    # Labels that are just numbered were named by nobody.
    assert fields(config, "1", "0")["id2label"] == {0: "0", 1: "1"}


def test_several_labels_are_a_list_or_parted_if_asked_for(config: PretrainedConfig, wordpiece: Any) -> None:
    multi = "multi_label_classification"
    assert fields(config, ["b", "a"], [], ["c"]) == {"problem_type": multi, "id2label": {0: "a", 1: "b", 2: "c"}}
    found = fields(config, "b, a", "c|a", problem_type=multi)
    assert found == {"problem_type": multi, "id2label": {0: "a", 1: "b", 2: "c"}}
    config = config.replace(**found)
    assert labels_of(config, wordpiece, "b, a", ["c"], []) == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    # A comma means nothing unless several labels were asked for.
    assert fields(config, "b, a", "c")["id2label"] == {0: "b, a", 1: "c"}


def test_numbers_that_are_not_whole_are_a_regression(config: PretrainedConfig, wordpiece: Any) -> None:
    expected = {"problem_type": "regression", "num_labels": 1}
    assert fields(config, "2.5", "3", 4) == expected
    assert fields(config, 1, 2, 3, problem_type="regression") == expected
    config = config.replace(**expected)
    assert labels_of(config, wordpiece, "2.5", 3) == [[2.5], [3.0]]
    with pytest.raises(InputError, match=r"input 1: label is 'x' \(str\); it must be a number"):
        fields(config, "1", "x", problem_type="regression")
    with pytest.raises(InputError, match="label is nan; it must be a label, or a finite number"):
        labelled(float("nan"))


def test_a_label_that_the_config_lacks_is_named_with_its_place(config: PretrainedConfig, wordpiece: Any) -> None:
    config = config.replace(id2label={0: "pos", 1: "neg"})
    assert labels_of(config, wordpiece, "neg", 0, "1") == [1, 0, 1]
    with pytest.raises(InputError, match=r"input 1: label 'neutral' is none of the model's, which are 'pos', 'neg'"):
        labels_of(config, wordpiece, "pos", "neutral")
    numbered = config.replace(id2label={0: "1", 1: "5"})
    assert labels_of(numbered, wordpiece, 1, "5.0") == [0, 1]
    with pytest.raises(InputError, match="label '0' is none"):
        labels_of(numbered, wordpiece, 0)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ("sentence label", ("sentence", None)),
        ("sentence1 sentence2 label", ("sentence1", "sentence2")),
        ("question1 question2 label", ("question1", "question2")),
        ("premise hypothesis label", ("premise", "hypothesis")),
        ("question sentence label", ("question", "sentence")),
        ("question passage label", ("question", "passage")),
        ("title content label", ("content", None)),
        ("text title stars", ("text", None)),
    ],
)
def test_the_columns_of_well_known_data_are_found(columns: str, found: tuple[str, str | None]) -> None:
    (example,) = TASK.gather([{name: name for name in columns.split()}], labelled=True)
    assert (example["text"], example.get("text_pair"), example["label"]) == (*found, columns.split()[-1])


def test_nothing_to_tell_apart_is_said(config: PretrainedConfig) -> None:
    with pytest.raises(InputError, match="All 2 examples have the label 'a'"):
        fields(config, "a", "a")
    for wrong in (None, "", {"a": 1}):
        with pytest.raises(InputError, match="input 0: label is .*; it must be a label's name or its number"):
            labelled(wrong)
    with pytest.raises(InputError, match=r"input 0: text is 3 \(int\); it must be a text"):
        TASK.gather([{"text": 3}])


def test_rows_are_what_the_tokenizer_gives(config: PretrainedConfig, tokenizer: Any) -> None:
    inputs = ["anna lives in paris", ("where is she", "now here"), "long " * 80, ("who", "long " * 80)]
    examples = TASK.gather(inputs)
    encoded = TASK.encode(examples, tokenizer, config, TaskOptions(max_length=16), labelled=False)
    assert encoded.truncated == 2
    for value, row in zip(inputs, encoded, strict=True):
        pair = value if isinstance(value, tuple) else (value, None)
        expected = tokenizer(*pair, truncation=True, max_length=16)
        assert row["input_ids"].tolist() == expected["input_ids"]
        assert row["token_type_ids"].tolist() == expected["token_type_ids"]
        assert "labels" not in row
    batch = TASK.collate(encoded, tokenizer, OPTIONS, length=24)
    assert {name: array.dtype for name, array in batch.items()} == dict.fromkeys(batch, np.dtype("int32"))
    assert batch["input_ids"].shape == (4, 24)
    assert batch["attention_mask"].sum(1).tolist() == [len(row["input_ids"]) for row in encoded]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == tokenizer.pad_token_id).all()
    with pytest.raises(InputError, match="A row has 16 tokens, and the batch is to have 8"):
        TASK.collate(encoded, tokenizer, OPTIONS, length=8)


def test_truncation_is_reported_and_more_than_the_model_takes_refused(
    config: PretrainedConfig, wordpiece: Any, caplog: pytest.LogCaptureFixture
) -> None:
    examples = TASK.gather(["long " * 80, "anna"])
    with caplog.at_level(logging.WARNING, "isobert"):
        encoded = TASK.encode(examples, wordpiece, config, OPTIONS, labelled=False)
    assert len(encoded[0]["input_ids"]) == 64
    assert "1 of 2 examples are longer than 64 tokens" in caplog.text
    with pytest.raises(InputError, match=r"max_length is 65, and the model has 64 positions"):
        TASK.encode(examples, wordpiece, config, TaskOptions(max_length=65), labelled=False)


@pytest.mark.parametrize(("words", "length", "cut"), [(13, 15, 0), (14, 16, 0), (15, 16, 1)])
def test_a_text_is_cut_only_if_it_does_not_fit(
    words: int, length: int, cut: int, config: PretrainedConfig, wordpiece: Any
) -> None:
    found = TASK.encode(TASK.gather(["is " * words]), wordpiece, config, TaskOptions(max_length=16), labelled=False)
    assert (len(found[0]["input_ids"]), found.truncated) == (length, cut)


def answers(config: PretrainedConfig, logits: list[list[float]]) -> list[dict[str, Any]]:
    found = TASK.answers([{"logits": np.array(row)} for row in logits], [], [], None, config, OPTIONS)
    assert json.loads(json.dumps(found)) == found
    return found


def test_one_label_is_answered_with_the_scores_of_all(config: PretrainedConfig) -> None:
    config = config.replace(id2label={0: "no", 1: "yes"})
    (answer,) = answers(config, [[0.0, np.log(3.0)]])
    assert answer["label"] == "yes"
    assert answer["score"] == pytest.approx(0.75)
    assert answer["scores"] == pytest.approx({"no": 0.25, "yes": 0.75})


def test_metrics_of_one_label_by_hand(config: PretrainedConfig) -> None:
    config = config.replace(id2label={0: "no", 1: "yes"})
    found = answers(config, [[0, 1], [0, 1], [1, 0], [1, 0], [1, 0]])
    metrics = TASK.metrics(found, labelled("yes", "no", "no", "no", "yes"), config, OPTIONS)
    # yes: 1 right of 2 found and 2 wanted; no: 2 right of 3 found and 3 wanted.
    assert metrics == pytest.approx(
        {"accuracy": 0.6, "f1": 0.5, "f1_macro": (0.5 + 2 / 3) / 2, "matthews_correlation": 1 / 6}
    )


def test_metrics_of_three_labels_by_hand(config: PretrainedConfig) -> None:
    config = config.replace(num_labels=4)
    found = answers(config, np.eye(4)[[0, 1, 1, 1, 2, 0]].tolist())
    metrics = TASK.metrics(found, labelled(0, 0, 1, 1, 2, 2), config, OPTIONS)
    # The fourth label occurs nowhere, so it is no part of the mean. Each label's counts of answers are 2, 3 and 1.
    macro = (1 / 2 + 4 / 5 + 2 / 3) / 3
    matthews = (4 * 6 - 12) / np.sqrt((36 - 14) * (36 - 12))
    expected = {"accuracy": 4 / 6, "f1": macro, "f1_macro": macro, "matthews_correlation": matthews}
    assert metrics == pytest.approx(expected)


def test_metrics_of_many_labels_are_those_of_scikit_learn(config: PretrainedConfig) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    config = config.replace(num_labels=4)
    wanted, logits = random.integers(0, 4, 50), random.normal(size=(50, 4))
    wanted[logits[:, 2] > 1] = 2
    guessed = logits.argmax(1)
    metrics = TASK.metrics(answers(config, logits.tolist()), labelled(*map(int, wanted)), config, OPTIONS)
    assert metrics == pytest.approx(
        {
            "accuracy": sklearn.accuracy_score(wanted, guessed),
            "f1": sklearn.f1_score(wanted, guessed, average="macro"),
            "f1_macro": sklearn.f1_score(wanted, guessed, average="macro"),
            "matthews_correlation": sklearn.matthews_corrcoef(wanted, guessed),
        }
    )


def test_several_labels_are_those_above_a_half(config: PretrainedConfig) -> None:
    config = config.replace(id2label={0: "a", 1: "b", 2: "c"}, problem_type="multi_label_classification")
    found = answers(config, [[1.0, -1.0, 2.0], [-1.0, -1.0, -1.0], [-1.0, 1.0, -1.0]])
    assert [answer["labels"] for answer in found] == [["a", "c"], [], ["b"]]
    assert found[0]["scores"]["b"] == pytest.approx(1 / (1 + np.e))
    metrics = TASK.metrics(found, labelled(["a"], [], ["a", "b"]), config, OPTIONS)
    # 2 right of 3 found and 3 wanted; a: 1 of 1 and 2, b: 1 of 1 and 1, c: 0 of 1 and 0.
    assert metrics == pytest.approx({"f1": 2 / 3, "f1_macro": (2 / 3 + 1 + 0) / 3, "accuracy": 1 / 3})
    assert TASK.best_metric(config) == "f1"


def test_metrics_of_a_regression_by_hand(config: PretrainedConfig) -> None:
    config = config.replace(num_labels=1, problem_type="regression")
    found = answers(config, [[1.0], [2.0], [4.0], [4.0]])
    assert found[2] == {"score": 4.0}
    metrics = TASK.metrics(found, labelled("1", "3", "3", "9"), config, OPTIONS)
    # Deviations (-1.75, -.75, 1.25, 1.25) and (-3, -1, -1, 5); ranks (1, 2, 3.5, 3.5) and (1, 2.5, 2.5, 4).
    assert metrics["pearson"] == pytest.approx(11.0 / np.sqrt(6.75 * 36))
    assert metrics["spearman"] == pytest.approx(3.75 / 4.5)
    assert metrics["mean_squared_error"] == pytest.approx((0 + 1 + 1 + 25) / 4)
    assert TASK.metrics(answers(config, [[1.0], [1.0]]), labelled("1", "2"), config, OPTIONS)["pearson"] == 0.0


def test_an_option_that_is_not_legal_is_named() -> None:
    for wrong in ({"pooling": "middle"}, {"mask_probability": 0}, {"max_length": 1}, {"problem_type": "other"}):
        with pytest.raises(InputError, match=f"The option {next(iter(wrong))} is .*; it must be "):
            TaskOptions(**wrong)  # type: ignore[arg-type]
