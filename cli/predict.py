"""`isobert predict`: a file of examples in, a line of JSON for each out."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.hub import write_text
from ..core.inference import choose_framework, pipeline
from ..core.tasks import task_of
from ..core.tasks.files import parse_columns
from ..errors import InputError
from .progress import counting
from .quiet import start_keras


def run_predict(
    task: str,
    model: str,
    source: str,
    output: Path | None,
    *,
    framework: str | None,
    columns: str | None,
    split: str | None,
    skip_broken: bool,
    batch_size: int,
    dtype: str | None,
    device: str | None,
    options: Mapping[str, Any],
    generation: Mapping[str, Any],
) -> None:
    """Answer every example of a file, in its order, in a file or on stdout; how far it is goes to stderr."""
    if output is not None and output.is_dir():
        raise InputError(f"{output} is a folder; name a file for the answers.")
    # What is wrong with the input is said before a framework is started.
    examples = task_of(task).read(
        source, parse_columns(columns) if columns else None, labelled=False, skip_broken=skip_broken, split=split
    )
    framework = choose_framework(framework)
    if framework == "tf":
        start_keras()
    opened = pipeline(task, model, framework=framework, batch_size=batch_size, dtype=dtype, device=device, **options)
    with counting("predicting") as progress:
        answers = opened.predict(examples, progress=progress, **generation)
    text = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    if output is None:
        sys.stdout.write(text)
    else:
        write_text(output, text)
        print(f"{len(answers)} answers written to {output}", file=sys.stderr)
