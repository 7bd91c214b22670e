"""`isobert convert`: a conversion with its progress and its report on the terminal."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ..conversion.convert import convert
from ..conversion.describe import describe
from ..conversion.verify import TOLERANCES, verify
from ..errors import CheckpointError, MissingDependencyError
from .quiet import start_keras


def run_convert(
    source: str,
    destination: Path,
    *,
    to: str,
    dtype: str | None,
    head: str | None,
    optimizer: bool,
    max_shard_size: str,
    force: bool,
    verified: bool,
) -> None:
    """Convert a checkpoint, show how far it is, and say what was done."""
    console = Console()
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    terminal = Console(stderr=True)
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def progress(name: str, done: int, total: int) -> None:
            # What is written is read back at the end.
            now = name if done < total else "reading back"
            bar.update(task, description=escape(now), completed=done, total=total)

        def check(folder: Path) -> None:
            bar.update(task, description="opening both and comparing their outputs")
            _compare_outputs(source, folder, dtype, console)

        report = convert(
            source,
            destination,
            to=to,
            dtype=dtype,
            head=head,
            optimizer=optimizer,
            max_shard_size=max_shard_size,
            force=force,
            check=check if verified else None,
            progress=progress,
        )
    console.print(escape(str(report)), soft_wrap=True)
    console.print(f"written to [bold]{escape(str(destination))}[/bold]", soft_wrap=True)


def _compare_outputs(source: str, folder: Path, dtype: str | None, console: Console) -> None:
    """Open the source and what was made of it, in different frameworks where both are there; print how they compare.

    Raises:
        CheckpointError: they do not compute the same.
        MissingDependencyError: no framework is installed.
    """
    frameworks = [name for name, module in (("pt", "torch"), ("tf", "tensorflow")) if find_spec(module)]
    if not frameworks:
        raise MissingDependencyError("--verify opens models, and neither framework is installed: isobert[pt] or [tf].")
    found = describe(folder)
    if found.family is None:
        raise CheckpointError(f"{source} has no config.json, without which no model can be opened to verify it.")
    models: list[Any] = []
    for path, framework in ((source, frameworks[0]), (folder, frameworks[-1])):
        if framework == "tf":
            start_keras()
        model = getattr(import_module("..", __package__), found.family.model_name(found.head, framework))
        models.append(model.from_pretrained(path, config=found.config, dtype="float32"))
    tolerance = max(TOLERANCES["float32"], TOLERANCES.get(dtype or "float32", 0.0))
    result = verify(*models, gradients=False, tolerance=tolerance, names=("the source", "the new checkpoint"))
    console.print(result.table())
    if not result.passed:
        console.print(result.worst_table())
        raise CheckpointError(f"{source} and what was made of it do not compute the same; nothing was written.")
