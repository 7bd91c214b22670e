"""Random padded batches as NumPy arrays, with labels that suit each task head.

Configs are only read, so that the oracle's script can use these with configs of the library it runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

IGNORED_LABEL = -100

Inputs = dict[str, np.ndarray]


def random_inputs(
    config: Any,
    head: str,
    seed: int,
    *,
    batch: int = 3,
    length: int = 9,
    choices: int = 4,
    fully_padded_row: bool = False,
    square_mask: bool = False,
    position_ids: bool = False,
    labels: bool = True,
) -> Inputs:
    """Return what a model with this head ("Model", "ForMaskedLM", ...) is called with.

    Ids and labels are int64, labels of a regression or of several labels float64. Shapes are `[batch, length]`, and
    `[batch, choices, length]` for multiple choice. The first row is full, the others are of random lengths.

    Args:
        config: a config of the family.
        head: a model's name after the family's prefix.
        seed: the same seed gives the same batch.
        batch: number of rows.
        length: length of the longest row.
        choices: number of choices, for multiple choice.
        fully_padded_row: whether the last row is padding alone.
        square_mask: whether the mask is `[batch, length, length]`, with random gaps; not for multiple choice.
        position_ids: whether to give positions, in random order.
        labels: whether to give labels.
    """
    random = np.random.default_rng([seed, *head.encode()])
    shape = (batch, choices, length) if head == "ForMultipleChoice" else (batch, length)
    rows = int(np.prod(shape[:-1]))
    lengths = random.integers(1, length + 1, rows)
    lengths[0] = length
    if fully_padded_row:
        lengths[-1] = 0
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    pad = config.pad_token_id or 0
    # The padding's id also occurs inside a text: it is the mask that says what is padding.
    ids = np.where(mask, random.integers(0, config.vocab_size, (rows, length)), pad)
    inputs = {
        "input_ids": ids.reshape(shape),
        "attention_mask": mask.reshape(shape),
        "token_type_ids": random.integers(0, config.type_vocab_size, shape),
    }
    if square_mask:
        gaps = (random.random((batch, length, length)) < 0.7) | np.eye(length, dtype=bool)
        inputs["attention_mask"] = mask[:, None, :] * gaps
    if position_ids:
        order = random.permuted(np.tile(np.arange(config.max_position_embeddings), (rows, 1)), axis=1)
        inputs["position_ids"] = order[:, :length].reshape(shape)
    if getattr(config, "add_cross_attention", False) and head in ("Model", "ForCausalLM"):
        # Longer than the text, so that the two lengths are told apart.
        inputs["encoder_hidden_states"] = random.normal(size=(batch, length + 2, config.hidden_size))
        inputs["encoder_attention_mask"] = (random.random((batch, length + 2)) < 0.7).astype(np.int64)
        inputs["encoder_attention_mask"][:, 0] = 1
    if labels:
        inputs |= _labels(config, head, random, mask, batch, choices)
    return inputs


def _labels(config: Any, head: str, random: np.random.Generator, mask: np.ndarray, batch: int, choices: int) -> Inputs:
    length = mask.shape[-1]

    def of_tokens(classes: int) -> np.ndarray:
        counted = (mask == 1) & (random.random(mask.shape) < 0.6)
        counted[0, 0] = True
        return np.where(counted, random.integers(0, classes, mask.shape), IGNORED_LABEL)

    def of_rows(classes: int, ignored: bool) -> np.ndarray:
        values = random.integers(0, classes, batch)
        if ignored:
            values[-1] = IGNORED_LABEL
        return values

    if head == "ForPreTraining":
        return {"labels": of_tokens(config.vocab_size), "next_sentence_label": of_rows(2, ignored=True)}
    if head == "ForMaskedLM":
        return {"labels": of_tokens(config.vocab_size)}
    if head == "ForCausalLM":
        found = of_tokens(config.vocab_size)
        # The first position's label is of no text before it, so it does not count.
        found[0, 1:2] = random.integers(0, config.vocab_size)
        return {"labels": found}
    if head == "ForTokenClassification":
        return {"labels": of_tokens(config.num_labels)}
    if head == "ForNextSentencePrediction":
        return {"labels": of_rows(2, ignored=True)}
    if head == "ForMultipleChoice":
        return {"labels": of_rows(choices, ignored=False)}
    if head == "ForSequenceClassification":
        return {"labels": _sequence_labels(config, random, batch)}
    if head == "ForQuestionAnswering":
        starts, ends = random.integers(0, length, (2, batch))
        # An answer that was cut off: outside the sequence, so it does not count.
        ends[-1] = length + 2
        return {"start_positions": starts, "end_positions": ends}
    return {}


def _sequence_labels(config: Any, random: np.random.Generator, batch: int) -> np.ndarray:
    if config.problem_type == "multi_label_classification":
        return random.integers(0, 2, (batch, config.num_labels)).astype(np.float64)
    if config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1):
        return random.normal(size=(batch, config.num_labels))
    return random.integers(0, config.num_labels, batch)
