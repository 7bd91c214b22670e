"""What a run leaves for people: a table, a learning curve, and a model card; alike in both frameworks."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.table import Table

from ..config import PretrainedConfig
from ..hub import atomic_write, write_json, write_text
from ..registry import family_of
from ..tasks.base import Task
from .history import History
from .options import TrainingOptions
from .state import RunState

CARD_FILE = "README.md"
CURVE_FILE = "learning_curve.png"
METRICS_FILE = "eval.json"

_FRAMEWORKS = {"pt": "PyTorch", "tf": "TensorFlow/Keras"}

# What says nothing about the model that came out.
_NOT_SETTINGS = frozenset(("resume", "device", "log_every", "columns", "skip_broken"))


@dataclass(frozen=True)
class Outcome:
    """What is known of a run at its end.

    Attributes:
        task, config, options, framework: what was trained, and how.
        base: the checkpoint or size that the model began as; None if the caller made it.
        train_source, train_examples: the training data's name and number of examples.
        eval_source, eval_examples: those of the evaluation data; None without.
        state: how far the run came.
        metrics: the figures of the weights that were kept; none without evaluation.
        parameters: how many the model has.
    """

    task: Task
    config: PretrainedConfig
    options: TrainingOptions
    framework: str
    base: str | None
    train_source: str
    train_examples: int
    eval_source: str | None
    eval_examples: int | None
    state: RunState
    metrics: Mapping[str, float]
    parameters: int


def write_metrics(path: str | os.PathLike[str], metrics: Mapping[str, float]) -> None:
    """Write metrics by name as JSON; one that is not defined is null."""
    write_json(Path(path), {name: float(value) if np.isfinite(value) else None for name, value in metrics.items()})


def write_report(folder: str | os.PathLike[str], outcome: Outcome, history: History) -> None:
    """Write the model card, the picture if matplotlib is installed, and, if there was an evaluation, `eval.json`."""
    target = Path(folder)
    if outcome.metrics:
        write_metrics(target / METRICS_FILE, outcome.metrics)
    has_curve = importlib.util.find_spec("matplotlib") is not None and bool(history.steps)
    if has_curve:
        draw_curves(target / CURVE_FILE, {_FRAMEWORKS[outcome.framework]: history}, outcome.state.metric)
    write_text(target / CARD_FILE, model_card(outcome, with_curve=has_curve))


def summary_table(outcome: Outcome) -> Table:
    """Return what a run came to, for the terminal."""
    table = Table(show_header=False, box=None)
    for name, value in _figures(outcome):
        table.add_row(escape(name), escape(value))
    return table


def metrics_table(metrics: Mapping[str, float], title: str) -> Table:
    """Return metrics for the terminal."""
    table = Table(title=escape(title), title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(escape(name), f"{value:.4f}")
    return table


def model_card(outcome: Outcome, *, with_curve: bool) -> str:
    """Return the text of the `README.md` beside a checkpoint, whose first lines are what the Hub reads."""
    task, config, options = outcome.task, outcome.config, outcome.options
    family = family_of(config.model_type)
    model = family.model_name(task.head, "pt")
    tags = ["isobert", config.model_type, task.name]
    lines = ["---", "library_name: isobert", f"pipeline_tag: {task.name}", "tags:", *(f"- {tag}" for tag in tags)]
    lines += ["metrics:", *(f"- {name}" for name in outcome.metrics)] if outcome.metrics else []
    lines += ["---", "", f"# {model} for {task.name}", ""]
    begun = f"the weights of `{outcome.base}`" if outcome.base else "a model that was made in code"
    lines += [
        f"A {family.prefix} of {outcome.parameters:,} parameters, trained with isobert in "
        f"{_FRAMEWORKS[outcome.framework]}, beginning with {begun}. Both frameworks open it:",
        "",
        "```python",
        "import isobert",
        "",
        'tokenizer = isobert.AutoTokenizer.from_pretrained("this-folder")',
        f'model = isobert.{model}.from_pretrained("this-folder")',
        f'keras_model = isobert.TF{model}.from_pretrained("this-folder")',
        "```",
        "",
        "## Figures",
        *_markdown_table(("", ""), _figures(outcome)),
        "",
    ]
    lines += [f"![Learning curve]({CURVE_FILE})", ""] if with_curve else []
    lines += ["## Data", *_markdown_table(("", "source", "examples"), _data(outcome)), ""]
    if "id2label" in config.to_dict():
        lines += ["Labels: " + ", ".join(f"`{label}`" for label in config.id2label.values()) + ".", ""]
    lines += ["## Settings", *_markdown_table(("option", "value"), _settings(options)), ""]
    return "\n".join(lines)


def draw_curves(path: str | os.PathLike[str], histories: Mapping[str, History], metric: str = "") -> None:
    """Draw the loss of each step of some runs, and, if it is named, a metric of their evaluations.

    Long runs are drawn as a running mean over a hundredth of their steps, with the single steps behind it.

    Args:
        path: the picture.
        histories: the runs by name.
        metric: of the evaluations, such as "accuracy".
    """
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="step", ylabel="training loss")
    other = axes.twinx() if metric and any(history.evaluations for history in histories.values()) else None
    for number, (name, history) in enumerate(histories.items()):
        steps = np.array([record["step"] for record in history.steps])
        losses = np.array([record["loss"] for record in history.steps])
        width = max(1, len(steps) // 100)
        line = "-" if number == 0 else "--"
        if width > 1:
            axes.plot(steps, losses, color=f"C{number}", alpha=0.2, linewidth=0.5)
        axes.plot(steps[width - 1 :], _running_mean(losses, width), line, color=f"C{number}", label=f"{name}: loss")
        if other is not None:
            evaluated = [record for record in history.evaluations if record["metrics"].get(metric) is not None]
            points = [record["step"] for record in evaluated], [record["metrics"][metric] for record in evaluated]
            axes.plot([], [], "o", label=f"{name}: {metric}", color=f"C{number + len(histories)}")
            other.plot(*points, "o-", color=f"C{number + len(histories)}")
    if other is not None:
        other.set_ylabel(metric)
    axes.legend(loc="best")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=140)


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    return np.convolve(values, np.ones(width) / width, mode="valid")


def _figures(outcome: Outcome) -> list[tuple[str, str]]:
    state = outcome.state
    found = [(name, f"{value:.4f}") for name, value in outcome.metrics.items()]
    if outcome.metrics and outcome.options.keep_best:
        found.append(("best step", f"{state.best_step:,}"))
    padding = 1 - state.tokens / state.padded_tokens if state.padded_tokens else 0.0
    return [
        *found,
        ("steps", f"{state.step:,}"),
        ("training time", f"{state.seconds:,.0f} s"),
        ("tokens", f"{state.tokens:,}"),
        ("of what was computed, padding", f"{padding:.1%}"),
    ]


def _data(outcome: Outcome) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [("training", outcome.train_source, f"{outcome.train_examples:,}")]
    if outcome.eval_source is not None:
        found.append(("evaluation", outcome.eval_source, f"{outcome.eval_examples or 0:,}"))
    return found


def _settings(options: TrainingOptions) -> list[tuple[str, str]]:
    """Return what a run was told: what is not as it is by default, and what everyone asks for."""
    found = []
    for spec in dataclasses.fields(options):
        value = getattr(options, spec.name)
        if spec.name not in _NOT_SETTINGS and (value != spec.default or spec.name in _ALWAYS_SHOWN):
            found.append((spec.name, "none" if value is None else str(value)))
    return found


_ALWAYS_SHOWN = frozenset(
    ("epochs", "batch_size", "learning_rate", "schedule", "warmup_ratio", "weight_decay", "dtype", "seed", "max_length")
)


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["", *("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)]
