"""`isobert verify`: opens two models, compares them and shows what was found."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from ..conversion.describe import describe
from ..conversion.inputs import random_labels
from ..conversion.picture import check_picture
from ..conversion.verify import verify
from ..core.hub import write_text
from ..core.registry import Family
from ..errors import CheckpointError, InputError
from .quiet import start_keras

_MOST_LINES, _MOST_TOKENS = 8, 128
_FRAMEWORK_NAMES = {"pt": "PyTorch", "tf": "Keras"}


@dataclass(frozen=True)
class VerifyOptions:
    """What `isobert verify` was told; see its help."""

    a: str
    b: str
    a_framework: str
    b_framework: str
    head: str | None
    dtype: str
    text: Path | None
    seed: int
    gradients: bool
    tolerance: float | None
    json_file: Path | None
    plot: Path | None


def run_verify(options: VerifyOptions) -> bool:
    """Compare two models, print the tables, write what was asked for; return whether they are equal.

    Raises:
        CheckpointError: a checkpoint lacks tensors of the head, so that each model would make up its own.
        InputError: the two are of different families, the text holds nothing, or the picture's form is not known.
    """
    console = Console()
    if options.plot is not None:
        check_picture(options.plot)  # at once, and not after the work
    families = [_family(path) for path in (options.a, options.b)]
    if families[0] != families[1]:
        raise InputError(f"A is a {families[0].prefix} and B a {families[1].prefix}; only one family can be compared.")
    head = options.head or describe(options.a).head
    # Only what tells the two apart.
    same = options.a == options.b
    names = tuple(
        _FRAMEWORK_NAMES[framework] if same else f"{path} ({_FRAMEWORK_NAMES[framework]})"
        for path, framework in ((options.a, options.a_framework), (options.b, options.b_framework))
    )
    models = []
    with Console(stderr=True).status("") as status:
        for path, framework in ((options.a, options.a_framework), (options.b, options.b_framework)):
            status.update(f"opening {escape(path)} in {_FRAMEWORK_NAMES[framework]}")
            models.append(_open(path, families[0], head, framework, options.dtype))
        inputs = None
        if options.text is not None:
            inputs = _inputs_from_text(options.text, options.a, models[1].config, head, options.seed)
        status.update("running both forward and backward" if options.gradients else "running both")
        found = verify(
            models[0],
            models[1],
            inputs,
            gradients=options.gradients,
            tolerance=options.tolerance,
            seed=options.seed,
            names=(names[0], names[1]),
        )
    console.print(found.table())
    if not found.passed:
        console.print(found.worst_table())
    if options.json_file is not None:
        write_text(options.json_file, found.to_json())
    if options.plot is not None:
        found.plot(options.plot)
    return found.passed


def _family(path: str) -> Family:
    found = describe(path).family
    if found is None:
        raise CheckpointError(f"{path} has no config.json, without which no model can be opened.")
    return found


def _open(path: str, family: Family, head: str, framework: str, dtype: str) -> Any:
    # Through the package's public names, which say what to install when a framework is missing.
    root = import_module("..", __package__)
    missing = describe(path, head).report
    if missing is not None and missing.missing:
        raise CheckpointError(
            f"{path} lacks {len(missing.missing)} tensors of {family.prefix}{head} ({missing.missing[0]}, ...): "
            "each model would make up its own. Choose a head that the checkpoint has; see isobert info."
        )
    if framework == "tf":
        start_keras()
    return getattr(root, family.model_name(head, framework)).from_pretrained(path, dtype=dtype)


def _inputs_from_text(file: Path, checkpoint: str, config: Any, head: str, seed: int) -> dict[str, np.ndarray]:
    """Tokenize a text's first lines and draw labels for them; as choices of one question for multiple choice."""
    from ..tokenization.auto import AutoTokenizer

    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text.") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give a file with UTF-8 text.") from error
    if not lines:
        raise InputError(f"{file} holds no text.")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    encoded = tokenizer(
        lines[:_MOST_LINES],
        padding=True,
        truncation=True,
        max_length=min(_MOST_TOKENS, config.max_position_embeddings),
        return_tensors="np",
    )
    arrays = {name: np.asarray(array) for name, array in encoded.items()}
    if head == "ForMultipleChoice":
        arrays = {name: array[None] for name, array in arrays.items()}
    return arrays | random_labels(config, head, arrays, seed=seed)
