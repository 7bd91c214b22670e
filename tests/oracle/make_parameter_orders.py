"""Write the order of the parameters of transformers' models, by which its Trainer's `optimizer.pt` numbers them.

Run by `make oracle` in the environment of transformers 4.57.6.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

SETTINGS: dict[str, dict[str, Any]] = {
    "MobileBert": {"num_feedforward_networks": 2, "normalization_type": "layer_norm"},
    "ConvBert": {"num_groups": 2, "embedding_size": 128},
    "SqueezeBert": {},
    "RemBert": {"is_decoder": True, "add_cross_attention": True},
}
HEADS = (
    "Model",
    "ForPreTraining",
    "ForMaskedLM",
    "ForCausalLM",
    "ForNextSentencePrediction",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)


def orders() -> list[dict[str, Any]]:
    found = []
    for family, settings in SETTINGS.items():
        variants = [settings]
        if family == "MobileBert":
            variants.append({**settings, "normalization_type": "no_norm"})
        for fields in variants:
            for head in HEADS:
                model_class = getattr(transformers, f"{family}{head}", None)
                # transformers' ConvBERT has no model for pretraining, and its SqueezeBERT one for masked words alone.
                if model_class is None:
                    continue
                fields = {**fields, "num_hidden_layers": 1, "tie_word_embeddings": False}
                with torch.device("meta"):
                    model = model_class(getattr(transformers, f"{family}Config")(**fields))
                names = [name for name, _ in model.named_parameters()]
                found.append({"family": family.lower(), "head": head, "fields": fields, "names": names})
    return found


if __name__ == "__main__":
    path = Path(__file__).parent / "fixtures" / "parameter_orders.json"
    path.write_text(json.dumps(orders(), indent=1) + "\n", encoding="utf-8")
