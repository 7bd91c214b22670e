"""BERT's pretraining: hidden words, and whether the second text of a pair follows the first (Devlin et al. 2018).

Pairs are drawn once, by the seed; words are hidden anew in every epoch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..config import PretrainedConfig
from . import files, forms
from .base import Answer, Arrays, Encoded, Features, encoded_rows, most_tokens, token_features
from .files import Column, Example, Examples, Source, shown
from .fill_mask import FillMask
from .options import TaskOptions
from .words import word_metrics

_SHORT = 0.1  # the share of pairs that are made shorter than need be, so that short ones are learnt too
_FOLLOWS, _RANDOM = 0, 1

_SENTENCE_END = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s+")

_Tokens = np.ndarray
"""The ids of some tokens and the words they are of, int32 `[tokens, 2]`."""


class Pretraining(FillMask):
    """Pairs of texts from documents: half follow each other, half have a second text of another document.

    A document's last sentence, left alone, is always of the second kind, so these are more where documents are short.

    A `.txt` file has a sentence a line and an empty line between documents. Elsewhere an example is a document: a list
    of sentences, or a text, which is cut into sentences at its lines, or after its marks if it has but one.
    """

    name = "pretraining"
    head = "ForPreTraining"
    columns = (Column("text", ("document", "sentences", "content", "article")),)
    outputs = ("prediction_logits", "seq_relationship_logits")
    predicts = False

    def read(
        self,
        source: str | os.PathLike[str],
        columns: Mapping[str, Source] | None = None,
        *,
        labelled: bool = True,
        skip_broken: bool = False,
        split: str | None = None,
    ) -> Examples:
        """See `Task.read`."""
        path = Path(source).expanduser()
        if path.suffix.lower() != ".txt" or not path.is_file():
            return super().read(source, columns, labelled=labelled, skip_broken=skip_broken, split=split)
        return files.gather(
            _documents(path),
            {},
            wanted=self.columns,
            check=self.check,
            labelled=labelled,
            skip_broken=skip_broken,
            name=str(source),
        )

    def check(self, example: Example) -> Example | None:
        """See `Task.check`; an empty document is no example."""
        text = example["text"]
        sentences = _sentences(text) if isinstance(text, str) else text
        if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
            raise InputError(f"{example['place']}: text is {shown(text)}; it must be a text or a list of sentences.")
        sentences = [sentence for sentence in sentences if sentence.strip()]
        return {**example, "text": sentences} if sentences else None

    def encode(
        self,
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
        *,
        labelled: bool = True,
    ) -> Encoded:
        """See `Task.encode`; `next_sentence_label` is 0 where the second text follows the first, else 1.

        Raises:
            InputError: there is but one document, so no text of another.
        """
        room = most_tokens(tokenizer, config, options) - tokenizer.num_special_tokens_to_add(True)
        if room < 2:
            raise InputError(f"max_length is {options.max_length}: there is no room for a pair of texts.")
        documents = _tokens(examples, tokenizer)
        if sum(map(bool, documents)) < 2:
            raise InputError(
                "There is but one document, and a text that does not follow another is drawn from another document. In "
                "a .txt file, an empty line stands between two documents."
            )
        encoded = Encoded()
        for index in range(len(documents)):
            random = np.random.default_rng([options.seed, index])
            for first, second, label in _pairs(documents, index, room, random):
                features = _features(first, second, tokenizer, index)
                features["next_sentence_label"] = np.array(label, np.int32)
                encoded.append(features)
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
        """See `Task.collate`; `next_sentence_label` is `[rows]`."""
        batch = super().collate(features, tokenizer, options, length=length, random=random)
        return {**batch, "next_sentence_label": np.stack([row["next_sentence_label"] for row in features])}

    def keep(
        self,
        outputs: Mapping[str, np.ndarray],
        batch: Mapping[str, np.ndarray],
        tokenizer: Any,
        options: TaskOptions,
    ) -> list[Arrays]:
        """See `Task.keep`."""
        kept = super().keep(outputs, batch, tokenizer, options)
        found = outputs["seq_relationship_logits"].argmax(-1)
        for row, right in zip(kept, found == batch["next_sentence_label"], strict=True):
            row["pair_right"] = right
        return kept

    def answers(
        self,
        kept: Sequence[Arrays],
        features: Sequence[Features],
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
    ) -> list[Answer]:
        """Return each document's sums: those of `fill-mask`, how many `pairs`, and how many `pairs_right`."""
        found = super().answers(kept, features, examples, tokenizer, config, options)
        for answer in found:
            answer.update(pairs=0, pairs_right=0)
        for row, own in zip(kept, features, strict=True):
            found[own["example"]]["pairs"] += 1
            found[own["example"]]["pairs_right"] += int(row["pair_right"])
        return found

    def metrics(
        self, answers: Sequence[Answer], examples: Sequence[Example], config: PretrainedConfig, options: TaskOptions
    ) -> dict[str, float]:
        """Return `accuracy` and `perplexity` of the hidden words, and `next_sentence_accuracy`."""
        pairs = sum(answer["pairs"] for answer in answers)
        right = sum(answer["pairs_right"] for answer in answers)
        return {**word_metrics(answers), "next_sentence_accuracy": right / pairs}


def _documents(path: Path) -> Iterator[forms.Row]:
    place, sentences = "", list[str]()
    for here, line in forms.lines_of(path):
        if line.strip():
            place = place if sentences else here
            sentences.append(line)
        elif sentences:
            yield forms.Row(place, {"text": sentences})
            sentences = []
    if sentences:
        yield forms.Row(place, {"text": sentences})


def _sentences(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines if len(lines) > 1 else _SENTENCE_END.split(text.strip())


def _tokens(examples: Sequence[Example], tokenizer: Any) -> list[list[_Tokens]]:
    """Return the tokens of each document's sentences; the words of a document are numbered through."""
    rows = encoded_rows(tokenizer, [s for example in examples for s in example["text"]], add_special_tokens=False)
    documents = []
    for example in examples:
        sentences: list[_Tokens] = []
        words = 0
        for row in (next(rows) for _ in example["text"]):
            if row.ids:
                own = np.array([word or 0 for word in row.word_ids])
                sentences.append(np.stack([np.array(row.ids), words + own], axis=1).astype(np.int32))
                words = int(sentences[-1][:, 1].max()) + 1
        documents.append(sentences)
    return documents


def _pairs(
    documents: Sequence[list[_Tokens]], index: int, room: int, random: np.random.Generator
) -> Iterator[tuple[_Tokens, _Tokens, int]]:
    """Yield pairs of texts of a document, of `room` tokens at most, with their labels.

    Sentences are gathered until there is enough for a pair. The first text is some of them; the second is the others,
    or sentences of another document, and then the others are used again.
    """
    sentences, at = documents[index], 0
    while at < len(sentences):
        wanted = room if random.random() >= _SHORT else int(random.integers(2, room + 1))
        end, count = at, 0
        while end < len(sentences) and (count < wanted or end < at + 2):
            count += len(sentences[end])
            end += 1
        middle = end if end == at + 1 else int(random.integers(at + 1, end))
        first = np.concatenate(sentences[at:middle])
        if middle == end or random.random() < 0.5:
            second, label, at = _of_another(documents, index, wanted - len(first), random), _RANDOM, middle
        else:
            second, label, at = np.concatenate(sentences[middle:end]), _FOLLOWS, end
        yield *_shortened(first, second, wanted, random), label


def _of_another(documents: Sequence[list[_Tokens]], index: int, wanted: int, random: np.random.Generator) -> _Tokens:
    """Return sentences in a row of another document: at least one, and until there are `wanted` tokens."""
    others = [number for number, document in enumerate(documents) if document and number != index]
    document = documents[others[int(random.integers(len(others)))]]
    start = int(random.integers(len(document)))
    end, count = start + 1, len(document[start])
    while end < len(document) and count < wanted:
        count += len(document[end])
        end += 1
    return np.concatenate(document[start:end])


def _shortened(first: _Tokens, second: _Tokens, room: int, random: np.random.Generator) -> tuple[_Tokens, _Tokens]:
    """Cut a pair to `room` tokens: one after the other off the longer text, at its beginning or its end by chance."""
    lengths = [len(first), len(second)]
    cut = [[0, 0], [0, 0]]
    while sum(lengths) > room:
        longer = int(lengths[1] > lengths[0])
        cut[longer][int(random.random() < 0.5)] += 1
        lengths[longer] -= 1
    (a, b), (c, d) = cut
    return first[a : len(first) - b], second[c : len(second) - d]


def _features(first: _Tokens, second: _Tokens, tokenizer: Any, example: int) -> Features:
    a, b = first[:, 0].tolist(), second[:, 0].tolist()
    features = token_features(
        tokenizer.build_inputs_with_special_tokens(a, b),
        tokenizer.create_token_type_ids_from_sequences(a, b),
        tokenizer,
        example,
    )
    # The words of the two texts are told apart, though they may come of documents that number them alike.
    words = [[-1], first[:, 1], [-1], second[:, 1] + first[:, 1].max() + 1, [-1]]
    features["word_ids"] = np.concatenate(words).astype(np.int32)
    return features
