"""Token classification: a tag for each word, and the entities that the tags mark."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ..config import IGNORED_LABEL, PretrainedConfig
from .base import (
    Answer,
    Arrays,
    Encoded,
    Features,
    Task,
    collate_rows,
    cut_rows,
    features_of,
    most_tokens,
    softmax,
)
from .entities import OUTSIDE, are_entities, entities_of, entity_scores
from .files import Column, Example, shown
from .labels import config_labels, label_id, label_name, mean
from .options import TaskOptions

logger = logging.getLogger("isobert")


class TokenClassification(Task):
    """Tags of words. An example has `words`; a text is cut at blanks.

    A model tags pieces: a word's tag is that of its first piece. Words that were cut off with the end of a long
    sentence, or that the tokenizer finds nothing in, have the tag O (or the first label, where there is no O).
    """

    name = "token-classification"
    head = "ForTokenClassification"
    columns = (
        Column("words", ("tokens", "text", "sentence"), number=0),
        Column(
            "tags", ("ner_tags", "labels", "pos_tags", "chunk_tags", "tag", "label", "ner"), is_label=True, number=-1
        ),
    )
    reads_words = True

    def check(self, example: Example) -> Example | None:
        """See `Task.check`."""
        words = example["words"]
        if isinstance(words, str):
            words = words.split()
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise InputError(f"{example['place']}: words is {shown(words)}; it must be a list of words, or a text.")
        checked = {**example, "words": words}
        if "tags" in example:
            tags = example["tags"]
            tags = tags.split() if isinstance(tags, str) else tags
            if not isinstance(tags, list) or len(tags) != len(words):
                count = f"{len(tags)} tags" if isinstance(tags, list) else f"the tags {shown(tags)}"
                raise InputError(f"{example['place']}: there are {len(words)} words and {count}; give each word a tag.")
            checked["tags"] = [label_name(tag, example, "tag") for tag in tags]
        return checked

    def config_fields(
        self, examples: Sequence[Example], tokenizer: Any, config: PretrainedConfig, options: TaskOptions
    ) -> dict[str, Any]:
        """See `Task.config_fields`."""
        names = {tag for example in examples for tag in example["tags"]}
        if len(names) < 2:
            raise InputError(f"All words have the tag {min(names, default='')!r}: there is nothing to tell apart.")
        return config_labels(names, config)

    def encode(
        self,
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
        *,
        labelled: bool = True,
    ) -> Encoded:
        """See `Task.encode`; `word_ids` is each piece's word or -1, `offsets` its characters in the word.

        Raises:
            InputError: the config lacks a tag.
        """
        max_length = most_tokens(tokenizer, config, options)
        words = [example["words"] for example in examples]
        rows = cut_rows(tokenizer, words, None, max_length, is_split_into_words=True)
        encoded, lost = Encoded(), 0
        for index, (example, (row, was_cut)) in enumerate(zip(examples, rows, strict=True)):
            encoded.truncated += was_cut
            features = features_of(row, tokenizer, index)
            word_ids = np.array([-1 if word is None else word for word in row.word_ids], np.int32)
            features["word_ids"], features["offsets"] = word_ids, np.array(row.offsets, np.int32).reshape(-1, 2)
            lost += len(example["words"]) - 1 - int(word_ids.max(initial=-1)) if was_cut else 0
            if labelled:
                features["labels"] = _piece_labels(example, word_ids, config, options.label_all_pieces)
            encoded.append(features)
        if encoded.truncated:
            logger.warning(
                "%d of %d sentences are longer than %d tokens; %d words at their ends were cut off, and have no tag.",
                encoded.truncated,
                len(examples),
                max_length,
                lost,
            )
        return encoded

    def collate(
        self,
        features: Sequence[Features],
        tokenizer: Any,
        options: TaskOptions,
        *,
        length: int,
        random: Sequence[np.random.Generator] | None = None,
    ) -> Arrays:
        """See `Task.collate`; `labels` `[rows, length]` are -100 where none counts."""
        return collate_rows(features, tokenizer, length, token_labels=True)

    def answers(
        self,
        kept: Sequence[Arrays],
        features: Sequence[Features],
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
    ) -> list[Answer]:
        """Return `words`, their `tags`, and `spans`: the entities with `label`, `start`, `end`, `text`, `score`.

        `start` and `end` count characters of the words joined by single blanks. With `aggregation="simple"` the spans
        are made of pieces and may begin or end inside a word.
        """
        return [
            _answer(examples[row["example"]]["words"], scores["logits"][: len(row["word_ids"])], row, config, options)
            for scores, row in zip(kept, features, strict=True)
        ]

    def metrics(
        self, answers: Sequence[Answer], examples: Sequence[Example], config: PretrainedConfig, options: TaskOptions
    ) -> dict[str, float]:
        """Return `precision`, `recall` and `f1` over entities, where tags mark such, and the words' `accuracy`."""
        found = [answer["tags"] for answer in answers]
        wanted = [[config.id2label[label_id(t, e, config, "tag")] for t in e["tags"]] for e in examples]
        right = [a == b for mine, theirs in zip(found, wanted, strict=True) for a, b in zip(mine, theirs, strict=True)]
        accuracy = {"accuracy": mean(right)}
        if not are_entities(config.label2id):
            return accuracy
        precision, recall, f1 = entity_scores(found, wanted)
        return {"precision": precision, "recall": recall, "f1": f1, **accuracy}

    def best_metric(self, config: PretrainedConfig) -> str:
        """See `Task.best_metric`."""
        return "f1" if are_entities(config.label2id) else "accuracy"


def _piece_labels(example: Example, word_ids: np.ndarray, config: PretrainedConfig, all_pieces: bool) -> np.ndarray:
    """Return each piece's label: its word's at the first piece, -100 or what goes on with it at the others."""
    labels = np.full(len(word_ids), IGNORED_LABEL, np.int32)
    ids = [label_id(tag, example, config, "tag") for tag in example["tags"]]
    before = -1
    for piece, word in enumerate(word_ids):
        if word >= 0 and word != before:
            labels[piece] = ids[word]
        elif word >= 0 and all_pieces:
            labels[piece] = _going_on(ids[word], config.label2id, config.id2label)
        before = word
    return labels


def _going_on(label: int, label2id: Mapping[str, int], id2label: Mapping[int, str]) -> int:
    """Return the label of a word's later pieces: an entity that begins goes on in them."""
    prefix, dash, kind = id2label[label].partition("-")
    return label2id.get(f"I-{kind}", label) if prefix == "B" and dash else label


def _answer(
    words: list[str], logits: np.ndarray, row: Features, config: PretrainedConfig, options: TaskOptions
) -> Answer:
    """Return the answer for a sentence, by the scores of its pieces `[pieces, num_labels]`."""
    chances, word_ids, text = softmax(logits), row["word_ids"], " ".join(words)
    best, score = [config.id2label[int(index)] for index in chances.argmax(-1)], chances.max(-1)
    pieces = np.flatnonzero(word_ids >= 0)
    tags = [OUTSIDE if OUTSIDE in config.label2id else config.id2label[0]] * len(words)
    of_words = np.zeros(len(words))
    for piece in pieces[np.unique(word_ids[pieces], return_index=True)[1]]:
        tags[word_ids[piece]], of_words[word_ids[piece]] = best[piece], score[piece]
    answer: Answer = {"words": words, "tags": tags, "spans": []}
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    if not are_entities(config.label2id):
        return answer
    if options.aggregation == "first":
        places = np.stack([starts[:-1], starts[1:] - 1], axis=1)
        answer["spans"] = _spans(tags, of_words, places, text)
    else:
        places = starts[word_ids[pieces], None] + row["offsets"][pieces]
        answer["spans"] = _spans([best[piece] for piece in pieces], score[pieces], places, text)
    return answer


def _spans(tags: Sequence[str], chances: np.ndarray, places: np.ndarray, text: str) -> list[Answer]:
    """Return the entities that tags mark; `places` `[tags, 2]` are the characters of what each is of."""
    found = []
    for kind, first, last in entities_of(tags):
        start, end = int(places[first, 0]), int(places[last - 1, 1])
        score = float(np.mean(chances[first:last]))
        found.append({"label": kind, "start": start, "end": end, "text": text[start:end], "score": score})
    return found
