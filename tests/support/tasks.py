"""Small checkpoints with tokenizers, and examples of every task, for tests that predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isobert.core.registry import FAMILIES, model_class
from isobert.core.tasks import task_of
from support.configs import random_config
from support.tokenizers import tokenizer_class, vocabulary
from support.weights import randomise

WORDS = [
    *("anna", "lives", "in", "paris", "france", "she", "is", "here", "now", "who", "where", "the", "river", "long"),
    *("un", "##aff", "##able", "?", ".", ",", "\u2581"),
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
]

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")

TEXTS = [
    "anna lives in paris",
    "she is here",
    "where is the river ? anna is in paris , france . she is unaffable now",
    "who",
    "the river is long , the river is long , the river is long",
    "paris , france",
    "now she lives in the long river .",
]
"""Of many lengths, so that some batches have padding and some have not."""

CONTEXT = " ".join(TEXTS)

INPUTS: dict[str, list[Any]] = {
    "text-classification": [*TEXTS, ("anna is here", "where is anna ?")],
    "token-classification": TEXTS,
    "question-answering": [("who is here ?", text) for text in (*TEXTS[:3], CONTEXT)],
    "multiple-choice": [("anna", [text, "she is here", "in paris"]) for text in TEXTS],
    "fill-mask": [text.replace(" is ", " {mask} ") + " {mask}" for text in TEXTS],
    "text-generation": TEXTS,
    "embedding": TEXTS,
}

LABELS: dict[str, dict[str, list[Any]]] = {
    "text-classification": {"label": [0, 1, 2, 0, 1, 2, 0, 1]},
    "token-classification": {"tags": [[TAGS[i % 5] for i, _ in enumerate(text.split())] for text in TEXTS]},
    "question-answering": {
        "answers": [
            [{"text": "anna", "answer_start": 0}],
            [{"text": "she", "answer_start": 0}],
            [],
            [{"text": "river is long", "answer_start": CONTEXT.index("river is long")}],
        ]
    },
    "multiple-choice": {"label": [0, 1, 2, 0, 1, 2, 0]},
}

FIELDS: dict[str, dict[str, Any]] = {
    "text-classification": {"num_labels": 3, "problem_type": None},
    "token-classification": {"id2label": dict(enumerate(TAGS)), "num_labels": len(TAGS), "problem_type": None},
    "text-generation": {"is_decoder": True, "bos_token_id": 2, "eos_token_id": 3},
}


def make_checkpoint(
    folder: Path, family: str, task: str, *, dtype: str = "float32", tokenizer: str | None = None, **fields: Any
) -> Any:
    """Write a small model with the task's head, random weights and a tokenizer; return the PyTorch model."""
    prefix = FAMILIES[family].prefix
    words = vocabulary(tokenizer or f"{prefix}TokenizerFast", WORDS)
    made = tokenizer_class(tokenizer or f"{prefix}TokenizerFast")(**words)
    common = {
        "num_hidden_layers": 2,
        "vocab_size": len(made) + 3,
        "max_position_embeddings": 40,
        "pad_token_id": made.pad_token_id,
    }
    fields = {**common, **FIELDS.get(task, {"problem_type": None, "num_labels": 2}), **fields}
    if family == "rembert":
        # A decoder's first token sees nothing else.
        fields.setdefault("is_decoder", False)
    config = random_config(family, 0, **fields)
    model = randomise(model_class(family, task_of(task).head, "pt")(config), 1).to(getattr(__import__("torch"), dtype))
    model.eval().save_pretrained(folder)
    made.save_pretrained(folder)
    return model


def inputs_of(task: str, tokenizer: Any) -> list[Any]:
    """Return what a pipeline of the task is called with."""
    found = INPUTS[task]
    return [text.format(mask=tokenizer.mask_token) for text in found] if task == "fill-mask" else found


def labelled_examples(name: str) -> Any:
    """Return examples with labels of a task."""
    task = task_of(name)
    if name in ("fill-mask", "text-generation"):
        return task.gather(TEXTS, labelled=True)
    if name == "pretraining":
        return task.gather([TEXTS, [CONTEXT], list(reversed(TEXTS))], labelled=True)
    rows = [task.row(value) for value in INPUTS[name]]
    for column, labels in LABELS[name].items():
        rows = [{**row, column: label} for row, label in zip(rows, labels, strict=True)]
    return task.gather(rows, labelled=True)
