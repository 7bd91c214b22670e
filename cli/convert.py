"""`isobert convert`: a conversion with its progress and its report on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from ..conversion.convert import convert


def run_convert(
    source: str, destination: Path, *, to: str, dtype: str | None, max_shard_size: str, force: bool
) -> None:
    """Convert a checkpoint, show how far it is, and say what was done."""
    console = Console()
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    terminal = Console(stderr=True)
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def progress(name: str, done: int, total: int) -> None:
            bar.update(task, description=escape(name), completed=done, total=total)

        report = convert(
            source, destination, to=to, dtype=dtype, max_shard_size=max_shard_size, force=force, progress=progress
        )
    console.print(escape(str(report)), soft_wrap=True)
    console.print(f"written to [bold]{escape(str(destination))}[/bold]", soft_wrap=True)
