"""The texts that transformers writes: the calls of `generate` that the oracle is asked for, and their recording.

For each case, `write_generation` writes `config.json` and `model.safetensors`, the calls' arguments in `calls.json`,
and in `generation.npz` what all calls are given, `inputs/<name>`, and each call's texts, `<call>/texts`.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from support.weights import random_value

SEED = 21

# The padding's id is not 0: transformers fills up the texts of beams with the first id that ends one if it is.
DECODER: dict[str, Any] = {
    "vocab_size": 37,
    "hidden_size": 24,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "max_position_embeddings": 40,
    "input_embedding_size": 9,
    "output_embedding_size": 17,
    "pad_token_id": 3,
    "bos_token_id": 2,
    "eos_token_id": 5,
    "is_decoder": True,
}

CASES: dict[str, dict[str, Any]] = {
    "rembert-writes": DECODER,
    "rembert-writes-about": {**DECODER, "add_cross_attention": True, "num_attention_heads": 3},
}


def calls() -> dict[str, dict[str, Any]]:
    """Return the arguments of each call, by a name that tells them."""
    several = [5, 11, 30]
    asked: list[dict[str, Any]] = [
        {},
        {"max_length": 9},
        {"max_new_tokens": 1},
        {"max_new_tokens": 12, "eos_token_id": several},
        {"max_new_tokens": 12, "eos_token_id": several, "pad_token_id": 1},
        {"max_new_tokens": 12, "eos_token_id": several, "min_new_tokens": 6},
        {"max_new_tokens": 12, "eos_token_id": several, "min_length": 8, "num_beams": 3},
        {"max_new_tokens": 1, "num_beams": 3, "num_return_sequences": 3},
        {"max_length": 40, "num_beams": 2},
    ]
    for beams, penalty, stopping in product((2, 3, 4), (-1.0, 0.0, 1.0, 2.5), (False, True, "never")):
        asked.append(
            {
                "max_new_tokens": 12,
                "eos_token_id": several,
                "num_beams": beams,
                "num_return_sequences": beams - 1,
                "length_penalty": penalty,
                "early_stopping": stopping,
            }
        )
    return {",".join(f"{name}={value}" for name, value in call.items()) or "nothing": call for call in asked}


def write_generation(root: Path) -> None:
    """Write each case into a folder of its name."""
    for case, fields in CASES.items():
        model = transformers.RemBertForCausalLM(transformers.RemBertConfig(**fields)).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.from_numpy(random_value(name, tuple(parameter.shape), SEED)))
        model.save_pretrained(root / case)
        (root / case / "generation_config.json").unlink()
        arrays = inputs(model.config)
        found = {f"inputs/{name}": value for name, value in arrays.items()}
        for name, call in calls().items():
            found[f"{name}/texts"] = run(model.double(), arrays, call)
            # Were two candidates as good as equal, rounding would decide which is taken.
            assert np.array_equal(found[f"{name}/texts"], run(model.float(), arrays, call)), name
        (root / case / "calls.json").write_text(json.dumps(calls(), indent=1) + "\n")
        np.savez_compressed(root / case / "generation.npz", **found)


def inputs(config: Any) -> dict[str, np.ndarray]:
    """Return prompts of several lengths, padded on the left, and for cross-attention an encoder's output."""
    random = np.random.default_rng(SEED)
    lengths = np.array([6, 4, 1, 5])
    mask = (np.arange(6) >= 6 - lengths[:, None]).astype(np.int64)
    words = random.integers(6, config.vocab_size, mask.shape)
    found = {"input_ids": np.where(mask, words, config.pad_token_id), "attention_mask": mask}
    found["token_type_ids"] = random.integers(0, config.type_vocab_size, mask.shape)
    if config.add_cross_attention:
        found["encoder_hidden_states"] = random.normal(size=(len(mask), 7, config.hidden_size))
        found["encoder_attention_mask"] = (np.arange(7) < np.array([7, 3, 5, 1])[:, None]).astype(np.int64)
    return found


def run(model: Any, arrays: dict[str, np.ndarray], call: dict[str, Any]) -> np.ndarray:
    """Return the texts of one call."""
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    tensors = {name: t.to(model.dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    # Of the cache that transformers makes, its RemBERT lets self-attention and cross-attention use the same half.
    return model.generate(**tensors, **call, use_cache=not model.config.add_cross_attention).numpy()
