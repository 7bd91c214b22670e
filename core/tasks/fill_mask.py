"""Masked language modeling: the words that are hidden in a text (Devlin et al. 2018, section 3.1)."""

from __future__ import annotations

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
    encoded_rows,
    most_tokens,
    softmax,
    token_features,
)
from .files import Column, Example, text_of
from .options import TaskOptions
from .words import by_row, hide_words, label_scores, mask_id, word_metrics


class FillMask(Task):
    """Hidden words. In training and evaluation words are hidden at random; in prediction a text holds the mask.

    A text that is too long becomes several rows, which share nothing.
    """

    name = "fill-mask"
    head = "ForMaskedLM"
    columns = (Column("text", ("sentence", "content", "document"), number=0),)

    def check(self, example: Example) -> Example | None:
        """See `Task.check`."""
        text_of(example, "text")
        return example

    def encode(
        self,
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
        *,
        labelled: bool = True,
    ) -> Encoded:
        """See `Task.encode`; `word_ids` is each token's word, -1 for special ones.

        Raises:
            InputError: a text has no mask, and nothing is to be hidden.
        """
        mask = mask_id(tokenizer)
        room = most_tokens(tokenizer, config, options) - tokenizer.num_special_tokens_to_add()
        encoded = Encoded()
        rows = encoded_rows(tokenizer, [example["text"] for example in examples], add_special_tokens=False)
        for index, row in enumerate(rows):
            if not labelled and mask not in row.ids:
                raise InputError(
                    f"{examples[index]['place']}: there is no {tokenizer.mask_token} in this text, so there is "
                    "nothing to fill in."
                )
            for start in range(0, max(len(row.ids), 1), room):
                ids = row.ids[start : start + room]
                if labelled or mask in ids:
                    encoded.append(_features(ids, row.word_ids[start : start + room], tokenizer, index))
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
        """See `Task.collate`; with `random`, words are hidden, and `labels` `[rows, length]` are what they were."""
        batch = collate_rows(features, tokenizer, length)
        return batch if random is None else {**batch, **hide_words(features, random, tokenizer, options, length)}

    def scored(self, batch: Mapping[str, np.ndarray], tokenizer: Any) -> np.ndarray | None:
        """See `Task.scored`: the hidden words."""
        if "labels" in batch:
            return np.asarray(batch["labels"] != IGNORED_LABEL)
        return np.asarray(batch["input_ids"] == mask_id(tokenizer))

    def keep(
        self,
        outputs: Mapping[str, np.ndarray],
        batch: Mapping[str, np.ndarray],
        tokenizer: Any,
        options: TaskOptions,
    ) -> list[Arrays]:
        """See `Task.keep`: how likely the hidden words were, or the likeliest words for each mask."""
        positions = self.scored(batch, tokenizer)
        assert positions is not None
        logits = outputs[self.outputs[0]]
        if "labels" in batch:
            kept = label_scores(logits, batch["labels"][positions])
        else:
            chances = softmax(logits)
            # A model may have more words than its tokenizer, so that their number is round.
            ids = np.argsort(-chances[:, : len(tokenizer)], axis=-1, kind="stable")[:, : options.top_k]
            kept = {"ids": ids, "scores": np.take_along_axis(chances, ids, -1)}
        parted = {name: by_row(positions, values) for name, values in kept.items()}
        return [{name: rows[row] for name, rows in parted.items()} for row in range(len(positions))]

    def answers(
        self,
        kept: Sequence[Arrays],
        features: Sequence[Features],
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
    ) -> list[Answer]:
        """Return `tokens`, the likeliest for each mask: `mask` (its number in the text), `token`, `score`, `text`.

        Where words were hidden at random: how many `tokens`, their `log_likelihood`, and how many were `right`.
        """
        if kept and "log_likelihood" in kept[0]:
            return likelihoods(kept, features, len(examples))
        found: list[Answer] = [{"tokens": []} for _ in examples]
        masks = [0] * len(examples)
        for row, own in zip(kept, features, strict=True):
            index = own["example"]
            for ids, scores in zip(row["ids"], row["scores"], strict=True):
                for token_id, score in zip(ids, scores, strict=True):
                    word, text = _filled(examples[index]["text"], masks[index], int(token_id), tokenizer)
                    found[index]["tokens"].append(
                        {"mask": masks[index], "token": word, "score": float(score), "text": text}
                    )
                masks[index] += 1
        return found

    def metrics(
        self, answers: Sequence[Answer], examples: Sequence[Example], config: PretrainedConfig, options: TaskOptions
    ) -> dict[str, float]:
        """Return `accuracy` and `perplexity` of the hidden words."""
        return word_metrics(answers)

    def best_metric(self, config: PretrainedConfig) -> str:
        """See `Task.best_metric`."""
        return "perplexity"


def likelihoods(kept: Sequence[Arrays], features: Sequence[Features], count: int) -> list[Answer]:
    """Return each example's sums of what `label_scores` says of its rows."""
    found: list[Answer] = [{"tokens": 0, "log_likelihood": 0.0, "right": 0} for _ in range(count)]
    for row, own in zip(kept, features, strict=True):
        answer = found[own["example"]]
        answer["tokens"] += len(row["right"])
        answer["log_likelihood"] += float(row["log_likelihood"].sum())
        answer["right"] += int(row["right"].sum())
    return found


def _features(ids: list[int], words: list[int | None], tokenizer: Any, example: int) -> Features:
    row = tokenizer.build_inputs_with_special_tokens(ids)
    features = token_features(row, tokenizer.create_token_type_ids_from_sequences(ids), tokenizer, example)
    features["word_ids"] = np.array([-1, *(-1 if word is None else word for word in words), -1], np.int32)
    return features


def _filled(text: str, number: int, token_id: int, tokenizer: Any) -> tuple[str, str]:
    """Return a token as it is read, and the text with it in the place of a mask."""
    mask = tokenizer.mask_token
    word = tokenizer.convert_tokens_to_string([tokenizer.convert_ids_to_tokens(token_id)]).strip()
    parts = text.split(mask)
    before, after = mask.join(parts[: number + 1]), mask.join(parts[number + 1 :])
    if word.startswith("##"):
        # A piece that goes on with the word before it.
        return word, before.rstrip() + word[2:] + after
    return word, before + word + after
