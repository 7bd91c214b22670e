"""A whole fine-tuning run on texts of real lengths: examples a second, beside transformers' own ways to train.

    python benchmarks/training.py --peer .peers-5/bin/python --tf-peer .peers/bin/python

Ours is `isobert`'s Trainer; the peers are the `Trainer` of transformers 5 and `fit` of transformers 4.57.6's Keras
models. All have the same texts, weights, batch size, longest length, epochs, AdamW and learning rate. The texts are
sentences of Python's language reference, or a file's. Each side is this script again, as a worker: `training.py
ours|peer pt|tf THREADS`. The result is a `measured.Case` in `results/fine-tuning.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measured import Case, record, surroundings
from model_tf import BIN_FOLDER
from runner import BenchmarkError, Worker, alternate, environment, serve

RESULTS = Path(__file__).parent / "results" / "fine-tuning.json"
FRAMEWORKS = {"pt": "PyTorch", "tf": "Keras"}
LEARNING_RATE, WEIGHT_DECAY, WARMUP = 2e-5, 0.01, 0.1
DATA_FILE = "texts.json"


# In the worker.


def texts_of(folder: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows to learn, each a text and its label's number."""
    rows: list[dict[str, Any]] = json.loads((folder / DATA_FILE).read_text(encoding="utf-8"))
    return rows[: settings["texts"]]


class Ours:
    """A run of `isobert`'s trainer."""

    def __init__(self, framework: str) -> None:
        self.framework = framework
        names = ["torch", "accelerate"] if framework == "pt" else ["tensorflow", "keras"]
        self.versions = {name: version(name) for name in ("isobert", *names)}

    def run(self, folder: Path, settings: dict[str, Any]) -> float:
        """Train from a folder's checkpoint, and return the seconds from texts to a saved model."""
        import isobert
        from isobert.core.registry import import_part
        from isobert.core.tasks import task_of
        from isobert.core.training.options import TrainingOptions

        task = task_of("text-classification")
        options = TrainingOptions(
            epochs=settings["epochs"],
            batch_size=settings["batch"],
            max_length=settings["length"],
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            warmup_ratio=WARMUP,
            # Keras's `fit` cuts no gradients unless told to.
            max_grad_norm=1.0 if self.framework == "pt" else None,
            device="cpu",
        )
        rows = texts_of(folder, settings)
        trainers = import_part(f".{self.framework}.trainer")
        prefix = "TF" if self.framework == "tf" else ""
        tokenizer = isobert.AutoTokenizer.from_pretrained(folder)
        with trainers.model_scope(options):
            model = getattr(isobert, f"{prefix}AutoModelForSequenceClassification").from_pretrained(folder)
        with tempfile.TemporaryDirectory() as output:
            start = time.perf_counter()
            examples = task.gather(rows, labelled=True)
            trainer = getattr(trainers, f"{prefix}Trainer")(model, tokenizer, task, options, progress=False)
            trainer.train(examples, output=output)
            return time.perf_counter() - start


class Peer:
    """A run of transformers 5's `Trainer`: batches as they come, padded to the longest of each."""

    def __init__(self) -> None:
        self.versions = {name: version(name) for name in ("transformers", "torch", "accelerate")}

    def run(self, folder: Path, settings: dict[str, Any]) -> float:
        """Train from a folder's checkpoint, and return the seconds from texts to a saved model."""
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
        rows = texts_of(folder, settings)
        with tempfile.TemporaryDirectory() as output:
            steps = settings["epochs"] * -(-len(rows) // settings["batch"])
            arguments = transformers.TrainingArguments(
                output_dir=output,
                num_train_epochs=settings["epochs"],
                per_device_train_batch_size=settings["batch"],
                learning_rate=LEARNING_RATE,
                weight_decay=WEIGHT_DECAY,
                warmup_steps=round(WARMUP * steps),
                logging_steps=10,
                save_strategy="epoch",
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
            )
            start = time.perf_counter()
            encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=settings["length"])
            features = [
                {**{name: values[index] for name, values in encoded.items()}, "label": row["label"]}
                for index, row in enumerate(rows)
            ]
            trainer = transformers.Trainer(
                model=model,
                args=arguments,
                train_dataset=features,
                data_collator=transformers.DataCollatorWithPadding(tokenizer),
            )
            trainer.train()
            trainer.save_model(output)
            return time.perf_counter() - start


class KerasPeer:
    """A run of `fit` with transformers 4.57.6: batches as they come, padded to the longest of each.

    It is what the library's own `prepare_tf_dataset` feeds `fit` with; padding all texts to one length would be slower.
    """

    def __init__(self) -> None:
        self.versions = {name: version(name) for name in ("transformers", "tf_keras")}

    def run(self, folder: Path, settings: dict[str, Any]) -> float:
        """Train from a folder's checkpoint, and return the seconds from texts to a saved model."""
        import numpy as np
        import tensorflow as tf
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.TFAutoModelForSequenceClassification.from_pretrained(folder / BIN_FOLDER, from_pt=True)
        rows = texts_of(folder, settings)
        batch, random = settings["batch"], np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as output:
            start = time.perf_counter()
            encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=settings["length"])
            labels = np.array([row["label"] for row in rows])
            columns = list(encoded)

            def batches() -> Any:
                order = random.permutation(len(rows))
                for first in range(0, len(order), batch):
                    chosen = order[first : first + batch]
                    found = tokenizer.pad(
                        {name: [encoded[name][row] for row in chosen] for name in columns}, return_tensors="np"
                    )
                    yield dict(found), labels[chosen]

            kinds = {name: tf.TensorSpec([None, None], tf.int64) for name in columns}
            data = tf.data.Dataset.from_generator(
                batches, output_signature=(kinds, tf.TensorSpec([None], tf.int64))
            ).prefetch(2)
            count = -(-len(rows) // batch)
            steps = settings["epochs"] * count
            optimizer, _ = transformers.create_optimizer(
                LEARNING_RATE, steps, num_warmup_steps=round(WARMUP * steps), weight_decay_rate=WEIGHT_DECAY
            )
            model.compile(optimizer=optimizer)
            model.fit(data.apply(tf.data.experimental.assert_cardinality(count)), epochs=settings["epochs"], verbose=0)
            model.save_pretrained(output)
            return time.perf_counter() - start


def work(side: str, framework: str, threads: int) -> None:
    if framework == "pt":
        import torch

        torch.set_num_threads(threads)
    else:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    runs: Any = Ours(framework) if side == "ours" else Peer() if framework == "pt" else KerasPeer()
    serve({"about": lambda: runs.versions, "run": lambda folder, settings: [runs.run(Path(folder), settings)]})


# In the parent.


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peer", default=".peers-5/bin/python", help="interpreter with PyTorch and transformers 5 (%(default)s)")
    add("--tf-peer", default=".peers/bin/python", help="one with TensorFlow and transformers 4.57.6 (%(default)s)")
    add("--data", type=Path, metavar="FILE", help="texts of your own: lines of text<TAB>label")
    add("--texts", type=int, default=1600, metavar="N", help="so many of the texts (%(default)s)")
    add("--family", default="mobilebert", choices=("mobilebert", "convbert", "rembert"), help="(%(default)s)")
    add("--frameworks", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS), help="by default pt tf")
    add("--epochs", type=int, default=3, metavar="N", help="(%(default)s)")
    add("--batch", type=int, default=32, metavar="N", help="texts of a step (%(default)s)")
    add("--length", type=int, default=128, metavar="N", help="longest text, in tokens (%(default)s)")
    add("--rounds", type=int, default=3, metavar="N", help="runs of each side (%(default)s)")
    add("--threads", type=int, default=2, metavar="N", help="threads of each side (%(default)s)")
    add("--layers", type=int, metavar="N", help="cut the model to so many layers, to try the benchmark out")
    add("--json", type=Path, default=RESULTS, metavar="FILE", help="where the result goes (benchmarks/results)")
    return parser.parse_args(arguments)


def sentences(count: int) -> list[dict[str, Any]]:
    """Return sentences of Python's language reference in a random order, each with the number of its topic.

    They are as long as people write them; headings, code and lists are left out.
    """
    import random

    from isobert.cli.passages import read_language_reference

    found: dict[str, str] = {}
    for topic, text in read_language_reference().items():
        for paragraph in re.split(r"\n\s*\n", text):
            # What is indented is code; underlines belong to headings.
            if not paragraph.strip() or paragraph.startswith((" ", "\t")) or re.search(r"[*=\-~]{3}", paragraph):
                continue
            for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
                if len(sentence.split()) >= 3:
                    found[sentence] = topic
    topics = {topic: number for number, topic in enumerate(sorted(set(found.values())))}
    rows = [{"text": sentence, "label": topics[topic] % 4} for sentence, topic in found.items()]
    random.Random(0).shuffle(rows)
    if count > len(rows):
        raise BenchmarkError(f"There are {len(rows)} sentences, not {count}: ask for fewer with --texts.")
    return rows[:count]


def rows_of(path: Path, count: int) -> list[dict[str, Any]]:
    """Return the first texts of a file, with their labels numbered."""
    rows = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines() if "\t" in line][:count]
    if not rows:
        raise BenchmarkError(f"{path} has no lines of text<TAB>label.")
    labels = {label: number for number, label in enumerate(sorted({label for _, label in rows}))}
    return [{"text": text, "label": labels[label]} for text, label in rows]


def make_checkpoint(folder: Path, rows: Sequence[dict[str, Any]], chosen: argparse.Namespace) -> None:
    """Write the texts, a tokenizer of their words and a model with new weights, for every library to open."""
    import torch

    import isobert
    from cases import config_of
    from isobert.core.registry import model_class

    (folder / DATA_FILE).write_text(json.dumps(rows), encoding="utf-8")
    words = Counter(word for row in rows for word in re.findall(r"\w+|[^\w\s]", row["text"].lower()))
    pieces = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(word for word, _ in words.most_common())])
    isobert.MobileBertTokenizerFast(vocab=list(pieces)).save_pretrained(folder)
    config = config_of("fine-tuning", chosen.family, chosen.layers)
    config = config.replace(num_labels=1 + max(row["label"] for row in rows))
    torch.manual_seed(0)
    model = model_class(config.model_type, "ForSequenceClassification", "pt")(config)
    model.save_pretrained(folder)
    (folder / BIN_FOLDER).mkdir()
    torch.save(model.state_dict(), folder / BIN_FOLDER / "pytorch_model.bin")
    model.config.save_pretrained(folder / BIN_FOLDER)


def measure(framework: str, folder: Path, chosen: argparse.Namespace, texts: int) -> Case:
    """Have both sides train in turns."""
    case = Case("fine-tuning", chosen.family, framework, chosen.batch, chosen.length, units=texts * chosen.epochs)
    case.about = surroundings() | {"threads": chosen.threads}
    settings = {"batch": chosen.batch, "length": chosen.length, "epochs": chosen.epochs, "texts": texts}
    peer = chosen.peer if framework == "pt" else chosen.tf_peer
    with ExitStack() as stack:
        turns = {}
        for side, interpreter in (("ours", sys.executable), ("peer", peer)):
            variables = environment(chosen.threads, legacy_keras=side == "peer")
            arguments = [side, framework, str(chosen.threads)]
            worker = stack.enter_context(Worker(interpreter, Path(__file__), *arguments, environment=variables))
            case.versions[f"{side} {framework}"] = worker.ask("about")
            # Two steps that do not count: what a process does but once (imports above all) is no part of a run.
            worker.ask("run", folder=str(folder), settings=settings | {"texts": 2 * chosen.batch, "epochs": 1})
            turns[side] = partial(worker.ask, "run", folder=str(folder), settings=settings)
        case.times = alternate(turns, chosen.rounds)
    return case


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] in ("ours", "peer"):
        work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
        return
    chosen = options()
    if os.getloadavg()[0] > 0.5:
        print(f"The machine is busy (load {os.getloadavg()[0]:.1f}): times will be too long, and ratios unsure.")
    try:
        rows = rows_of(chosen.data, chosen.texts) if chosen.data else sentences(chosen.texts)
        with tempfile.TemporaryDirectory() as folder:
            make_checkpoint(Path(folder), rows, chosen)
            for framework in chosen.frameworks:
                case = measure(framework, Path(folder), chosen, len(rows))
                record(chosen.json, case)
                ratio = case.ratio("peer", "ours")
                rates = ", ".join(f"{side} {case.units / timing.median:.1f}" for side, timing in case.times.items())
                print(
                    f"{FRAMEWORKS[framework]}, texts a second: {rates}; ours is {ratio.median:.2f} times as fast "
                    f"({ratio.low:.2f} to {ratio.high:.2f})"
                )
    except BenchmarkError as error:
        sys.exit(f"training.py: error: {error}")


if __name__ == "__main__":
    main()
