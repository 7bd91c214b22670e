"""Extractive question answering: the stretch of a context that answers a question, or none.

A context that is too long is read in overlapping windows, each beside the whole question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ..config import PretrainedConfig
from .answers import answer_metrics
from .base import (
    Answer,
    Arrays,
    Encoded,
    Features,
    Task,
    encoded_rows,
    most_tokens,
    softmax,
    token_features,
    warn_of_truncation,
)
from .files import Column, Example, shown, text_of
from .options import TaskOptions

_POSITIONS = ("start_positions", "end_positions")

_DEFAULT_THRESHOLD = 0.0  # of the null score, where questions without answer are measured and none was given


class QuestionAnswering(Task):
    """Answers as stretches of a context.

    `answers` is as in SQuAD: a list of `{"text", "answer_start"}`, or `{"text": [...], "answer_start": [...]}`; without
    one, the question has no answer. The first is learnt, and all are right.
    """

    name = "question-answering"
    head = "ForQuestionAnswering"
    columns = (
        Column("question", ("query",)),
        Column("context", ("passage", "paragraph", "text", "document")),
        Column("answers", ("answer",), is_label=True),
    )
    outputs = ("start_logits", "end_logits")

    def check(self, example: Example) -> Example | None:
        """See `Task.check`."""
        context = text_of(example, "context")
        checked = {**example, "question": text_of(example, "question").strip()}
        if "answers" in example:
            checked["answers"] = _answers(example)
            for text, start in checked["answers"]:
                if context[start : start + len(text)] != text or not text:
                    at = context.find(text) if text else -1
                    hint = f"it stands at {at}" if at >= 0 else "it stands nowhere there"
                    raise InputError(
                        f"{example['place']}: the answer {shown(text)} is not at character {start} of its context "
                        f"({hint})."
                    )
        return checked

    def encode(
        self,
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
        *,
        labelled: bool = True,
    ) -> Encoded:
        """See `Task.encode`; there is a row for each window.

        `offsets` `[length, 2]` are each token's characters in the context, (-1, -1) for tokens of no context.
        `start_positions` and `end_positions` are the answer's tokens, 0 where the window has not all of it.
        """
        max_length = most_tokens(tokenizer, config, options)
        encoded = Encoded()
        contexts = _once(tokenizer, [example["context"] for example in examples])
        questions = _once(tokenizer, [example["question"] for example in examples])
        most = min(options.max_question_length, max_length - tokenizer.num_special_tokens_to_add(True) - 1)
        if most < 1:
            raise InputError(f"max_length is {max_length}: there is no room for a question and its context.")
        for index, example in enumerate(examples):
            (question, _), (context, offsets) = questions[example["question"]], contexts[example["context"]]
            encoded.truncated += len(question) > most
            question = question[:most]
            answer = _answer_tokens(offsets, example["answers"]) if labelled else None
            room = max_length - len(question) - tokenizer.num_special_tokens_to_add(True)
            for start, stop in _windows(len(context), room, options.doc_stride):
                features = _window(question, context[start:stop], offsets[start:stop], tokenizer, index)
                if labelled:
                    # A window that has not all of the answer has none: its first token says so.
                    inside = answer is not None and start <= answer[0] and answer[1] < stop
                    first = len(features["input_ids"]) - 1 - (stop - start) - start
                    for name, token in zip(_POSITIONS, answer or (0, 0), strict=True):
                        features[name] = np.array(first + token if inside else 0, np.int32)
                encoded.append(features)
        warn_of_truncation(encoded.truncated, len(examples), most, "questions")
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
        """See `Task.collate`; `start_positions` and `end_positions` are `[rows]`."""
        batch = super().collate(features, tokenizer, options, length=length, random=random)
        for name in _POSITIONS:
            if name in features[0]:
                batch[name] = np.stack([row[name] for row in features])
        return batch

    def answers(
        self,
        kept: Sequence[Arrays],
        features: Sequence[Features],
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
    ) -> list[Answer]:
        """Return `answer`, its `score` (a probability among the best), `start`, `end`, the `n_best`, and `null_score`.

        `null_score` is by how much answering nothing scores higher than the best answer. With `null_threshold`, the
        answer is "" where it is above that.
        """
        windows: list[list[int]] = [[] for _ in examples]
        for index, row in enumerate(features):
            windows[row["example"]].append(index)
        found = []
        for example, own in zip(examples, windows, strict=True):
            best: dict[tuple[int, int], float] = {}
            null = np.inf
            for index in own:
                start_logits = kept[index]["start_logits"].astype(np.float64)
                end_logits = kept[index]["end_logits"].astype(np.float64)
                # Every window says how little it has of an answer; the one that has most of it decides.
                null = min(null, start_logits[0] + end_logits[0])
                for span, score in _best_spans(start_logits, end_logits, features[index]["offsets"], options):
                    best[span] = max(score, best.get(span, -np.inf))
            found.append(_answer(example, best, null, options))
        return found

    def metrics(
        self, answers: Sequence[Answer], examples: Sequence[Example], config: PretrainedConfig, options: TaskOptions
    ) -> dict[str, float]:
        """Return SQuAD's metrics; see `answers.answer_metrics`."""
        threshold = _DEFAULT_THRESHOLD if options.null_threshold is None else options.null_threshold
        texts = [answer["n_best"][0]["answer"] if answer["n_best"] else "" for answer in answers]
        expected = [[text for text, _ in example["answers"]] for example in examples]
        return answer_metrics(texts, [answer["null_score"] for answer in answers], expected, threshold)

    def best_metric(self, config: PretrainedConfig) -> str:
        """See `Task.best_metric`."""
        return "f1"


def _answers(example: Example) -> list[tuple[str, int]]:
    """Return the answers and where they begin."""
    given = example["answers"]
    if isinstance(given, dict) and isinstance(given.get("text"), list) and isinstance(given.get("answer_start"), list):
        pairs = list(zip(given["text"], given["answer_start"], strict=False))
    elif isinstance(given, list) and all(isinstance(answer, dict) for answer in given):
        pairs = [(answer.get("text"), answer.get("answer_start")) for answer in given]
    else:
        raise InputError(
            f"{example['place']}: answers is {shown(given)}; it must be a list of objects with text and answer_start."
        )
    for text, start in pairs:
        if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool) or start < 0:
            raise InputError(
                f"{example['place']}: an answer has the text {shown(text)} and the answer_start {shown(start)}; "
                "they must be a text and the number of its first character, from 0."
            )
    return pairs


def _once(tokenizer: Any, texts: Sequence[str]) -> dict[str, tuple[list[int], np.ndarray]]:
    """Return each text's ids and their characters, without special tokens; many questions share a context."""
    distinct = list(dict.fromkeys(texts))
    rows = encoded_rows(tokenizer, distinct, add_special_tokens=False)
    return {text: (row.ids, _without_blanks(row.offsets, text)) for text, row in zip(distinct, rows, strict=True)}


def _windows(length: int, room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield where windows of `room` tokens begin and end; neighbours share `stride`, or half where that is too much."""
    step = room - (stride if stride < room else room // 2)
    start = 0
    while start + room < length:
        yield start, start + room
        start += step
    yield start, length


def _without_blanks(offsets: Sequence[tuple[int, int]], text: str) -> np.ndarray:
    """Return tokens' characters `[tokens, 2]` less the blanks that some tokenizers count to the word after them."""
    places = np.array(offsets, np.int32).reshape(-1, 2)
    for place in places:
        while place[0] < place[1] and text[place[0]].isspace():
            place[0] += 1
    return places


def _window(question: list[int], ids: list[int], places: np.ndarray, tokenizer: Any, example: int) -> Features:
    features = token_features(
        tokenizer.build_inputs_with_special_tokens(question, ids),
        tokenizer.create_token_type_ids_from_sequences(question, ids),
        tokenizer,
        example,
    )
    # The context's tokens stand before the last special one.
    first = len(features["input_ids"]) - 1 - len(ids)
    offsets = np.full((len(features["input_ids"]), 2), -1, np.int32)
    offsets[first : first + len(ids)] = places
    features["offsets"] = offsets
    return features


def _answer_tokens(offsets: np.ndarray, answers: list[tuple[str, int]]) -> tuple[int, int] | None:
    """Return the first and the last token of the first answer; None without one, or where no token is of it."""
    if not answers:
        return None
    text, start = answers[0]
    inside = np.flatnonzero((offsets[:, 0] < start + len(text)) & (offsets[:, 1] > start))
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def _best_spans(
    start_logits: np.ndarray, end_logits: np.ndarray, offsets: np.ndarray, options: TaskOptions
) -> Iterator[tuple[tuple[int, int], float]]:
    """Yield the characters and the score of a window's best answers."""
    of_context = np.flatnonzero(offsets[:, 0] >= 0)
    starts = of_context[np.argsort(-start_logits[of_context], kind="stable")[: options.n_best]]
    ends = of_context[np.argsort(-end_logits[of_context], kind="stable")[: options.n_best]]
    for first in starts:
        for last in ends:
            if first <= last < first + options.max_answer_length:
                span = int(offsets[first, 0]), int(offsets[last, 1])
                # A token may be a blank alone, which answers nothing.
                if span[0] < span[1]:
                    yield span, float(start_logits[first] + end_logits[last])


def _answer(example: Example, best: dict[tuple[int, int], float], null: float, options: TaskOptions) -> Answer:
    ordered = sorted(best.items(), key=lambda item: (-item[1], item[0]))[: options.n_best]
    can_be_null = options.null_threshold is not None
    scores = np.array([score for _, score in ordered] + ([null] if can_be_null or not ordered else []))
    chances = softmax(scores)
    n_best = [
        {"answer": example["context"][start:end], "score": float(chance), "start": start, "end": end}
        for ((start, end), _), chance in zip(ordered, chances, strict=False)
    ]
    # Without any possible answer, nothing is the only one; JSON knows no infinity.
    null_score = float(null - ordered[0][1]) if ordered else float(np.finfo(np.float32).max)
    if not n_best or (options.null_threshold is not None and null_score > options.null_threshold):
        first: Answer = {"answer": "", "score": float(chances[-1]), "start": 0, "end": 0}
    else:
        first = n_best[0]
    return {**first, "n_best": n_best, "null_score": null_score}
