"""`isobert trim`: a vocabulary and its tables cut down to what texts use, and shown to say the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from ..conversion.convert import check_target
from ..conversion.describe import describe
from ..conversion.trim import FAMILY, token_ids, trim, verify_trimmed
from ..conversion.verify import Verification
from ..core.registry import FAMILIES
from ..errors import CheckpointError, InputError
from ..tokenization.rembert import RemBertTokenizerFast
from ..tokenization.trim import Trimmed, trim_tokenizer
from .quiet import start_keras

_MOST_LINES, _MOST_TOKENS = 8, 128
_FRAMEWORKS = {"pt": ("torch", "PyTorch"), "tf": ("tensorflow", "Keras")}


class Lines:
    """The lines of UTF-8 files that are not empty, one after the other, as often as they are asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def __iter__(self) -> Iterator[str]:
        for file in self._files:
            try:
                with open(file, encoding="utf-8-sig") as text:
                    yield from (line.rstrip("\n") for line in text if line.strip())
            except UnicodeDecodeError as error:
                raise InputError(f"{file} is not UTF-8 text.") from error
            except OSError as error:
                raise InputError(f"{file} cannot be read ({error.strerror}); give a file with UTF-8 text.") from error


def run_trim(source: str, destination: Path, texts: Sequence[Path], *, force: bool, verify: bool) -> None:
    """Trim a checkpoint, show that it says the same of the texts, and say what was saved."""
    console = Console()
    lines = Lines(texts)
    # Whatever can be refused is refused before the texts are gone through.
    check_target(destination, force)
    needed = token_ids(source)
    if next(iter(lines), None) is None:
        raise InputError(f"{', '.join(map(str, texts))}: there is no text.")
    framework = _framework() if verify else None
    found: list[Verification] = []
    with Console(stderr=True).status("going through the texts") as status:
        tokenizer = RemBertTokenizerFast.from_pretrained(source)
        trimmed = trim_tokenizer(tokenizer, lines, also=needed)

        def progress(name: str, done: int, total: int) -> None:
            status.update(f"writing {escape(name)} ({done / total:.0%})")

        def check(folder: Path) -> None:
            if framework is not None:
                status.update(f"running both in {_FRAMEWORKS[framework][1]}")
                found.append(_compared(source, folder, trimmed, lines, framework))

        report = trim(source, destination, *trimmed, force=force, check=check, progress=progress)
    console.print(escape(str(report)), soft_wrap=True)
    console.print("every line of the text is cut into the same pieces", soft_wrap=True)
    for verification in found:
        console.print(escape(verification.summary()), soft_wrap=True)
    if verify and framework is None:
        console.print("no framework is installed, so the models' outputs were not compared", soft_wrap=True)
    console.print(f"written to [bold]{escape(str(destination))}[/bold]", soft_wrap=True)


def _framework() -> str | None:
    """Return a framework that is installed."""
    return next((name for name, (module, _) in _FRAMEWORKS.items() if find_spec(module) is not None), None)


def _compared(source: str, folder: Path, trimmed: Trimmed, lines: Lines, framework: str) -> Verification:
    """Open both checkpoints and compare what they say of the first lines.

    Raises:
        CheckpointError: they say different things, or the checkpoint holds no head whole.
    """
    description = describe(source)
    head = next(
        (h for h in (*description.heads_stated, *description.heads_found) if h in description.heads_found), None
    )
    if head is None:
        raise CheckpointError(
            f"{source} lacks tensors for every head, so no model can be opened whole and compared; see isobert info. "
            "--no-verify trims it nevertheless."
        )
    # Through the package's public names, which say what to install when a framework is missing.
    root: Any = import_module("..", __package__)
    if framework == "tf":
        start_keras()
    cls = getattr(root, FAMILIES[FAMILY].model_name(head, framework))
    original, smaller = (cls.from_pretrained(path, dtype="float32") for path in (source, folder))
    encoded = trimmed.tokenizer(
        list(islice(lines, _MOST_LINES)),
        padding=trimmed.tokenizer.pad_token is not None,
        truncation=True,
        max_length=min(_MOST_TOKENS, original.config.max_position_embeddings),
        return_tensors="np",
    )
    inputs = {name: np.asarray(array) for name, array in encoded.items()}
    if head == "ForMultipleChoice":
        inputs = {name: array[None] for name, array in inputs.items()}
    found = verify_trimmed(original, smaller, inputs, trimmed.kept)
    if not found.passed:
        raise CheckpointError(f"The trimmed model would differ, so nothing is written: {found.summary()}")
    return found
