"""Random inputs and labels on which two models can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.config import IGNORED_LABEL
from ..errors import InputError, UnknownNameError


def random_inputs(
    config: Any, head: str, *, batch: int = 3, length: int = 24, choices: int = 3, seed: int = 0
) -> dict[str, np.ndarray]:
    """Draw a padded batch with labels.

    Args:
        config: the models' config.
        head: the model's name after its family's, such as "ForMaskedLM"; "Model" is the bare encoder.
        batch: rows. The first is full, the others are padded by random amounts.
        length: of the longest row; no more than the model's positions.
        choices: of multiple choice.
        seed: the same seed gives the same batch.

    Returns:
        `input_ids`, `attention_mask` and `token_type_ids`, int64 `[batch, length]` (`[batch, choices, length]` for
        multiple choice), and the head's labels: see `random_labels`. For a decoder with cross-attention, also the
        `encoder_hidden_states`, float32, and `encoder_attention_mask` of a longer text.
    """
    random = np.random.default_rng(seed)
    length = min(length, getattr(config, "max_position_embeddings", length))
    shape = (batch, choices, length) if head == "ForMultipleChoice" else (batch, length)
    lengths = random.integers(max(1, length // 3), length + 1, size=shape[:-1])
    lengths.reshape(-1)[0] = length
    mask = (np.arange(length) < lengths[..., None]).astype(np.int64)
    ids = random.integers(0, config.vocab_size, size=shape)
    second = np.arange(length) >= lengths[..., None] // 2
    inputs = {
        "input_ids": np.where(mask == 1, ids, config.pad_token_id or 0),
        "attention_mask": mask,
        "token_type_ids": (second & (mask == 1)).astype(np.int64) * min(1, config.type_vocab_size - 1),
    }
    if getattr(config, "add_cross_attention", False) and head in ("Model", "ForCausalLM"):
        inputs["encoder_hidden_states"] = random.normal(size=(batch, length + 3, config.hidden_size)).astype(np.float32)
        inputs["encoder_attention_mask"] = (np.arange(length + 3) < lengths[..., None] + 2).astype(np.int64)
    return inputs | random_labels(config, head, inputs, seed=seed)


def random_labels(config: Any, head: str, inputs: Mapping[str, np.ndarray], *, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw labels that suit a head, for inputs that may be real text. The bare encoder has none.

    Labels are int64, those of a regression or of several classes at once float32; padded positions get -100.

    Raises:
        UnknownNameError: no head is called so.
        InputError: multiple choice with inputs that are not `[batch, choices, length]`.
    """
    random = np.random.default_rng([seed, 1])
    ids = inputs["input_ids"]
    mask = inputs.get("attention_mask", np.ones_like(ids))
    batch, length = ids.shape[0], ids.shape[-1]
    if (ids.ndim == 3) != (head == "ForMultipleChoice"):
        raise InputError(
            f"input_ids has shape {list(ids.shape)}; multiple choice wants [batch, choices, length], every other head "
            "[batch, length]."
        )

    def of_tokens(classes: int) -> np.ndarray:
        return np.where(mask == 1, random.integers(0, classes, size=ids.shape), IGNORED_LABEL)

    def of_rows(classes: int) -> np.ndarray:
        return random.integers(0, classes, size=(batch,))

    match head:
        case "Model":
            return {}
        case "ForMaskedLM" | "ForCausalLM":
            return {"labels": of_tokens(config.vocab_size)}
        case "ForPreTraining":
            return {"labels": of_tokens(config.vocab_size), "next_sentence_label": of_rows(2)}
        case "ForNextSentencePrediction":
            return {"labels": of_rows(2)}
        case "ForTokenClassification":
            return {"labels": of_tokens(config.num_labels)}
        case "ForMultipleChoice":
            return {"labels": of_rows(ids.shape[1])}
        case "ForQuestionAnswering":
            ends = random.integers(0, length, size=(2, batch))
            return {"start_positions": ends.min(axis=0), "end_positions": ends.max(axis=0)}
        case "ForSequenceClassification":
            return {"labels": _sequence_labels(config, random, batch)}
    raise UnknownNameError(f"no labels are known for the head {head!r}.")


def _sequence_labels(config: Any, random: np.random.Generator, batch: int) -> np.ndarray:
    """Draw one label a row, or one number for each class, as the config's problem type asks."""
    shape = (batch, config.num_labels)
    problem_type = config.problem_type_for(labels_are_floating=False)
    if problem_type == "multi_label_classification":
        return random.integers(0, 2, size=shape).astype(np.float32)
    if problem_type == "regression":
        values = random.normal(size=shape).astype(np.float32)
        return values[:, 0] if config.num_labels == 1 else values
    return random.integers(0, config.num_labels, size=(batch,))
