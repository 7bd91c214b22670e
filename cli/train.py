"""`isobert train` and `isobert evaluate`: from files to a checkpoint, and to the figures of a checkpoint."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from ..core.auto import AutoConfig
from ..core.config import CONFIG_NAME, PretrainedConfig
from ..core.inference import choose_framework, pipeline
from ..core.registry import import_part, model_class, tokenizer_class
from ..core.tasks import task_of
from ..core.tasks.base import Task
from ..core.tasks.files import parse_columns
from ..core.training.options import TrainingOptions
from ..core.training.plan import read_data, training_config
from ..core.training.report import METRICS_FILE, metrics_table, summary_table, write_metrics
from ..errors import CheckpointError, CheckpointNotFoundError, InputError, UnknownNameError
from .progress import counting
from .quiet import start_keras

logger = logging.getLogger("isobert")


def run_train(
    task: str,
    model: str,
    train: str,
    evaluation: str | None,
    output: Path,
    *,
    framework: str | None,
    tokenizer: str | None,
    columns: str | None,
    buckets: str | None,
    options: Mapping[str, Any],
) -> None:
    """Train a model, and say what came of it."""
    lengths = _lengths(buckets) if buckets else ()
    chosen = TrainingOptions(columns=parse_columns(columns) if columns else None, buckets=lengths, **options)
    wanted = task_of(task)
    if not wanted.trains:
        raise InputError(f"The task {task} only predicts; there is nothing to train.")
    if output.is_file():
        raise InputError(f"{output} is a file; name a folder for what training leaves.")
    # What is wrong with the input is said before a framework is started.
    examples = read_data(wanted, train, chosen, to_learn=True)
    held_out = None if evaluation is None else read_data(wanted, evaluation, chosen)
    config, has_weights = _config(model)
    words = _tokenizer(tokenizer, model, config)
    before = config
    if not has_weights:
        config = config.replace(vocab_size=max(len(words), 1), pad_token_id=words.pad_token_id)
    elif len(words) > config.vocab_size:
        raise InputError(
            f"The tokenizer has {len(words)} words and the model {config.vocab_size}: they are not of one checkpoint."
        )
    config = training_config(config, wanted, examples, words, chosen)
    framework = choose_framework(framework)
    if framework == "tf":
        start_keras()
    trainers = import_part(f".{framework}.trainer", needed_by=f"--framework {framework}")
    with trainers.model_scope(chosen):
        opened = _opened(model, wanted, config, framework, has_weights, config.num_labels != before.num_labels)
    trainer = getattr(trainers, "TFTrainer" if framework == "tf" else "Trainer")(
        opened, words, wanted, chosen, base=model
    )
    outcome = trainer.train(examples, held_out, output=output)
    if os.environ.get("RANK", "0") == "0":
        console = Console()
        console.print(summary_table(outcome))
        console.print(f"Written to {output}.", markup=False)


def run_evaluate(
    task: str,
    model: str,
    data: str,
    output: Path | None,
    *,
    framework: str | None,
    columns: str | None,
    split: str,
    skip_broken: bool,
    batch_size: int,
    dtype: str | None,
    device: str | None,
    options: Mapping[str, Any],
) -> None:
    """Measure a checkpoint on examples with labels, show the figures, and write them."""
    wanted = task_of(task)
    if output is None and not Path(model).is_dir():
        raise InputError(f"{model} is no folder, so there is no place for {METRICS_FILE}; name one with --output.")
    examples = wanted.read(data, parse_columns(columns) if columns else None, skip_broken=skip_broken, split=split)
    framework = choose_framework(framework)
    if framework == "tf":
        start_keras()
    opened = pipeline(task, model, framework=framework, batch_size=batch_size, dtype=dtype, device=device, **options)
    with counting("evaluating") as progress:
        metrics = opened.evaluate(examples, progress=progress)
    target = output or Path(model) / METRICS_FILE
    write_metrics(target, metrics)
    console = Console()
    console.print(metrics_table(metrics, f"{task}: {len(examples)} examples of {data}"))
    console.print(f"Written to {target}.", markup=False)


def _config(model: str) -> tuple[PretrainedConfig, bool]:
    """Return the config of a checkpoint or of a size, and whether there are weights of it."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        config = AutoConfig.from_pretrained(folder)
        return config, _has_weights(folder)
    try:
        return AutoConfig.from_size(model), False
    except UnknownNameError as error:
        if "/" in model:
            return AutoConfig.from_pretrained(model), True
        raise UnknownNameError(f"There is no folder {model!r} here. {error}") from None


def _has_weights(folder: Path) -> bool:
    """Say whether a folder with a config holds a checkpoint; one that is damaged is one."""
    checkpoint = import_part(".conversion.checkpoint")
    try:
        checkpoint.open_checkpoint(folder).close()
    except CheckpointNotFoundError:
        logger.warning("%s holds a %s and no weights: a new model begins there.", folder, CONFIG_NAME)
        return False
    except CheckpointError:
        return True
    return True


def _tokenizer(name: str | None, model: str, config: PretrainedConfig) -> Any:
    """Open the tokenizer: the model's own, that of another folder, or one that a vocabulary makes."""
    if name is not None:
        found = tokenizer_class(config.model_type, fast=True)
        # A vocabulary's file makes a tokenizer; a folder may say more about it.
        return found(name) if Path(name).is_file() else found.from_pretrained(name)
    if not Path(model).is_dir() and "/" not in model:
        raise InputError(
            f"{model} is a size, and a new model has no tokenizer: give a vocabulary's file, a folder, or a Hub name "
            "with --tokenizer."
        )
    return import_part(".tokenization.auto").AutoTokenizer.from_pretrained(model)


def _opened(
    name: str, task: Task, config: PretrainedConfig, framework: str, has_weights: bool, other_labels: bool
) -> Any:
    """Return the model with the task's head."""
    found = model_class(config.model_type, task.head, framework)
    if not has_weights:
        return found(config)
    # With other labels than before, the part that scored those begins anew.
    return found.from_pretrained(name, config=config, ignore_mismatched_sizes=other_labels)


def _lengths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--buckets is {text!r}; it must be lengths such as 32,64,128.") from None
