"""The main job as a story: train in PyTorch, open the checkpoint in Keras, show it equal, train on, and go back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..conversion.verify import Verification, verify
from ..core.auto import config_class
from ..core.hub import write_json
from ..core.registry import family_of, model_class, tokenizer_class
from ..errors import InputError, MissingDependencyError
from ..tokenization.train import train_unigram, train_wordpiece
from ..tokenization.unigram_tokenizers import UnigramTokenizerFast
from .passages import Passages, read_language_reference, read_text_files, split_into_passages
from .quiet import start_keras
from .training import Arrays, History, KerasTrainer, PyTorchTrainer

HEAD = "ForSequenceClassification"
REPORT_NAME = "report.json"

# A small model of each family: what it takes to tell some topics apart after some hundred passages and a minute.
SMALL: dict[str, dict[str, Any]] = {
    "mobilebert": {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "embedding_size": 64,
        "intra_bottleneck_size": 64,
        "intermediate_size": 256,
        "num_feedforward_networks": 2,
        "max_position_embeddings": 128,
        "hidden_dropout_prob": 0.1,
        # Without layer norm, signals keep their size only if weights are near 1 / sqrt(width).
        "initializer_range": 0.1,
    },
    "squeezebert": {
        "hidden_size": 128,
        "embedding_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "max_position_embeddings": 128,
        # The default is for a width of 768; a narrower model learns from wider weights.
        "initializer_range": 0.05,
    },
    "convbert": {
        "hidden_size": 128,
        "embedding_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "num_groups": 2,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
    },
    "rembert": {
        "hidden_size": 128,
        "input_embedding_size": 64,
        "output_embedding_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": 128,
        "hidden_dropout_prob": 0.1,
        "bos_token_id": 2,
        "eos_token_id": 3,
        # As SqueezeBERT's: narrower, so wider weights.
        "initializer_range": 0.05,
    },
}


# The least that an option of the demo can be; a passage has a token between [CLS] and [SEP].
LEAST = {
    "topics": 2,
    "vocab_size": 50,
    "layers": 1,
    "hidden_size": 1,
    "epochs": 1,
    "keras_epochs": 1,
    "batch_size": 1,
    "max_length": 3,
}


@dataclass
class DemoOptions:
    """What `isobert demo` can be told.

    Attributes:
        output: folder for checkpoints, pictures and `report.json`; must be new, empty, or an earlier demo's.
        family: which of the four families.
        text: the user's own text files, one a topic; none takes Python's language reference.
        topics: how many of the longest topics to keep.
        vocab_size: pieces of the vocabulary that is trained on the passages.
        layers, hidden_size: the model's depth and width; None takes the family's small size.
        epochs, keras_epochs: passes over the passages in PyTorch, then in Keras.
        batch_size, learning_rate: of both trainings.
        max_length: tokens a passage.
        seed: of everything random.
    """

    output: Path
    family: str = "mobilebert"
    text: Sequence[Path] = ()
    topics: int = 8
    vocab_size: int = 2000
    layers: int | None = None
    hidden_size: int | None = None
    epochs: int = 12
    keras_epochs: int = 4
    batch_size: int = 16
    learning_rate: float = 1e-3
    max_length: int = 64
    seed: int = 0


@dataclass
class DemoReport:
    """What the demo found; every figure was computed in this run."""

    figures: dict[str, Any] = field(default_factory=dict)
    passed: bool = False


def run_demo(options: DemoOptions, console: Console | None = None) -> DemoReport:
    """Run the whole story and leave its checkpoints, pictures and report in `options.output`.

    Raises:
        InputError: the text or an option does not suffice for it.
        MissingDependencyError: a framework, or matplotlib, is not installed.
    """
    console = console or Console()
    started = time.monotonic()
    _check(options)
    passages = _read(options, console)
    tokenizer = _train_tokenizer(passages, options, console)
    train, held_out = (_encode(tokenizer, part, options.max_length) for part in (passages.train, passages.held_out))
    history = History()
    folders = {name: options.output / name for name in ("pytorch", "keras")}

    console.rule("PyTorch: train")
    pytorch = PyTorchTrainer(_new_model(options, tokenizer, passages), seed=options.seed)
    parameters = pytorch.model.num_parameters()
    console.print(f"{type(pytorch.model).__name__}, {parameters:,} parameters")
    pytorch.train(train, held_out, history, options.epochs, options.batch_size, options.learning_rate, console)
    pytorch_accuracy = pytorch.accuracy(held_out)
    _save(pytorch.model, tokenizer, folders["pytorch"], console)

    console.rule("Keras: open the same checkpoint")
    keras = KerasTrainer(_open(options, "tf", folders["pytorch"]))
    keras_accuracy = keras.accuracy(held_out)
    console.print(f"held-out accuracy: {pytorch_accuracy:.4f} in PyTorch, {keras_accuracy:.4f} in Keras")
    verifications = {
        dtype: _verify(options, folders["pytorch"], held_out, dtype, console) for dtype in ("float32", "float64")
    }

    console.rule("Keras: train on")
    keras.train(train, held_out, history, options.keras_epochs, options.batch_size, options.learning_rate / 2, console)
    trained_on_accuracy = keras.accuracy(held_out)
    _save(keras.model, tokenizer, folders["keras"], console)

    console.rule("PyTorch: open what Keras trained")
    back = PyTorchTrainer(_open(options, "pt", folders["keras"]), seed=options.seed)
    back_accuracy = back.accuracy(held_out)
    console.print(f"held-out accuracy: {trained_on_accuracy:.4f} in Keras, {back_accuracy:.4f} in PyTorch")

    history.plot(options.output / "learning-curve.png", majority=passages.majority_share())
    verifications["float32"].plot(options.output / "equality-float32.png")
    verifications["float64"].plot(options.output / "equality-float64.png")
    report = DemoReport(
        figures={
            "family": options.family,
            "parameters": parameters,
            "topics": len(passages.topics),
            "training passages": len(passages.train),
            "held-out passages": len(passages.held_out),
            "majority class, held-out accuracy": passages.majority_share(),
            "PyTorch, held-out accuracy": pytorch_accuracy,
            "the same checkpoint in Keras": keras_accuracy,
            "trained on in Keras": trained_on_accuracy,
            "that checkpoint in PyTorch": back_accuracy,
            "largest relative error, float32": verifications["float32"].largest_error,
            "largest relative error, float64": verifications["float64"].largest_error,
            "seconds": time.monotonic() - started,
        },
        passed=(
            all(verification.passed for verification in verifications.values())
            and pytorch_accuracy == keras_accuracy
            and trained_on_accuracy == back_accuracy
        ),
    )
    write_json(options.output / REPORT_NAME, {"finished": True, "equal": report.passed, **report.figures})
    _show(report, options.output, console)
    return report


def _check(options: DemoOptions) -> None:
    """Find what would stop the demo before any time is spent on it, and claim the output folder."""
    family_of(options.family, "--family")
    if options.family not in SMALL:
        raise InputError(f"The demo has no small model of {options.family!r}; it has {', '.join(SMALL)}.")
    for name, least in LEAST.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}.")
    if not 0 < options.learning_rate < float("inf"):
        raise InputError(f"--learning-rate is {options.learning_rate}; it must be a number above 0.")
    for module, extra in (("torch", "pt"), ("keras", "tf"), ("tensorflow", "tf"), ("matplotlib", "plot")):
        if find_spec(module) is None:
            raise MissingDependencyError(
                f"The demo needs {module}, which is not installed: pip install 'isobert[{extra}]'."
            )
    if options.output.is_file():
        raise InputError(f"--output {options.output} is a file; name a folder.")
    held = sorted(entry.name for entry in options.output.iterdir()) if options.output.is_dir() else []
    if held and REPORT_NAME not in held:
        raise InputError(
            f"--output {options.output} holds {held[0]!r} and no {REPORT_NAME}, so it is no earlier demo's folder; "
            "name a new or an empty one."
        )
    write_json(options.output / REPORT_NAME, {"finished": False})


def _read(options: DemoOptions, console: Console) -> Passages:
    texts = read_text_files(options.text) if options.text else read_language_reference()
    source = "your text files" if options.text else "Python's language reference"
    passages = split_into_passages(texts, most_topics=options.topics, seed=options.seed)
    console.print(
        f"{len(passages.train)} passages of {source}, of {len(passages.topics)} topics ({', '.join(passages.topics)}); "
        f"{len(passages.held_out)} more are held out"
    )
    return passages


def _train_tokenizer(passages: Passages, options: DemoOptions, console: Console) -> Any:
    """Train the family's kind of vocabulary on the training passages and return its fast tokenizer for it."""
    texts, kind = [text for text, _ in passages.train], tokenizer_class(options.family, fast=True)
    if issubclass(kind, UnigramTokenizerFast):
        tokenizer = kind(model=train_unigram(texts, options.vocab_size))
    else:
        tokenizer = kind(vocab=train_wordpiece(texts, options.vocab_size))
    console.print(f"a vocabulary of {len(tokenizer)} pieces, trained on them")
    return tokenizer


def _encode(tokenizer: Any, passages: Sequence[tuple[str, int]], max_length: int) -> Arrays:
    """Turn labelled passages into arrays of one length, `[passages, max_length]`, and labels `[passages]`."""
    encoded = tokenizer(
        [text for text, _ in passages],
        padding="max_length",
        truncation=True,
        max_length=max_length,
        return_tensors="np",
    )
    return {**encoded, "labels": np.array([topic for _, topic in passages], dtype=np.int64)}


def _new_model(options: DemoOptions, tokenizer: Any, passages: Passages) -> Any:
    """Return a small, untrained PyTorch model of the family."""
    import torch

    settings = dict(SMALL[options.family])
    settings["max_position_embeddings"] = max(settings["max_position_embeddings"], options.max_length)
    if options.layers is not None:
        settings["num_hidden_layers"] = options.layers
    if options.hidden_size is not None:
        if settings.get("embedding_size") == settings["hidden_size"]:
            # Words as wide as the stream stay so: a family may know nothing else.
            settings["embedding_size"] = options.hidden_size
        settings["hidden_size"] = options.hidden_size
    settings.update(vocab_size=len(tokenizer), id2label=dict(enumerate(passages.topics)))
    config = config_class(options.family).from_dict(settings)
    torch.manual_seed(options.seed)
    return model_class(options.family, HEAD, "pt")(config)


def _open(options: DemoOptions, framework: str, folder: Path, dtype: str = "float32") -> Any:
    if framework == "tf":
        start_keras()
        import keras

        # Before the model is made, since its dropout draws its seeds then.
        keras.utils.set_random_seed(options.seed)
    return model_class(options.family, HEAD, framework).from_pretrained(folder, dtype=dtype)


def _save(model: Any, tokenizer: Any, folder: Path, console: Console) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    console.print(f"saved to {folder}")


def _verify(options: DemoOptions, folder: Path, data: Arrays, dtype: str, console: Console) -> Verification:
    """Open one checkpoint in both frameworks and compare everything on a batch of real passages."""
    batch = {name: array[:8] for name, array in data.items()}
    verification = verify(
        _open(options, "pt", folder, dtype), _open(options, "tf", folder, dtype), batch, names=("PyTorch", "Keras")
    )
    console.print(verification.table())
    return verification


def _show(report: DemoReport, folder: Path, console: Console) -> None:
    table = Table(title="What this run found", show_header=False)
    for name, figure in report.figures.items():
        table.add_row(name, _worded(figure))
    console.print(table)
    console.print(f"checkpoints, pictures and {REPORT_NAME} are in {folder}")
    if not report.passed:
        console.print("[bold red]The two frameworks do not agree.[/]")


def _worded(figure: Any) -> str:
    if isinstance(figure, float):
        return f"{figure:.1e}" if 0 < figure < 1e-3 else f"{figure:.4g}"
    return f"{figure:,}" if isinstance(figure, int) else str(figure)
