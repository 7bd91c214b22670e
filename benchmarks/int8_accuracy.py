"""8-bit integers: what fine-tuned models lose by them.

    python benchmarks/int8_accuracy.py DIR DIR --data test.tsv --texts train.tsv

The sides are `optimize(model)` in float32 and in bfloat16, and `quantize(model, batches)`. `--data` holds texts and
labels as `isobert evaluate --task text-classification` reads them, without a header; ranges are seen on the first
texts of `--texts`. What is found takes the place of what was found before of the same model in
`results/int8_accuracy.json`. Times are `make bench-int8`'s.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import isobert
from isobert.core.tasks import task_of
from isobert.pt import optimize, quantize
from measured import surroundings

RESULTS = Path(__file__).parent / "results" / "int8_accuracy.json"
SIDES: dict[str, Callable[[Any, list[dict[str, Any]]], Any]] = {
    "float32": lambda model, batches: optimize(model),
    "bfloat16": lambda model, batches: optimize(model, dtype=torch.bfloat16),
    "int8": quantize,
}
LENGTH = 128


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("models", nargs="+", metavar="DIR", help="fine-tuned models")
    add("--data", required=True, metavar="FILE", help="texts and labels to evaluate them on")
    add("--texts", required=True, metavar="FILE", help="texts to see ranges on, such as those learned from")
    add("--count", type=int, default=128, metavar="N", help="how many of these (%(default)s)")
    add("--threads", type=int, default=2, metavar="N", help="(%(default)s)")
    add("--json", type=Path, default=RESULTS, metavar="FILE", help="where the results go (benchmarks/results)")
    return parser.parse_args(arguments)


def accuracy(folder: str, data: str, texts: str, count: int) -> dict[str, Any]:
    """Evaluate a fine-tuned model on each side."""
    task, columns = task_of("text-classification"), {"text": 0, "label": 1}
    examples = task.read(data, columns)
    seen = [str(row["text"]) for row in task.read(texts, columns)[:count]]
    opened = isobert.pipeline("text-classification", folder, device="cpu", framework="pt")
    model, tokenizer = opened.model, opened.tokenizer
    encode = partial(tokenizer, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    batches = [encode(seen[start : start + 16]) for start in range(0, len(seen), 16)]
    config = model.config
    found: dict[str, Any] = {
        "model": f"{config.model_type}, {config.num_hidden_layers} layers, {config.hidden_size} wide",
        "examples": len(examples),
        "texts": len(seen),
        "sides": {},
    }
    chosen: dict[str, list[Any]] = {}
    for side, made in SIDES.items():
        opened.model = made(model, batches)
        found["sides"][side] = opened.evaluate(examples)
        chosen[side] = [answer["label"] for answer in opened([{"text": row["text"]} for row in examples])]
    found["changed"] = {
        side: sum(a != b for a, b in zip(answers, chosen["float32"], strict=True)) for side, answers in chosen.items()
    }
    return found


def main() -> None:
    chosen = options()
    torch.set_num_threads(chosen.threads)
    # Where a model lies says nothing on another machine.
    about = surroundings() | {"threads": chosen.threads, "torch": version("torch"), "command": "int8_accuracy.py"}
    for folder in chosen.models:
        found = accuracy(folder, chosen.data, chosen.texts, chosen.count)
        content = json.loads(chosen.json.read_text()) if chosen.json.exists() else {}
        content[found["model"]] = found | {"about": about}
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(content, indent=1) + "\n")
        figures = ", ".join(f"{side} {metrics['accuracy']:.4f}" for side, metrics in found["sides"].items())
        print(f"{found['model']}: {figures}; answers that changed: {found['changed']}", flush=True)


if __name__ == "__main__":
    main()
