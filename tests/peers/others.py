"""Train models of isobert with transformers' `Trainer` and adapt them with `peft`; in the peer's environment.

    PYTHONPATH=FOLDER_WITH_ISOBERT:tests .peers/bin/python tests/peers/others.py PAGE FOLDER

PAGE is `docs/with-others.md`. Its code is run first, and what it defines for users (`Trainer`, `GroupedLora`) is tried
here with every family. What was found is written to FOLDER/results.json, and checkpoints beside it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from isobert.core.registry import FAMILIES, model_class
from support.configs import random_config
from support.inputs import random_inputs
from support.tokenizers import tokenizer_class, vocabulary
from support.weights import randomise

GOOD, BAD, NOUNS = ("bright", "gentle"), ("broken", "dreary"), ("river", "city", "train", "letter")
WORDS = [*GOOD, *BAD, *NOUNS, "the", "is"]
SIZES = {
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 24},
    "squeezebert": {"embedding_size": 32},
    "convbert": {"embedding_size": 16},
}


def main(page: Path, folder: Path) -> None:
    os.chdir(folder)
    names = run_page(page.read_text(encoding="utf-8"))
    results: dict[str, Any] = {}
    for family in FAMILIES:
        for head in ("ForSequenceClassification", "ForMaskedLM"):
            case = f"{family}-{head}"
            results[f"trainer-{case}"] = train(names["Trainer"], family, head, folder / f"trainer-{case}")
            results[f"lora-{case}"] = adapt(names, family, head, folder / f"lora-{case}")
    results["tensors"] = saved_by_transformers_alone(folder / "alone")
    (folder / "results.json").write_text(json.dumps(results))


def run_page(text: str) -> dict[str, Any]:
    """Run all code of the page, also what the project's own environment cannot run, and return its names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for found in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, found.start(1))
        exec(compile("\n" * line + found[1], "with-others.md", "exec"), names)
    return names


class Heard(logging.Handler):
    """Keeps the warnings of transformers."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def tokenizer_of(family: str) -> Any:
    name = f"{FAMILIES[family].prefix}TokenizerFast"
    return tokenizer_class(name)(**vocabulary(name, WORDS))


def trainer_of(trainer_class: Any, family: str, head: str, output: Path, **fields: Any) -> Any:
    """Return a trainer of a new tiny model, which tells texts that say something good from others, or guesses words."""
    tokenizer = tokenizer_of(family)
    random = np.random.default_rng(0)
    rows = []
    for number in range(64):
        about = " ".join(random.choice(NOUNS, random.integers(1, 5)))
        row = dict(tokenizer(f"{random.choice(GOOD if number % 2 else BAD)} is the {about}"))
        rows.append(row | ({"labels": number % 2} if head == "ForSequenceClassification" else {}))
    common = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    common |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 16}
    if head == "ForSequenceClassification":
        common |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = model_class(family, head, "pt")(model_class(family, head, "pt").config_class(**common, **SIZES[family]))
    randomise(model, 0)
    if head == "ForSequenceClassification":
        collator = transformers.DataCollatorWithPadding(tokenizer)
    else:
        collator = transformers.DataCollatorForLanguageModeling(tokenizer, seed=0)
    arguments = {
        "num_train_epochs": 20 if head == "ForSequenceClassification" else 4,
        "learning_rate": 2e-3,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_strategy": "epoch",
        "load_best_model_at_end": True,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        **fields,
    }
    return trainer_class(
        model=model,
        args=transformers.TrainingArguments(str(output), **arguments),
        train_dataset=rows[:48],
        eval_dataset=rows[48:],
        data_collator=collator,
        processing_class=tokenizer,
        compute_metrics=accuracy if head == "ForSequenceClassification" else None,
    )


def accuracy(found: Any) -> dict[str, float]:
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def train(trainer_class: Any, family: str, head: str, output: Path) -> dict[str, Any]:
    """Train with checkpoints, evaluation and the best at the end; then once more from a checkpoint in the middle."""
    heard = Heard()
    logging.getLogger("transformers").addHandler(heard)
    try:
        trainer = trainer_of(trainer_class, family, head, output, gradient_checkpointing=family == "mobilebert")
        trainer.train()
        history = trainer.state.log_history
        # Words are masked anew each time, and their loss hangs on which.
        metrics = trainer.evaluate() if head == "ForSequenceClassification" else {}
        weights = [parameter.detach().clone() for parameter in trainer.model.parameters()]
        best = Path(trainer.state.best_model_checkpoint)
        trainer.save_model(output / "best")
        again = trainer_of(trainer_class, family, head, output, gradient_checkpointing=family == "mobilebert")
        again.train(resume_from_checkpoint=str(output / "checkpoint-12"))
    finally:
        logging.getLogger("transformers").removeHandler(heard)
    apart = [float((p - w).abs().max()) for p, w in zip(again.model.parameters(), weights, strict=True)]
    return {
        "losses": [record["loss"] for record in history if "loss" in record],
        "eval_losses": [record["eval_loss"] for record in history if "eval_loss" in record],
        "metrics": metrics,
        "best": str(best.relative_to(output)),
        "resumed_apart": max(apart),
        "warnings": heard.messages,
    }


def saved_by_transformers_alone(output: Path) -> list[str]:
    """Return the names of the tensors that transformers' own `Trainer` saves."""
    from safetensors import safe_open

    trainer_of(transformers.Trainer, "squeezebert", "ForSequenceClassification", output).train()
    with safe_open(output / "checkpoint-120" / "model.safetensors", "pt") as file:
        return sorted(file.keys())


def adapt(names: dict[str, Any], family: str, head: str, output: Path) -> dict[str, Any]:
    """Train an adapter of queries and values; open it again, and merge it."""
    fields: dict[str, Any] = {"num_labels": 3, "problem_type": None, "num_hidden_layers": 2}
    fields |= {"is_decoder": False, "add_cross_attention": False} if family == "rembert" else {}
    config = random_config(family, 1, **fields)
    inputs = {name: torch.from_numpy(array) for name, array in random_inputs(config, head, 1).items()}
    asked = dict(inputs, output_logits=True) if head == "ForMaskedLM" else inputs
    task = {"task_type": "SEQ_CLS"} if head == "ForSequenceClassification" else {}

    def new_model() -> Any:
        return randomise(model_class(family, head, "pt")(config).eval(), 1)

    def settings() -> Any:
        if family == "squeezebert":
            return names["lora_config"](r=4, **task)
        return LoraConfig(r=4, target_modules=["query", "value"], **task)

    adapted = get_peft_model(new_model(), settings()).eval()
    with torch.no_grad():
        # An adapter begins as nothing.
        begins_apart = (adapted(**asked).logits - new_model()(**asked).logits).abs().max()
    trained = {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=2e-2)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = adapted(**inputs).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    adapted.save_pretrained(output / "adapter")
    opened = PeftModel.from_pretrained(new_model(), output / "adapter", config=settings()).eval()
    with torch.no_grad():
        expected = adapted(**asked).logits
        found = opened(**asked).logits
        merged = adapted.merge_and_unload().eval()
        of_merged = merged(**asked).logits
    merged.save_pretrained(output / "merged")
    np.savez(output / "inputs.npz", **{name: tensor.numpy() for name, tensor in inputs.items()})
    np.save(output / "logits.npy", expected.numpy())
    return {
        "class": type(merged).__name__,
        "trained": sorted(trained),
        "losses": losses,
        "begins_apart": float(begins_apart),
        "opened_apart": float((found - expected).abs().max()),
        "merged_apart": float((of_merged - expected).abs().max()),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
