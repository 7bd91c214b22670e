"""The tasks, each once, on NumPy: examples to arrays, scores to answers, metrics."""

from __future__ import annotations

from ...errors import UnknownNameError
from .base import Task
from .embedding import Embedding
from .fill_mask import FillMask
from .multiple_choice import MultipleChoice
from .pretraining import Pretraining
from .question_answering import QuestionAnswering
from .text_classification import TextClassification
from .text_generation import TextGeneration
from .token_classification import TokenClassification

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        TextClassification(),
        TokenClassification(),
        QuestionAnswering(),
        MultipleChoice(),
        FillMask(),
        TextGeneration(),
        Pretraining(),
        Embedding(),
    )
}
"""Every task by the Hub's name for it; `embedding` is ours."""


def task_of(name: str) -> Task:
    """Return a task by its name.

    Raises:
        UnknownNameError: no task is called so.
    """
    try:
        return TASKS[name]
    except KeyError:
        raise UnknownNameError(f"There is no task {name!r}; the tasks are {', '.join(TASKS)}.") from None
