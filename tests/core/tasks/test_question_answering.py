"""Extractive question answering: windows, answers with characters, no answer, SQuAD's metrics."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pytest

from isobert.core.config import PretrainedConfig
from isobert.core.tasks import task_of
from isobert.core.tasks.answers import answer_metrics, best_threshold, exact_match, normal_form, word_f1
from isobert.core.tasks.options import TaskOptions
from isobert.errors import InputError

TASK = task_of("question-answering")
CONTEXT = "Anna  lives in paris , france . she is unaffable . the river is long , now she is here ."
QUESTION = "where is she ?"


def gathered(*answers: tuple[str, int], question: str = QUESTION, context: str = CONTEXT) -> Any:
    listed = [{"text": text, "answer_start": start} for text, start in answers]
    return TASK.gather([{"question": question, "context": context, "answers": listed}], labelled=True)


def trimmed(start: int, end: int) -> list[int]:
    """Return where a stretch of the context begins and ends without the blanks before it."""
    return [end - len(CONTEXT[start:end].lstrip()), end]


def test_windows_are_those_of_the_tokenizer(tokenizer: Any, config: PretrainedConfig) -> None:
    options = TaskOptions(max_length=16, doc_stride=3)
    rows = TASK.encode(gathered(), tokenizer, config, options)
    expected = tokenizer(
        QUESTION,
        CONTEXT,
        truncation="only_second",
        max_length=16,
        stride=3,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    assert len(rows) > 3
    assert [row["input_ids"].tolist() for row in rows] == expected["input_ids"]
    assert [row["token_type_ids"].tolist() for row in rows] == expected["token_type_ids"]
    for index, row in enumerate(rows):
        sequences = expected.sequence_ids(index)
        places = expected["offset_mapping"][index]
        wanted = [trimmed(*p) if s == 1 else [-1, -1] for p, s in zip(places, sequences, strict=True)]
        assert row["offsets"].tolist() == wanted
        assert row["example"] == 0


def test_an_answers_tokens_are_learnt_in_windows_that_have_all_of_it(tokenizer: Any, config: PretrainedConfig) -> None:
    found = gathered(("unaffable", CONTEXT.index("unaffable")), ("Anna", 0))
    rows = TASK.encode(found, tokenizer, config, TaskOptions(max_length=16, doc_stride=4))
    learnt = [(int(row["start_positions"]), int(row["end_positions"])) for row in rows]
    inside = [index for index, places in enumerate(learnt) if places != (0, 0)]
    assert inside
    for index in inside:
        first, last = learnt[index]
        places = rows[index]["offsets"]
        assert CONTEXT[places[first, 0] : places[last, 1]] == "unaffable"
    # A window that has a part of it alone says that it has none.
    parts = [index for index, row in enumerate(rows) if _has_part(row, CONTEXT.index("unaffable"))]
    assert set(inside) <= set(parts)
    assert len(inside) < len(rows)
    batch = TASK.collate(rows, tokenizer, TaskOptions(), length=16)
    assert batch["start_positions"].tolist() == [first for first, _ in learnt]
    assert batch["end_positions"].dtype == np.int32


def _has_part(row: Any, start: int) -> bool:
    return bool(((row["offsets"][:, 0] < start + 9) & (row["offsets"][:, 1] > start)).any())


def test_an_answer_that_is_cut_by_a_window_is_not_learnt_there(wordpiece: Any, config: PretrainedConfig) -> None:
    # Windows of 3 tokens without overlap: [a b c] [d e f] ...
    found = gathered(("b c d", 2), question="a", context="a b c d e f")
    options = TaskOptions(max_length=7, doc_stride=0)
    rows = TASK.encode(found, wordpiece, config, options)
    assert [int(row["start_positions"]) for row in rows] == [0, 0]
    (whole,) = TASK.encode(found, wordpiece, config, TaskOptions(max_length=20))
    assert (int(whole["start_positions"]), int(whole["end_positions"])) == (4, 6)


def test_too_long_a_question_is_cut_and_too_much_overlap_lessened(
    wordpiece: Any, config: PretrainedConfig, caplog: pytest.LogCaptureFixture
) -> None:
    options = TaskOptions(max_length=12, max_question_length=4, doc_stride=128)
    with caplog.at_level(logging.WARNING, "isobert"):
        rows = TASK.encode(gathered(question="is " * 9), wordpiece, config, options)
    assert rows.truncated == 1
    assert "1 of 1 questions are longer than 4 tokens" in caplog.text
    assert rows[0]["input_ids"][1:6].tolist() == wordpiece("is is is is", add_special_tokens=False)["input_ids"] + [
        wordpiece.sep_token_id
    ]
    assert len(rows) < 20
    seen = {tuple(place) for row in rows for place in row["offsets"].tolist()} - {(-1, -1)}
    assert len(seen) == len(wordpiece(CONTEXT, add_special_tokens=False)["input_ids"])


def test_wrong_answers_are_named_with_the_cure() -> None:
    with pytest.raises(InputError, match=r"input 0: the answer 'paris' \(str\) is not at character 3 .* stands at 15"):
        gathered(("paris", 3))
    for wrong in ("paris", [3], {"text": "paris"}):
        with pytest.raises(InputError, match="it must be a list of objects with text and answer_start"):
            TASK.gather([{"question": "q", "context": "c", "answers": wrong}], labelled=True)
    with pytest.raises(InputError, match="the number of its first character, from 0"):
        TASK.gather(
            [{"question": "q", "context": "c", "answers": {"text": ["c"], "answer_start": ["0"]}}], labelled=True
        )
    columns = TASK.gather(
        [{"question": "q", "context": "cd", "answers": {"text": ["d"], "answer_start": [1]}}], labelled=True
    )
    assert columns[0]["answers"] == [("d", 1)]


def answered(tokenizer: Any, config: PretrainedConfig, marks: dict[str, float], null: float = 0.0, **how: Any) -> Any:
    """Return the answer to scores that are high at the first and last tokens of some stretches."""
    options = TaskOptions(max_length=16, doc_stride=3, **how)
    found = gathered()
    rows = TASK.encode(found, tokenizer, config, options, labelled=False)
    kept = []
    for row in rows:
        scores = np.full((2, 20), -5.0, np.float32)
        scores[:, 0] = null / 2
        for text, score in marks.items():
            start = CONTEXT.index(text)
            scores[0, np.flatnonzero(row["offsets"][:, 0] == start)] = score / 2
            scores[1, np.flatnonzero(row["offsets"][:, 1] == start + len(text))] = score / 2
        kept.append({"start_logits": scores[0], "end_logits": scores[1]})
    (answer,) = TASK.answers(kept, rows, found, tokenizer, config, options)
    assert json.loads(json.dumps(answer)) == answer
    return answer


def test_the_best_stretch_of_all_windows_is_the_answer(tokenizer: Any, config: PretrainedConfig) -> None:
    answer = answered(tokenizer, config, {"in paris": 6.0, "unaffable": 8.0, "the river is long": 4.0})
    assert answer["answer"] == "unaffable"
    assert CONTEXT[answer["start"] : answer["end"]] == "unaffable"
    assert len({(best["start"], best["end"]) for best in answer["n_best"]}) == len(answer["n_best"]) == 20
    texts = [best["answer"] for best in answer["n_best"]]
    assert texts.index("unaffable") < texts.index("in paris") < texts.index("the river is long")
    assert sum(best["score"] for best in answer["n_best"]) == pytest.approx(1.0)
    assert answer["score"] == answer["n_best"][0]["score"] == max(best["score"] for best in answer["n_best"])
    assert answer["null_score"] == pytest.approx(0.0 - 8.0)


def test_each_stretch_has_its_best_score_and_nothing_its_lowest(wordpiece: Any, config: PretrainedConfig) -> None:
    options = TaskOptions(max_length=16, doc_stride=8)
    found = gathered()
    rows = TASK.encode(found, wordpiece, config, options, labelled=False)
    start, kept = CONTEXT.index("river"), []
    for row in rows:
        scores = np.full((2, 16), -5.0)
        scores[:, 0] = (3.0, 1.5, 2.0)[min(len(kept), 2)]
        seen = sum(bool((kept_row["start_logits"][1:] > 0).any()) for kept_row in kept)
        scores[0, np.flatnonzero(row["offsets"][:, 0] == start)] = 4.0 - seen
        scores[1, np.flatnonzero(row["offsets"][:, 1] == start + 5)] = 4.0 - seen
        kept.append({"start_logits": scores[0], "end_logits": scores[1]})
    assert seen >= 1
    assert len(kept) > 2
    (answer,) = TASK.answers(kept, rows, found, wordpiece, config, options)
    assert answer["answer"] == "river"
    # At best 4 + 4; the second window says nothing with 1.5 + 1.5, and the others with more.
    assert answer["null_score"] == pytest.approx(3.0 - 8.0)


def test_an_answer_is_no_longer_than_asked_for(wordpiece: Any, config: PretrainedConfig) -> None:
    marks = {"the river is long": 9.0, "paris": 3.0}
    assert answered(wordpiece, config, marks)["answer"] == "the river is long"
    short = answered(wordpiece, config, marks, max_answer_length=3)
    assert all(len(best["answer"].split()) <= 3 for best in short["n_best"])
    assert len(answered(wordpiece, config, marks, n_best=4)["n_best"]) == 4


def test_nothing_is_answered_above_the_threshold(wordpiece: Any, config: PretrainedConfig) -> None:
    assert answered(wordpiece, config, {"paris": 3.0}, null=7.0)["answer"] == "paris"
    assert answered(wordpiece, config, {"paris": 3.0}, null=7.0, null_threshold=4.5)["answer"] == "paris"
    answer = answered(wordpiece, config, {"paris": 3.0}, null=7.0, null_threshold=3.5)
    assert (answer["answer"], answer["start"], answer["end"]) == ("", 0, 0)
    assert answer["null_score"] == pytest.approx(4.0)
    assert 0.5 < answer["score"] < 1.0


def test_an_empty_context_has_no_answer(wordpiece: Any, config: PretrainedConfig) -> None:
    found = gathered(context=" ")
    rows = TASK.encode(found, wordpiece, config, TaskOptions())
    scores = {"start_logits": np.zeros(16), "end_logits": np.zeros(16)}
    (answer,) = TASK.answers([scores], rows, found, wordpiece, config, TaskOptions())
    assert (answer["answer"], answer["n_best"]) == ("", [])
    assert json.loads(json.dumps(answer)) == answer


def test_answers_are_compared_in_their_normal_form() -> None:
    assert normal_form(" A theory:  of the (Anna's) AN-them!") == "theory of annas anthem"
    assert exact_match("The Paris.", ["london", "paris"]) == 1.0
    assert exact_match("paris france", ["paris"]) == 0.0
    assert exact_match("", []) == 1.0
    assert exact_match("paris", []) == 0.0
    # "in paris france" and "paris": 1 word right of 3 found and 1 wanted.
    assert word_f1("in paris, France", ["paris", "x"]) == pytest.approx(2 * (1 / 3) / (1 / 3 + 1))
    assert word_f1("a b b", ["b b b"]) == pytest.approx(2 * 2 / (2 + 3))
    assert word_f1("the", ["paris"]) == word_f1("paris", []) == 0.0
    assert word_f1("", []) == word_f1("The", ["a"]) == 1.0


def test_metrics_with_and_without_an_answer_by_hand() -> None:
    answers, nulls = ["paris", "in rome", "now", "here"], [-2.0, 1.0, 3.0, -1.0]
    expected = [["paris"], ["rome"], [], []]
    assert answer_metrics(answers[:2], nulls[:2], expected[:2], 0.0) == pytest.approx({"exact_match": 0.5, "f1": 5 / 6})
    metrics = answer_metrics(answers, nulls, expected, 0.0)
    # Nothing is answered to the second and third question: the first and third are right.
    wanted = {"exact_match": 0.5, "has_answer_exact_match": 0.5, "no_answer_exact_match": 0.5}
    wanted |= {"f1": 0.5, "has_answer_f1": 0.5, "no_answer_f1": 0.5}
    # Answering the three below 3, or only the one below -1, is best.
    wanted |= {"best_exact_match": 0.75, "best_exact_match_threshold": -2.0}
    wanted |= {"best_f1": 0.75, "best_f1_threshold": -2.0}
    assert metrics == pytest.approx(wanted)


def test_the_best_threshold_is_the_best_of_all() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        nulls = random.integers(-3, 4, 8).astype(float).tolist()
        given, none = random.random(8).tolist(), random.integers(0, 2, 8).astype(float).tolist()
        threshold, best = best_threshold(nulls, given, none)

        def score(limit: float, rows: Any = (nulls, given, none)) -> float:
            return float(
                np.mean([without if null > limit else with_ for null, with_, without in zip(*rows, strict=True)])
            )

        assert score(threshold) == pytest.approx(best)
        assert best == pytest.approx(max(score(limit) for limit in np.arange(-4, 5)))


def test_metrics_need_the_best_answer_that_is_not_nothing(wordpiece: Any, config: PretrainedConfig) -> None:
    answer = answered(wordpiece, config, {"paris": 3.0}, null=7.0, null_threshold=3.5)
    right = gathered(("paris", 15))
    # All questions have an answer, so nothing is never right.
    assert TASK.metrics([answer], right, config, TaskOptions()) == {"exact_match": 1.0, "f1": 1.0}
    both = TASK.metrics([answer, answer], [*right, *gathered()], config, TaskOptions(null_threshold=5.0))
    assert (both["has_answer_f1"], both["no_answer_f1"]) == (1.0, 0.0)
    assert TASK.metrics([answer, answer], [*right, *gathered()], config, TaskOptions())["no_answer_f1"] == 1.0
