"""Causal language modeling: each word from those before it, and texts that go on from a prompt."""

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
    token_features,
    warn_of_truncation,
)
from .files import Column, Example, text_of
from .options import TaskOptions
from .words import by_row, label_scores, word_metrics


class TextGeneration(Task):
    """Texts that are learnt, or gone on with.

    To learn, texts are joined, each between the ids that begin and end a text, and cut into rows of one length. In
    prediction each text is a prompt, padded on the left; a model's `generate` goes on from it, and what it returns is
    handed to `keep` as `sequences`.
    """

    name = "text-generation"
    head = "ForCausalLM"
    columns = (Column("text", ("sentence", "content", "document", "prompt"), number=0),)
    generates = True

    def check(self, example: Example) -> Example | None:
        """See `Task.check`."""
        text_of(example, "text")
        return example

    def config_fields(
        self, examples: Sequence[Example], tokenizer: Any, config: PretrainedConfig, options: TaskOptions
    ) -> dict[str, Any]:
        """See `Task.config_fields`: a decoder, with the tokenizer's ids for the beginning and the end of a text."""
        begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
        return {"is_decoder": True, "bos_token_id": begin, "eos_token_id": end}

    def encode(
        self,
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
        *,
        labelled: bool = True,
    ) -> Encoded:
        """See `Task.encode`; `labels` are the ids, and `owners` the example that each token is of.

        Prompts that are too long lose their beginning.
        """
        max_length = most_tokens(tokenizer, config, options)
        begin, end = _edge("bos_token_id", config), _edge("eos_token_id", config)
        rows = encoded_rows(tokenizer, [example["text"] for example in examples], add_special_tokens=False)
        if not labelled:
            prompts = [[*begin, *row.ids] for row in rows]
            truncated = sum(len(prompt) > max_length for prompt in prompts)
            warn_of_truncation(truncated, len(prompts), max_length, "prompts")
            for index, prompt in enumerate(prompts):
                if not prompt:
                    raise InputError(f"{examples[index]['place']}: the prompt is empty, and no id begins a text.")
            kept = [prompt[-max_length:] for prompt in prompts]
            return Encoded((_features(ids, tokenizer, index) for index, ids in enumerate(kept)), truncated)
        texts = [np.array([*begin, *row.ids, *end], np.int32) for row in rows]
        ids = np.concatenate(texts)
        owners = np.repeat(np.arange(len(texts), dtype=np.int32), [len(text) for text in texts])
        encoded = Encoded()
        for start in range(0, len(ids), max_length):
            own = ids[start : start + max_length]
            # A single token has none before it to be predicted from.
            if len(own) > 1:
                features = _features(own, tokenizer, int(owners[start]))
                features["labels"], features["owners"] = own, owners[start : start + max_length]
                encoded.append(features)
        if not encoded:
            raise InputError("The texts are empty: there is no word to learn.")
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
        """See `Task.collate`; prompts are padded on the left."""
        side = "right" if "labels" in features[0] else "left"
        return collate_rows(features, tokenizer, length, token_labels=True, side=side)

    def scored(self, batch: Mapping[str, np.ndarray], tokenizer: Any) -> np.ndarray:
        """See `Task.scored`: the score at a position is for the word at the next."""
        return np.asarray(_next_labels(batch) != IGNORED_LABEL)

    def keep(
        self,
        outputs: Mapping[str, np.ndarray],
        batch: Mapping[str, np.ndarray],
        tokenizer: Any,
        options: TaskOptions,
    ) -> list[Arrays]:
        """See `Task.keep`: how likely each word was, or the ids that were written."""
        if "sequences" in outputs:
            return [{"sequences": row} for row in outputs["sequences"]]
        positions = self.scored(batch, tokenizer)
        kept = label_scores(outputs["logits"], _next_labels(batch)[positions])
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
        """Return `text`, a prompt with what follows it; of texts that were read, sums as `fill-mask` has them."""
        if kept and "sequences" in kept[0]:
            # A model may have more words than its tokenizer, so that their number is round.
            written = [row["sequences"][row["sequences"] < len(tokenizer)] for row in kept]
            return [{"text": tokenizer.decode(ids, skip_special_tokens=True)} for ids in written]
        owners = np.concatenate([row["owners"][1:] for row in features])
        sums = {
            name: np.bincount(owners, np.concatenate([row[name] for row in kept]), len(examples))
            for name in ("log_likelihood", "right")
        }
        counts = np.bincount(owners, minlength=len(examples))
        return [
            {"tokens": int(count), "log_likelihood": float(likelihood), "right": int(right)}
            for count, likelihood, right in zip(counts, sums["log_likelihood"], sums["right"], strict=True)
        ]

    def metrics(
        self, answers: Sequence[Answer], examples: Sequence[Example], config: PretrainedConfig, options: TaskOptions
    ) -> dict[str, float]:
        """Return `accuracy` and `perplexity` of all words but the first of each row."""
        return word_metrics(answers)

    def best_metric(self, config: PretrainedConfig) -> str:
        """See `Task.best_metric`."""
        return "perplexity"


def _edge(name: str, config: Any) -> list[int]:
    """Return the id that begins or ends a text, as a list; none if the config has none.

    Raises:
        InputError: it is outside the vocabulary.
    """
    value = getattr(config, name, None)
    if value is not None and value >= config.vocab_size:
        raise InputError(
            f"The config's {name} is {value}, and its vocab_size {config.vocab_size}: give it the tokenizer's id."
        )
    return [] if value is None else [value]


def _next_labels(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the label after each position `[rows, length]`; the last has none."""
    return np.pad(batch["labels"][:, 1:], [(0, 0), (0, 1)], constant_values=IGNORED_LABEL)


def _features(ids: Any, tokenizer: Any, example: int) -> Features:
    return token_features(ids, [0] * len(ids), tokenizer, example)
