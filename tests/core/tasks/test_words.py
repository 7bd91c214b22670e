"""The tasks that predict words: fill-mask, text-generation, pretraining; and embeddings."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isobert import RemBertConfig
from isobert.core.config import PretrainedConfig
from isobert.core.registry import FAMILIES
from isobert.core.tasks import TASKS, pretraining, task_of
from isobert.core.tasks.base import larger_is_better
from isobert.core.tasks.options import TaskOptions
from isobert.errors import InputError, UnknownNameError

FILL, WRITE, PRETRAIN, EMBED = (task_of(n) for n in ("fill-mask", "text-generation", "pretraining", "embedding"))
TEXT = "anna lives in paris , france . she is unaffable . the river is long , now she is here ."


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, row]) for row in range(count)]


def hidden(tokenizer: Any, config: PretrainedConfig, rows: int = 400, seed: int = 0, **how: Any) -> Any:
    """Return the features and the batch of one text many times over, with words hidden."""
    options = TaskOptions(**how)
    features = FILL.encode(FILL.gather([TEXT] * rows), tokenizer, config, options)
    return features, FILL.collate(features, tokenizer, options, length=64, random=generators(rows, seed))


def test_a_share_of_the_words_is_hidden_by_the_papers_rule(tokenizer: Any, config: PretrainedConfig) -> None:
    features, batch = hidden(tokenizer, config)
    original = features[0]["input_ids"]
    chosen = batch["labels"] != -100
    wanted = round(0.15 * (len(original) - 2))
    assert (chosen.sum(1) == wanted).all()
    rows, places = np.nonzero(chosen)
    assert (batch["labels"][rows, places] == original[places]).all()
    now = batch["input_ids"][rows, places]
    masked, kept = now == tokenizer.mask_token_id, now == original[places]
    assert masked.mean() == pytest.approx(0.8, abs=0.03)
    assert kept.mean() == pytest.approx(0.1, abs=0.03)
    others = now[~masked & ~kept]
    assert not np.isin(others, tokenizer.all_special_ids).any()
    assert len(np.unique(others)) > 20
    assert others.max() < len(tokenizer)
    # Special tokens and padding are never hidden, and every word at times.
    special = np.flatnonzero(~chosen.any(0))
    assert special.tolist() == [0, *range(len(original) - 1, 64)]
    unhidden = np.where(chosen, -1, batch["input_ids"])[:, : len(original)]
    assert ((unhidden == original) | (unhidden == -1)).all()


def test_the_same_words_are_hidden_by_the_same_draws(wordpiece: Any, config: PretrainedConfig) -> None:
    features, batch = hidden(wordpiece, config, 6)
    again = FILL.collate(features[3:], wordpiece, TaskOptions(), length=64, random=generators(6)[3:])
    assert np.array_equal(again["labels"], batch["labels"][3:])
    assert np.array_equal(again["input_ids"], batch["input_ids"][3:])
    _, other = hidden(wordpiece, config, 6, seed=1)
    assert not np.array_equal(other["labels"], batch["labels"])
    assert "labels" not in FILL.collate(features, wordpiece, TaskOptions(), length=64)


def test_whole_words_are_hidden_together(tokenizer: Any, config: PretrainedConfig) -> None:
    features, batch = hidden(tokenizer, config, whole_words=True, mask_probability=0.3)
    words = features[0]["word_ids"]
    of_several = [word for word in np.unique(words[words >= 0]) if (words == word).sum() > 1]
    assert of_several
    chosen = (batch["labels"] != -100)[:, : len(words)]
    for word in of_several:
        counts = chosen[:, words == word].sum(1)
        assert set(counts.tolist()) == {0, int((words == word).sum())}
    assert (chosen.sum(1) <= round(0.3 * (words >= 0).sum())).all()
    # A word with a piece that is unknown stays as it is.
    odd = FILL.encode(FILL.gather(["un\u2603 anna"] * 50), tokenizer, config, TaskOptions())
    batch = FILL.collate(odd, tokenizer, TaskOptions(whole_words=True), length=16, random=generators(50))
    places = np.unique(np.nonzero(batch["labels"] != -100)[1])
    assert np.unique(odd[0]["word_ids"][places]).tolist() == [odd[0]["word_ids"].max()]
    _, pieces = hidden(tokenizer, config, mask_probability=0.3)
    counts = (pieces["labels"] != -100)[:, : len(words)][:, words == of_several[0]].sum(1)
    assert len(set(counts.tolist())) > 2


def test_an_empty_text_has_nothing_to_hide(wordpiece: Any, config: PretrainedConfig) -> None:
    features = FILL.encode(FILL.gather(["", "[SEP] [CLS]"]), wordpiece, config, TaskOptions())
    batch = FILL.collate(features, wordpiece, TaskOptions(), length=8, random=generators(2))
    assert (batch["labels"] == -100).all()
    with pytest.raises(InputError, match="There was no word to be predicted"):
        FILL.metrics([{"tokens": 0, "log_likelihood": 0.0, "right": 0}], [], config, TaskOptions())


def test_a_long_text_becomes_several_rows(tokenizer: Any, config: PretrainedConfig) -> None:
    features = FILL.encode(FILL.gather([TEXT, "anna"]), tokenizer, config, TaskOptions(max_length=9))
    assert [row["example"] for row in features] == [0] * (len(features) - 1) + [1]
    assert max(len(row["input_ids"]) for row in features) == 9
    joined = [token for row in features[:-1] for token in row["input_ids"][1:-1].tolist()]
    assert joined == tokenizer(TEXT, add_special_tokens=False)["input_ids"]


def kept_of(task: Any, logits: np.ndarray, batch: Any, tokenizer: Any, options: TaskOptions, **more: Any) -> Any:
    positions = task.scored(batch, tokenizer)
    return task.keep({task.outputs[0]: logits[positions], **more}, batch, tokenizer, options)


def test_hidden_words_are_measured(wordpiece: Any, config: PretrainedConfig) -> None:
    features, batch = hidden(wordpiece, config, 3)
    logits = np.zeros((3, 64, 10 + len(wordpiece)), np.float32)
    chosen = batch["labels"] != -100
    rows, places = np.nonzero(chosen)
    logits[rows, places, batch["labels"][rows, places]] = 2.0
    # One of the first row is not expected: another word scores higher.
    logits[rows[0], places[0], batch["labels"][rows[0], places[0]] + 1] = 3.0
    examples = FILL.gather([TEXT] * 3)
    kept = kept_of(FILL, logits, batch, wordpiece, TaskOptions())
    found = FILL.answers(kept, features, examples, wordpiece, config, TaskOptions())
    assert json.loads(json.dumps(found)) == found
    each, count = int(chosen[0].sum()), int(chosen.sum())
    assert [answer["right"] for answer in found] == [each - 1, each, each]
    size = logits.shape[-1]
    others = np.log(np.exp(2.0) + size - 1)
    surprise = (count - 1) * (others - 2.0) + np.log(np.exp(2.0) + np.exp(3.0) + size - 2) - 2.0
    metrics = FILL.metrics(found, examples, config, TaskOptions())
    assert metrics == pytest.approx({"accuracy": (count - 1) / count, "perplexity": np.exp(surprise / count)})
    assert FILL.best_metric(config) == "perplexity"
    assert not larger_is_better("perplexity")
    assert larger_is_better("accuracy")


def test_each_mask_is_filled_with_the_likeliest_tokens(tokenizer: Any, config: PretrainedConfig) -> None:
    text = "Anna  lives in [MASK] , she is [MASK] ."
    examples = FILL.gather([text, "[MASK]"])
    options = TaskOptions(top_k=2)
    features = FILL.encode(examples, tokenizer, config, options, labelled=False)
    batch = FILL.collate(features, tokenizer, options, length=24)
    words = ["paris", "france", "here", "now"]
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    logits = np.zeros((2, 24, config.vocab_size), np.float32)
    rows, places = np.nonzero(batch["input_ids"] == tokenizer.mask_token_id)
    for row, place, best in zip(rows, places, [(0, 1), (2, 3), (0, 3)], strict=True):
        logits[row, place, ids[best[0]]], logits[row, place, ids[best[1]]] = 5.0, 4.0
    kept = kept_of(FILL, logits, batch, tokenizer, options)
    first, second = FILL.answers(kept, features, examples, tokenizer, config, options)
    assert [(entry["mask"], entry["token"]) for entry in first["tokens"]] == [
        (0, "paris"),
        (0, "france"),
        (1, "here"),
        (1, "now"),
    ]
    assert first["tokens"][1]["text"] == "Anna  lives in france , she is [MASK] ."
    assert first["tokens"][2]["text"] == "Anna  lives in [MASK] , she is here ."
    assert first["tokens"][0]["score"] == pytest.approx(np.exp(5) / (np.exp(5) + np.exp(4) + config.vocab_size - 2))
    assert [entry["text"] for entry in second["tokens"]] == ["paris", "now"]
    with pytest.raises(InputError, match=r"input 1: there is no \[MASK\] in this text"):
        FILL.encode(FILL.gather([text, "x"]), tokenizer, config, options, labelled=False)


def test_a_piece_inside_a_word_is_joined_to_what_is_before(wordpiece: Any, config: PretrainedConfig) -> None:
    examples, options = FILL.gather(["un [MASK] now"]), TaskOptions(top_k=1)
    features = FILL.encode(examples, wordpiece, config, options, labelled=False)
    best = wordpiece.convert_tokens_to_ids("##able")
    kept = [{"ids": np.array([[best]]), "scores": np.array([[0.5]])}]
    (answer,) = FILL.answers(kept, features, examples, wordpiece, config, options)
    assert answer["tokens"] == [{"mask": 0, "token": "##able", "score": 0.5, "text": "unable now"}]


@pytest.fixture
def decoder() -> PretrainedConfig:
    return RemBertConfig(vocab_size=120, max_position_embeddings=64, is_decoder=True, bos_token_id=2, eos_token_id=3)


def test_texts_are_joined_and_cut_into_rows(tokenizer: Any, decoder: PretrainedConfig) -> None:
    examples = WRITE.gather(["anna lives in paris", "she is here", ""])
    rows = WRITE.encode(examples, tokenizer, decoder, TaskOptions(max_length=5))
    ids = [tokenizer(example["text"], add_special_tokens=False)["input_ids"] for example in examples]
    stream = [token for text in ids for token in (2, *text, 3)]
    # The last row would have a token that nothing predicts.
    assert len(stream) % 5 == 3
    assert [row["input_ids"].tolist() for row in rows] == [stream[at : at + 5] for at in range(0, len(stream), 5)]
    batch = WRITE.collate(rows, tokenizer, TaskOptions(), length=8)
    assert (batch["labels"] == np.where(batch["attention_mask"], batch["input_ids"], -100)).all()
    found = WRITE.config_fields(examples, tokenizer, decoder, TaskOptions())
    assert found == {"is_decoder": True, "bos_token_id": 2, "eos_token_id": 3}
    with pytest.raises(InputError, match="eos_token_id is 313, and its vocab_size 120"):
        WRITE.encode(examples, tokenizer, decoder.replace(eos_token_id=313), TaskOptions())


def test_each_word_is_measured_by_the_scores_before_it(tokenizer: Any, decoder: PretrainedConfig) -> None:
    examples, options = WRITE.gather(["anna lives in paris", "she is here"]), TaskOptions(max_length=5)
    rows = WRITE.encode(examples, tokenizer, decoder, options)
    batch = WRITE.collate(rows, tokenizer, options, length=8)
    logits = np.zeros((len(rows), 8, 120), np.float32)
    for row, place in np.argwhere(batch["attention_mask"][:, 1:] == 1):
        logits[row, place, batch["labels"][row, place + 1]] = 1.0
    logits[0, 1] = 0.0
    logits[0, 1, 119] = 1.0
    kept = kept_of(WRITE, logits, batch, tokenizer, options)
    found = WRITE.answers(kept, rows, examples, tokenizer, decoder, options)
    total = sum(len(row["input_ids"]) - 1 for row in rows)
    # Of each text, what does not begin a row.
    lengths = [len(tokenizer(e["text"], add_special_tokens=False)["input_ids"]) + 2 for e in examples]
    begin = [sum(at < lengths[0] for at in range(0, sum(lengths), 5))]
    begin.append(len(range(0, sum(lengths), 5)) - begin[0])
    assert [answer["tokens"] for answer in found] == [a - b for a, b in zip(lengths, begin, strict=True)]
    assert sum(answer["tokens"] for answer in found) == total
    assert [answer["tokens"] - answer["right"] for answer in found] == [1, 0]
    likely, unlikely = 1 - np.log(np.e + 119), -np.log(np.e + 119)
    metrics = WRITE.metrics(found, examples, decoder, options)
    assert metrics["perplexity"] == pytest.approx(np.exp(-(unlikely + (total - 1) * likely) / total))
    assert metrics["accuracy"] == pytest.approx((total - 1) / total)


def test_prompts_are_padded_on_the_left_and_lose_their_beginning(tokenizer: Any, decoder: PretrainedConfig) -> None:
    examples, options = WRITE.gather(["anna lives in paris now", "she"]), TaskOptions(max_length=4)
    rows = WRITE.encode(examples, tokenizer, decoder, options, labelled=False)
    assert rows.truncated == 1
    batch = WRITE.collate(rows, tokenizer, options, length=6)
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]]
    assert batch["input_ids"][0, 2:].tolist() == tokenizer("lives in paris now", add_special_tokens=False)["input_ids"]
    assert batch["input_ids"][1, 4] == 2
    assert "labels" not in batch
    kept = WRITE.keep({"sequences": np.array([[0, 2, *batch["input_ids"][0, 2:], 3]])}, batch, tokenizer, options)
    (answer,) = WRITE.answers(kept, rows[:1], examples[:1], tokenizer, decoder, options)
    assert answer == {"text": "lives in paris now"}


DOCUMENTS = [
    ["anna lives in paris .", "she is here .", "now ."],
    ["the river is long .", "where is the river ?"],
    ["who is she ?", "she is unaffable .", "long , long .", "is she in france ?"],
]


def test_documents_are_read_from_lines_and_from_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n" + "\n\n\n".join("\n".join(document) for document in DOCUMENTS) + "\n")
    found = PRETRAIN.read(tmp_path / "a.txt")
    assert [example["text"] for example in found] == DOCUMENTS
    assert found[1]["place"].endswith("a.txt:8")
    lines = [{"text": "She is here. Now? Yes!"}, {"text": "a\nb. c\n"}, {"text": ["a", " "]}, {"text": " "}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [example["text"] for example in PRETRAIN.read(tmp_path / "a.jsonl")] == [
        ["She is here.", "Now?", "Yes!"],
        ["a", "b. c"],
        ["a"],
    ]


def texts_of(row: Any, tokenizer: Any) -> tuple[list[int], list[int]]:
    ends = np.flatnonzero(row["input_ids"] == tokenizer.sep_token_id)
    assert row["token_type_ids"].tolist() == [0] * (ends[0] + 1) + [1] * (ends[1] - ends[0])
    return row["input_ids"][1 : ends[0]].tolist(), row["input_ids"][ends[0] + 1 : ends[1]].tolist()


def contains(whole: list[int], part: list[int]) -> bool:
    return any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))


def test_half_of_the_pairs_follow_each_other(wordpiece: Any, config: PretrainedConfig) -> None:
    examples = PRETRAIN.gather([{"text": document * 12} for document in DOCUMENTS])
    wholes = [
        [token for text in example["text"] for token in wordpiece(text, add_special_tokens=False)["input_ids"]]
        for example in examples
    ]
    labels = []
    for seed in range(40):
        options = TaskOptions(max_length=24, seed=seed)
        rows = PRETRAIN.encode(examples, wordpiece, config, options)
        for row in rows:
            first, second = texts_of(row, wordpiece)
            own = wholes[row["example"]]
            label = int(row["next_sentence_label"])
            labels.append(label)
            assert first
            assert second
            assert len(row["input_ids"]) <= 24
            assert contains(own, first)
            if label == 1:
                assert any(contains(whole, second) for index, whole in enumerate(wholes) if index != row["example"])
            else:
                assert contains(own, second)
            # Each text's words are numbered on their own.
            words = row["word_ids"]
            assert (words[[0, len(first) + 1, -1]] == -1).all()
            assert words[1 : len(first) + 1].max() < words[len(first) + 2 : -1].min()
        assert {row["example"] for row in rows} == {0, 1, 2}
    assert np.mean(labels) == pytest.approx(0.5, abs=0.1)
    again = PRETRAIN.encode(examples, wordpiece, config, options)
    assert all(np.array_equal(a["input_ids"], b["input_ids"]) for a, b in zip(rows, again, strict=True))


def test_where_nothing_is_cut_pairs_are_whole_and_every_sentence_is_used(
    wordpiece: Any, config: PretrainedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "_SHORT", 0.0)
    examples = PRETRAIN.gather([{"text": document} for document in DOCUMENTS])
    sentences = [wordpiece(document, add_special_tokens=False)["input_ids"] for document in DOCUMENTS]
    kinds = set()
    for seed in range(10):
        used: list[list[list[int]]] = [[] for _ in DOCUMENTS]
        for row in PRETRAIN.encode(examples, wordpiece, config, TaskOptions(max_length=64, seed=seed)):
            first, second = texts_of(row, wordpiece)
            own = used[row["example"]]
            own.append(first)
            kinds.add(int(row["next_sentence_label"]))
            if row["next_sentence_label"] == 0:
                own.append(second)
                assert contains(list(chain(*sentences[row["example"]])), first + second)
        for index, parts in enumerate(used):
            assert list(chain(*parts)) == list(chain(*sentences[index]))
    assert kinds == {0, 1}


def test_pretraining_measures_words_and_pairs(wordpiece: Any, config: PretrainedConfig) -> None:
    examples, options = PRETRAIN.gather([{"text": document} for document in DOCUMENTS]), TaskOptions()
    rows = PRETRAIN.encode(examples, wordpiece, config, options)
    batch = PRETRAIN.collate(rows, wordpiece, options, length=64, random=generators(len(rows)))
    assert batch["next_sentence_label"].shape == (len(rows),)
    logits = np.zeros((len(rows), 64, 120), np.float32)
    chosen = np.argwhere(batch["labels"] != -100)
    for row, place in chosen:
        logits[row, place, batch["labels"][row, place]] = 50.0
    relation = np.eye(2)[batch["next_sentence_label"]]
    relation[0] = relation[0, ::-1]
    kept = kept_of(PRETRAIN, logits, batch, wordpiece, options, seq_relationship_logits=relation)
    found = PRETRAIN.answers(kept, rows, examples, wordpiece, config, options)
    assert sum(answer["pairs"] for answer in found) == len(rows)
    metrics = PRETRAIN.metrics(found, examples, config, options)
    expected = {"accuracy": 1.0, "perplexity": 1.0, "next_sentence_accuracy": (len(rows) - 1) / len(rows)}
    assert metrics == pytest.approx(expected)
    with pytest.raises(InputError, match="There is but one document"):
        PRETRAIN.encode(examples[:1], wordpiece, config, options)


def test_an_embedding_is_the_mean_of_tokens_or_the_first(wordpiece: Any, config: PretrainedConfig) -> None:
    examples = EMBED.gather(["anna lives here", "she"])
    rows = EMBED.encode(examples, wordpiece, config, TaskOptions())
    batch = EMBED.collate(rows, wordpiece, TaskOptions(), length=8)
    hidden_states = np.random.default_rng(0).normal(size=(2, 8, 4)).astype(np.float32)
    for pooling in ("mean", "first"):
        options = TaskOptions(pooling=pooling)
        kept = EMBED.keep({"last_hidden_state": hidden_states}, batch, wordpiece, options)
        found = EMBED.answers(kept, rows, examples, wordpiece, config, options)
        wanted = hidden_states[1, :3].mean(0) if pooling == "mean" else hidden_states[1, 0]
        assert found[1]["embedding"] == pytest.approx(wanted.tolist())
    with pytest.raises(InputError, match="The task embedding only predicts"):
        EMBED.metrics([], [], config, TaskOptions())


def test_every_task_has_a_head_of_some_family() -> None:
    heads = {head for family in FAMILIES.values() for head in family.heads}
    assert {task.head for task in TASKS.values()} <= heads
    assert all(name == task.name for name, task in TASKS.items())
    with pytest.raises(UnknownNameError, match="There is no task 'sorting'; the tasks are text-classification"):
        task_of("sorting")
