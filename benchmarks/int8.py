"""8-bit integers: what fine-tuned models lose by them, and what models of the papers' sizes gain.

    python benchmarks/int8.py                                                      # times alone
    python benchmarks/int8.py --model DIR DIR --data dev.tsv --texts train.tsv     # and accuracy

The sides are `optimize(model)` in float32 and in bfloat16, and `quantize(model, batches)`, in one process. `--data`
holds texts and labels as `isobert evaluate --task text-classification` reads them, without a header; ranges are seen on
the first texts of `--texts`. What is measured takes the place of what was measured before in `results/int8.json`.
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
from isobert.core.registry import model_class
from isobert.core.tasks import task_of
from isobert.pt import optimize, quantize
from measured import surroundings
from models import _draw as draw
from runner import alternate, timed

RESULTS = Path(__file__).parent / "results" / "int8.json"
SIZES = ("mobilebert-uncased", "squeezebert-uncased", "convbert-base", "rembert")
SIDES: dict[str, Callable[[Any, list[dict[str, Any]]], Any]] = {
    "float32": lambda model, batches: optimize(model),
    "bfloat16": lambda model, batches: optimize(model, dtype=torch.bfloat16),
    "int8": quantize,
}
LENGTH, BATCHES = 128, (1, 8)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", nargs="+", default=[], metavar="DIR", help="fine-tuned models, to be evaluated")
    add("--data", metavar="FILE", help="texts and labels to evaluate them on")
    add("--texts", metavar="FILE", help="texts to see ranges on: of the same form, such as those learned from")
    add("--count", type=int, default=128, metavar="N", help="how many of these (%(default)s)")
    add("--sizes", nargs="*", choices=SIZES, default=SIZES, help="models to be timed (all)")
    add("--rounds", type=int, default=5, metavar="N", help="turns that each side takes (%(default)s)")
    add("--seconds", type=float, default=0.5, metavar="S", help="length of a turn, of two calls at least (%(default)s)")
    add("--threads", type=int, default=2, metavar="N", help="(%(default)s)")
    add("--json", type=Path, default=RESULTS, metavar="FILE", help="where the results go (benchmarks/results)")
    chosen = parser.parse_args(arguments)
    if chosen.model and not (chosen.data and chosen.texts):
        parser.error("--model needs --data and --texts.")
    return chosen


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


def times(size: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Time a model of a paper's size with random weights on each side, and compare what they compute."""
    config = isobert.AutoConfig.from_size(size)
    torch.manual_seed(0)
    model = model_class(config.model_type, "Model", "pt")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw(name, parameter)
    seen = [{"input_ids": torch.randint(config.vocab_size, (8, LENGTH))} for _ in range(2)]
    sides = {side: made(model, seen) for side, made in SIDES.items()}
    found: dict[str, Any] = {"size": size, "batches": {}, "optimizations": sides["int8"].optimizations}
    for batch in BATCHES:
        ids = torch.randint(config.vocab_size, (batch, LENGTH))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
        with torch.inference_mode():
            calls = {side: partial(one, **inputs) for side, one in sides.items()}
            outputs = {side: call().last_hidden_state.float() for side, call in calls.items()}
            turns = {side: partial(timed, call, chosen.seconds) for side, call in calls.items()}
            took = alternate(turns, chosen.rounds)
        exact = outputs["float32"]
        found["batches"][batch] = {
            "seconds": {side: timing.rounds for side, timing in took.items()},
            "error": {side: ((value - exact).norm() / exact.norm()).item() for side, value in outputs.items()},
        }
    return found


def record(path: Path, part: str, key: str, value: dict[str, Any], about: dict[str, Any]) -> None:
    """Put one model's figures into the file."""
    content = json.loads(path.read_text()) if path.exists() else {"accuracy": {}, "times": {}}
    content[part][key] = value | {"about": about}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    chosen = options()
    torch.set_num_threads(chosen.threads)
    about = surroundings() | {"threads": chosen.threads, "torch": version("torch")}
    # Where a model lies says nothing on another machine.
    about["command"] = "make bench-int8"
    for folder in chosen.model:
        found = accuracy(folder, chosen.data, chosen.texts, chosen.count)
        record(chosen.json, "accuracy", found["model"], found, about)
        figures = ", ".join(f"{side} {metrics['accuracy']:.4f}" for side, metrics in found["sides"].items())
        print(f"{found['model']}: {figures}; answers that changed: {found['changed']}", flush=True)
    for size in chosen.sizes:
        found = times(size, chosen)
        record(chosen.json, "times", size, found, about)
        for batch, measured in found["batches"].items():
            middles = {side: sorted(rounds)[len(rounds) // 2] for side, rounds in measured["seconds"].items()}
            told = ", ".join(f"{side} {middle * 1e3:.1f} ms" for side, middle in middles.items())
            print(f"{size}, {batch} x {LENGTH}: {told}; errors {measured['error']}", flush=True)


if __name__ == "__main__":
    main()
