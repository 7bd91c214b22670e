"""Sentence embeddings: one vector for a text, of a model without a head; for prediction alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..config import PretrainedConfig
from .base import Answer, Arrays, Encoded, Features, Task, cut_rows, features_of, most_tokens, warn_of_truncation
from .files import Column, Example, text_of
from .options import TaskOptions


class Embedding(Task):
    """Vectors of texts: the mean of the last layer over all tokens, or its first token, as `pooling` says."""

    name = "embedding"
    head = "Model"
    columns = (Column("text", ("sentence", "content", "document", "query"), number=0),)
    outputs = ("last_hidden_state",)
    trains = False

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
        labelled: bool = False,
    ) -> Encoded:
        """See `Task.encode`."""
        max_length = most_tokens(tokenizer, config, options)
        encoded = Encoded()
        rows = cut_rows(tokenizer, [example["text"] for example in examples], None, max_length)
        for index, (row, was_cut) in enumerate(rows):
            encoded.append(features_of(row, tokenizer, index))
            encoded.truncated += was_cut
        warn_of_truncation(encoded.truncated, len(examples), max_length)
        return encoded

    def keep(
        self,
        outputs: Mapping[str, np.ndarray],
        batch: Mapping[str, np.ndarray],
        tokenizer: Any,
        options: TaskOptions,
    ) -> list[Arrays]:
        """See `Task.keep`: each row's vector, `[hidden]`."""
        hidden = outputs["last_hidden_state"]
        if options.pooling == "first":
            return [{"embedding": row[0]} for row in hidden]
        mask = batch["attention_mask"][..., None]
        means = (hidden.astype(np.float64) * mask).sum(1) / mask.sum(1)
        return [{"embedding": row.astype(hidden.dtype)} for row in means]

    def answers(
        self,
        kept: Sequence[Arrays],
        features: Sequence[Features],
        examples: Sequence[Example],
        tokenizer: Any,
        config: PretrainedConfig,
        options: TaskOptions,
    ) -> list[Answer]:
        """Return the `embedding`, a list of numbers."""
        return [{"embedding": row["embedding"].tolist()} for row in kept]
