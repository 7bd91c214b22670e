"""Token classification: words and their pieces, entities, F1."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pytest

from isobert.core.config import PretrainedConfig
from isobert.core.tasks import task_of
from isobert.core.tasks.entities import entities_of, entity_scores
from isobert.core.tasks.options import TaskOptions
from isobert.errors import InputError

TASK = task_of("token-classification")
TAGS = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]
WORDS = ["anna", "unaffable", "lives", "in", "paris", "."]


@pytest.fixture
def tagged(config: PretrainedConfig) -> PretrainedConfig:
    return config.replace(id2label=dict(enumerate(TAGS)))


def example(words: list[str] | str = WORDS, tags: Any = ("B-PER", "I-PER", "O", "O", "B-LOC", "O")) -> Any:
    return TASK.gather([{"words": words, "tags": list(tags)}], labelled=True)


def test_a_words_first_piece_has_its_tag(tokenizer: Any, tagged: PretrainedConfig) -> None:
    (row,) = TASK.encode(example(), tokenizer, tagged, TaskOptions())
    expected = tokenizer([WORDS], is_split_into_words=True)
    assert row["input_ids"].tolist() == expected["input_ids"][0]
    words = expected.word_ids(0)
    assert words.count(1) > 1
    first = [word is not None and word not in words[:place] for place, word in enumerate(words)]
    ids = [tagged.label2id[tag] for tag in example()[0]["tags"]]
    assert row["labels"].tolist() == [
        ids[w] if f and w is not None else -100 for w, f in zip(words, first, strict=True)
    ]
    batch = TASK.collate([row], tokenizer, TaskOptions(), length=32)
    assert batch["labels"].shape == (1, 32)
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()


def test_all_pieces_are_labelled_if_asked_and_an_entity_goes_on_in_them(
    wordpiece: Any, tagged: PretrainedConfig
) -> None:
    found = example(["unaffable", "paris"], ["B-PER", "O"])
    (row,) = TASK.encode(found, wordpiece, tagged, TaskOptions(label_all_pieces=True))
    names = [tagged.id2label.get(int(label)) for label in row["labels"]]
    assert names == [None, "B-PER", "I-PER", "I-PER", "O", None]


def test_words_that_are_cut_off_are_reported_and_outside(
    wordpiece: Any, tagged: PretrainedConfig, caplog: pytest.LogCaptureFixture
) -> None:
    # The middle word has no piece at all; the last two do not fit.
    found = example(["anna", "\u200b", "is", "in", "paris"], ["B-PER", "O", "O", "O", "B-LOC"])
    with caplog.at_level(logging.WARNING, "isobert"):
        rows = TASK.encode(found, wordpiece, tagged, TaskOptions(max_length=4))
    assert rows.truncated == 1
    assert "1 of 1 sentences are longer than 4 tokens; 2 words at their ends were cut off" in caplog.text
    logits = np.full((4, 5), -9.0)
    logits[:, 1] = 9.0
    (answer,) = TASK.answers([{"logits": logits}], rows, found, wordpiece, tagged, TaskOptions())
    assert answer["tags"] == ["B-PER", "O", "B-PER", "O", "O"]


def predicted(
    tokenizer: Any, config: PretrainedConfig, found: Any, piece_tags: dict[int, list[str]], **how: Any
) -> Any:
    """Return the answer to scores that are `piece_tags` for each word's pieces (the last of them for further ones)."""
    options = TaskOptions(**how)
    rows = TASK.encode(found, tokenizer, config, options)
    logits, seen = np.zeros((len(rows[0]["input_ids"]) + 3, config.num_labels)), dict.fromkeys(piece_tags, 0)
    for place, word in enumerate(rows[0]["word_ids"].tolist()):
        if word in piece_tags:
            tags = piece_tags[word]
            logits[place, config.label2id[tags[min(seen[word], len(tags) - 1)]]] = 4.0 - seen[word]
            seen[word] += 1
        elif word >= 0:
            logits[place, config.label2id["O"]] = 9.0
    (answer,) = TASK.answers([{"logits": logits}], rows, found, tokenizer, config, options)
    assert json.loads(json.dumps(answer)) == answer
    return answer


def test_predictions_are_mapped_back_to_words_and_grouped(tokenizer: Any, tagged: PretrainedConfig) -> None:
    answer = predicted(tokenizer, tagged, example(), {0: ["B-PER"], 1: ["I-PER", "O"], 4: ["B-LOC"]})
    assert answer["words"] == WORDS
    assert answer["tags"] == ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]
    text = " ".join(WORDS)
    assert [(span["label"], span["text"]) for span in answer["spans"]] == [("PER", "anna unaffable"), ("LOC", "paris")]
    assert all(text[span["start"] : span["end"]] == span["text"] for span in answer["spans"])
    # Both words' first pieces have one score of 4 beside four of 0.
    assert answer["spans"][0]["score"] == pytest.approx(np.exp(4) / (np.exp(4) + 4))


def test_simple_spans_are_made_of_pieces(wordpiece: Any, tagged: PretrainedConfig) -> None:
    found = example(["is", "unaffable", "now"], ["O", "O", "O"])
    answer = predicted(wordpiece, tagged, found, {1: ["O", "B-PER", "I-PER"]}, aggregation="simple")
    assert answer["tags"] == ["O", "O", "O"]
    assert [(span["text"], span["start"]) for span in answer["spans"]] == [("affable", 5)]


def test_a_text_is_cut_at_blanks(tagged: PretrainedConfig) -> None:
    assert TASK.gather(["anna  is\there"])[0]["words"] == ["anna", "is", "here"]
    for wrong in (3, [3], None):
        with pytest.raises(InputError, match="input 0: words is .*; it must be a list of words, or a text"):
            TASK.gather([{"words": wrong}])
    with pytest.raises(InputError, match="input 0: there are 6 words and 1 tags"):
        example(tags=["O"])


def test_a_tag_that_the_config_lacks_is_named(wordpiece: Any, tagged: PretrainedConfig) -> None:
    with pytest.raises(InputError, match="input 0: tag 'B-ORG' is none of the model's, which are 'B-LOC'"):
        TASK.encode(example(["anna"], ["B-ORG"]), wordpiece, tagged, TaskOptions())
    assert TASK.config_fields(example(), wordpiece, tagged, TaskOptions()) == {}
    found = TASK.config_fields(example(["a", "b"], ["O", "B-ORG"]), wordpiece, tagged, TaskOptions())
    assert found == {"id2label": {0: "B-ORG", 1: "O"}}
    with pytest.raises(InputError, match="All words have the tag 'O'"):
        TASK.config_fields(example(["a"], ["O"]), wordpiece, tagged, TaskOptions())


SCHEMES = {
    "IOB2": (["B-A", "I-A", "B-A", "O", "B-B"], [("A", 0, 2), ("A", 2, 3), ("B", 4, 5)]),
    "IOB1": (["I-A", "I-A", "B-A", "O", "I-B"], [("A", 0, 2), ("A", 2, 3), ("B", 4, 5)]),
    "IOBES": (["B-A", "E-A", "S-A", "O", "S-B"], [("A", 0, 2), ("A", 2, 3), ("B", 4, 5)]),
    "BILOU": (["B-A", "L-A", "U-A", "O", "U-B"], [("A", 0, 2), ("A", 2, 3), ("B", 4, 5)]),
    "broken": (["I-A", "I-B", "E-B", "I-B", "O", "E-A"], [("A", 0, 1), ("B", 1, 3), ("B", 3, 4), ("A", 5, 6)]),
    "types with dashes": (["B-A-b", "I-A-b", "I-A"], [("A-b", 0, 2), ("A", 2, 3)]),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_marks_its_entities(scheme: str) -> None:
    tags, expected = SCHEMES[scheme]
    assert [tuple(entity) for entity in entities_of(tags)] == expected


def test_scores_of_entities_by_hand() -> None:
    wanted = [["B-A", "I-A", "O", "B-B"], ["O", "B-A"]]
    found = [["B-A", "O", "O", "B-B"], ["B-B", "B-A"]]
    assert entity_scores(found, wanted) == pytest.approx((2 / 4, 2 / 3, 4 / 7))
    assert entity_scores([["O"]], [["O"]]) == (0.0, 0.0, 0.0)


def test_entities_are_those_of_seqeval() -> None:
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    random = np.random.default_rng(0)
    tags = np.array(["O", "O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("X", "Y"))])
    sentences = [random.choice(tags, int(size)).tolist() for size in random.integers(1, 12, 500)]
    for sentence in sentences:
        expected = [(kind, start, end + 1) for kind, start, end in seqeval.get_entities(sentence)]
        assert [tuple(entity) for entity in entities_of(sentence)] == expected
    others = [[t if random.random() < 0.7 else str(random.choice(tags)) for t in s] for s in sentences]
    measures = (seqeval.precision_score, seqeval.recall_score, seqeval.f1_score)
    assert entity_scores(others, sentences) == pytest.approx([measure(sentences, others) for measure in measures])


def test_metrics_are_of_entities_where_tags_mark_them(tagged: PretrainedConfig) -> None:
    found = [{"tags": ["B-PER", "O", "O", "O", "B-LOC", "O"]}]
    metrics = TASK.metrics(found, example(), tagged, TaskOptions())
    assert metrics == pytest.approx({"precision": 0.5, "recall": 0.5, "f1": 0.5, "accuracy": 5 / 6})
    assert TASK.best_metric(tagged) == "f1"
    speech = tagged.replace(id2label={0: "NOUN", 1: "VERB"})
    words = example(["anna", "is"], ["NOUN", "VERB"])
    assert TASK.metrics([{"tags": ["NOUN", "NOUN"]}], words, speech, TaskOptions()) == {"accuracy": 0.5}
    assert TASK.best_metric(speech) == "accuracy"
