"""Predicting and evaluating as both frameworks do it: batches of like length through a model, answers in input order.

A framework adds how it runs a model (`pt.inference`, `tf.inference`); everything else is said here.
"""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..errors import CheckpointError, InputError, MissingDependencyError, UnknownNameError
from .auto import AutoConfig
from .batches import Batches
from .generation import DEFAULT_NEW_TOKENS
from .registry import EXTRAS, FRAMEWORKS, import_part, model_class
from .tasks import task_of
from .tasks.base import Answer, Arrays, Features, Task, length_of, most_tokens
from .tasks.files import Example
from .tasks.options import TaskOptions

# Heads whose tensors no other head's could be taken for; classifiers are all called alike.
_OF_OWN_NAMES = ("Model", "ForMaskedLM", "ForCausalLM", "ForQuestionAnswering")

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What of a batch a model computes from; the rest are labels."""

_MOST_SCORES = 2**26  # scores of words that are on the host at once: 256 MB in float32


class BasePipeline(ABC):
    """A model, its tokenizer and a task: examples in, answers out.

    Rows of like length make up a batch, and answers come in the order of the examples. Nothing is learnt, and dropout
    is off. It may be called for objects, or its methods for examples that a task has read.

    Args:
        model: a model with the task's head.
        tokenizer: the model's.
        task: what to do.
        options: the task's; None takes the defaults.
        batch_size: rows of a batch.
        pad_multiple: pad batches to a multiple of this length.
        buckets: the only lengths to pad to, in the place of multiples.
        device: what `find_device` returned; None is where the model is.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        task: Task,
        options: TaskOptions | None = None,
        *,
        batch_size: int = 32,
        pad_multiple: int = 8,
        buckets: Sequence[int] = (),
        device: Any = None,
    ) -> None:
        self.model, self.tokenizer, self.task = model, tokenizer, task
        self.options = TaskOptions() if options is None else options
        self.batch_size, self.pad_multiple, self.buckets = batch_size, pad_multiple, buckets
        self.device = device

    def __call__(self, inputs: Any, **generation: Any) -> Any:
        """Return the answer for an object, or the answers for several.

        Args:
            inputs: one object, which is a text, a tuple of the task's columns in order, or a mapping of them by name;
                or an iterable of objects.
            generation: for text generation, arguments of the model's `generate`.

        Raises:
            InputError: an object is not an example of the task, or there is none.
        """
        is_one = isinstance(inputs, str | tuple | Mapping)
        answers = self.predict(self.task.gather([inputs] if is_one else inputs), **generation)
        return answers[0] if is_one else answers

    def predict(
        self,
        examples: Sequence[Example],
        *,
        features: Sequence[Features] | None = None,
        labelled: bool = False,
        progress: Callable[[int, int], None] | None = None,
        **generation: Any,
    ) -> list[Answer]:
        """Return one answer an example, in order.

        Args:
            examples: what the task has read or gathered.
            features: what the task has encoded of them, if it has.
            labelled: whether to answer as the task's metrics need it, from examples with labels.
            progress: called after each batch with how many rows are done, and how many there are.
            generation: for text generation, arguments of the model's `generate`; a `seed` is raised by one a batch.

        Raises:
            InputError: an example does not suit the model, the task has no answers, or an argument is not one of
                `generate`.
            CheckpointError: a score is not a finite number.
        """
        task, config = self.task, self.model.config
        if not labelled and not task.predicts:
            raise InputError(f"The task {task.name} is learnt and measured, and has no answers to give.")
        writes = task.generates and not labelled
        if generation and not writes:
            raise InputError(f"{next(iter(generation))!r} is an argument of text generation; the task is {task.name}.")
        options = self._with_room(generation) if writes else self.options
        if features is None:
            features = task.encode(examples, self.tokenizer, config, options, labelled=labelled)
        batches = Batches(
            [length_of(row) for row in features],
            self.batch_size,
            seed=options.seed,
            shuffle=False,
            # Padding before a prompt would take positions that a text may be written to.
            multiple_of=1 if writes else self.pad_multiple,
            most=most_tokens(self.tokenizer, config, options),
            buckets=() if writes else self.buckets,
        )
        kept: list[Arrays] = [{}] * len(features)
        done = 0
        with self.running():
            for batch in batches.epoch(0):
                chosen = [features[row] for row in batch.rows]
                random = batch.random() if labelled else None
                arrays = task.collate(chosen, self.tokenizer, options, length=batch.length, random=random)
                self._check_ids(arrays["input_ids"])
                rows = self._written(arrays, generation, batch.index) if writes else self._scored(arrays, labelled)
                for row, found in zip(batch.rows, rows, strict=True):
                    kept[row] = found
                done += len(rows)
                if progress is not None:
                    progress(done, len(features))
        return task.answers(kept, features, examples, self.tokenizer, config, options)

    def evaluate(
        self,
        examples: Sequence[Example],
        *,
        features: Sequence[Features] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, float]:
        """Return the task's metrics over examples with labels; the arguments are those of `predict`.

        Raises:
            InputError: an example does not suit the model, or the task has no metrics.
        """
        answers = self.predict(examples, features=features, labelled=True, progress=progress)
        return self.task.metrics(answers, examples, self.model.config, self.options)

    def _with_room(self, generation: Mapping[str, Any]) -> TaskOptions:
        """Return options by which prompts leave room for what follows them, unless their length was said."""
        if self.options.max_length is not None or generation.get("max_length") is not None:
            return self.options
        new = generation.get("max_new_tokens")
        room = self.model.config.max_position_embeddings - (DEFAULT_NEW_TOKENS if new is None else new)
        # Where there is none at all, `generate` says so.
        longest = max(4, min(room, most_tokens(self.tokenizer, self.model.config, self.options)))
        return dataclasses.replace(self.options, max_length=longest)

    def _check_ids(self, ids: np.ndarray) -> None:
        largest, vocab_size = int(ids.max()), self.model.config.vocab_size
        if largest >= vocab_size:
            raise InputError(
                f"The tokenizer gave the id {largest} ({self.tokenizer.convert_ids_to_tokens(largest)!r}), and the "
                f"model has {vocab_size} words: they are not of one checkpoint. After words were added to a tokenizer, "
                "`resize_token_embeddings` gives the model as many."
            )

    def _scored(self, arrays: Arrays, labelled: bool) -> list[Arrays]:
        """Return what the task keeps of each row of a batch that the model scored."""
        task, tokenizer = self.task, self.tokenizer
        inputs = {name: arrays[name] for name in INPUTS if name in arrays}
        positions = task.scored(arrays, tokenizer)
        if positions is None:
            outputs = self.outputs(inputs)
            _check_scores(outputs, labelled)
            return task.keep(outputs, arrays, tokenizer, self.options)
        vectors, others = self.encode(inputs)
        kept: list[Arrays] = []
        for rows in _parts(positions.sum(1), _MOST_SCORES // self.model.config.vocab_size):
            part = np.zeros_like(positions)
            part[rows] = positions[rows]
            places = np.flatnonzero(part).astype(np.int32)
            outputs = {name: values[rows] for name, values in others.items()}
            outputs[task.outputs[0]] = self.score_words(vectors, places)
            _check_scores(outputs, labelled)
            kept += task.keep(outputs, {n: values[rows] for n, values in arrays.items()}, tokenizer, self.options)
        return kept

    def _written(self, arrays: Arrays, generation: Mapping[str, Any], index: int) -> list[Arrays]:
        """Return what the task keeps of the texts that a model wrote after a batch of prompts."""
        settings = dict(generation)
        if settings.get("seed") is not None:
            # Or prompts that are alike would go on alike in every batch.
            settings["seed"] += index
        try:
            sequences = self.write(arrays, settings)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            raise InputError(f"An argument of text generation is unknown: {error}.") from error
        if len(sequences) != len(arrays["input_ids"]):
            raise InputError("An example has one answer: num_return_sequences must be 1. Give a prompt several times.")
        return self.task.keep({"sequences": sequences}, arrays, self.tokenizer, self.options)

    # What a framework does.

    @abstractmethod
    def running(self) -> AbstractContextManager[None]:
        """Return the scope in which the model is run: without gradients, dropout off, on the device."""

    @abstractmethod
    def outputs(self, inputs: Arrays) -> Arrays:
        """Return the task's outputs of a batch."""

    @abstractmethod
    def encode(self, inputs: Arrays) -> tuple[Any, Arrays]:
        """Return the last layer's vectors `[rows, length, hidden]`, left where they are, and the other outputs."""

    @abstractmethod
    def score_words(self, vectors: Any, places: np.ndarray) -> np.ndarray:
        """Return the scores of all words `[places, vocab]` at some of the vectors, int32 `row * length + position`."""

    @abstractmethod
    def write(self, inputs: Arrays, settings: Mapping[str, Any]) -> np.ndarray:
        """Return prompts with the words that follow them, integers `[rows, longer]`."""


def _parts(counts: Sequence[int] | np.ndarray, most: int) -> Iterator[slice]:
    """Cut rows into stretches that have at most `most` of what is counted; one row is not cut."""
    start = total = 0
    for row, count in enumerate(counts):
        if row > start and total + count > most:
            yield slice(start, row)
            start, total = row, 0
        total += int(count)
    yield slice(start, len(counts))


def _check_scores(outputs: Mapping[str, np.ndarray], labelled: bool) -> None:
    # A training run tells by its loss that it went astray; answers have nothing else to tell it.
    if not labelled and not all(np.isfinite(values).all() for values in outputs.values()):
        raise CheckpointError(
            "The model's scores are no finite numbers: its weights hold such, or its dtype has too little room "
            '(try dtype="float32").'
        )


def pipeline(
    task: str,
    name_or_path: str | os.PathLike[str],
    *,
    framework: str | None = None,
    batch_size: int = 32,
    dtype: Any = None,
    device: str | None = None,
    **options: Any,
) -> Any:
    """Open a checkpoint and its tokenizer for a task.

    Args:
        task: the task's name, such as "text-classification".
        name_or_path: a folder, or a Hub name, whose model has the task's head, trained.
        framework: "pt" or "tf"; None is the one that is installed, PyTorch first.
        batch_size: rows of a batch.
        dtype: as in `from_pretrained`.
        device: "cpu" or "gpu"; None is the GPU if there is one.
        options: the task's, fields of `TaskOptions`, such as `max_length=128`.

    Returns:
        A `Pipeline`, to be called with what the task reads: `pipeline("fill-mask", "folder")("a [MASK] text")`.

    Raises:
        UnknownNameError: there is no such task or framework, or the family has no such head.
        CheckpointNotFoundError: there is no checkpoint, or it has no tokenizer.
        CheckpointError: the checkpoint is damaged, or its head is another.
        InputError: an option is not legal, or there is no such device.
        MissingDependencyError: the framework is not installed.
    """
    wanted, framework = task_of(task), choose_framework(framework)
    if not wanted.predicts:
        raise InputError(f"The task {task} is learnt and measured, and has no answers to give.")
    task_options = _options(options)
    inference = import_part(f".{framework}.inference", needed_by=f"framework={framework!r}")
    device = inference.find_device(device)
    model_type = AutoConfig.from_pretrained(name_or_path).model_type
    opened = model_class(model_type, wanted.head, framework)
    _check_head(name_or_path, wanted)
    tokenizer = import_part(".tokenization.auto").AutoTokenizer.from_pretrained(name_or_path)
    with inference.on_device(device):
        model = opened.from_pretrained(name_or_path, dtype=dtype)
    return inference.Pipeline(model, tokenizer, wanted, task_options, batch_size=batch_size, device=device)


def choose_framework(name: str | None) -> str:
    """Return a framework by its name, "pt" or "tf"; None is the one that is installed, PyTorch first.

    Raises:
        UnknownNameError: there is no such framework.
        MissingDependencyError: none is installed.
    """
    if name in FRAMEWORKS:
        return str(name)
    if name is not None:
        raise UnknownNameError(f"There is no framework {name!r}; it is one of {', '.join(map(repr, FRAMEWORKS))}.")
    for module in ("torch", "tensorflow"):
        if find_spec(module) is not None:
            return EXTRAS[module]
    raise MissingDependencyError(
        "Neither framework is installed: pip install 'isobert[pt]' for PyTorch, or 'isobert[tf]' for TensorFlow."
    )


def _options(given: Mapping[str, Any]) -> TaskOptions:
    known = [spec.name for spec in dataclasses.fields(TaskOptions)]
    for name in given:
        if name not in known:
            raise InputError(f"There is no option {name!r}; the tasks' options are {', '.join(known)}.")
    return TaskOptions(**given)


def _check_head(name_or_path: str | os.PathLike[str], task: Task) -> None:
    """Raise unless a checkpoint has every tensor of the task's head; weights are not read for that."""
    found = import_part(".conversion.describe").describe(name_or_path, task.head)
    # A text's vectors are the last layer's, so a bare model may lack its pooler.
    missing = [name for name in found.report.missing if task.head != "Model" or not name.startswith("pooler.")]
    missing += [mismatch.name for mismatch in found.report.mismatched]
    stated = found.heads_stated
    if missing:
        why = f"{', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''} would be new, and know nothing"
    elif task.head not in _OF_OWN_NAMES and stated and task.head not in stated:
        why = "its tensors are called alike, and mean something else"
    else:
        return
    held = " or ".join(found.family.model_name(head, "pt") for head in stated or found.heads_found) or "not known"
    raise CheckpointError(
        f"{name_or_path} is no {found.family.model_name(task.head, 'pt')}, which {task.name} needs: {why}. What it is: "
        f"{held}. Train it for the task first."
    )
