"""Reading examples: files of many forms become rows, and rows become examples that know their place.

A row is what a file holds at one place: a mapping from column names, or a sequence of cells. `read_examples` finds the
columns that a task wants in it. What is wrong with one row is an error that names file and line, or, if asked for,
skips the row and is kept to be reported.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import InputError
from . import forms
from .forms import Row

logger = logging.getLogger("isobert")

Example = dict[str, Any]
"""One example: the task's columns by the task's names, and `place`, which says where it was read ("dev.tsv:3")."""

Source = str | tuple["str | int", ...] | int
"""Where a column is found: its name, its number in a file without header, or several of either for a list."""

_SHOWN = 3  # of the broken lines that were skipped, how many a report tells of


@dataclass(frozen=True)
class Column:
    """A column that a task wants.

    Attributes:
        name: what the task calls it.
        candidates: what files call it too, the likeliest first; several names joined by "+" stand for a list.
        required: whether it must be there.
        is_label: whether it is what a model learns, so that it may be absent where a model only predicts.
        number: where it is in a file that has neither header nor names, such as CoNLL; None is nowhere.
    """

    name: str
    candidates: tuple[str, ...]
    required: bool = True
    is_label: bool = False
    number: int | None = None


class Examples(list[Example]):
    """A list of examples that remembers where they came from.

    Attributes:
        source: the file or data set.
        skipped: what was wrong with each broken line that was left out.
    """

    def __init__(self, examples: Iterable[Example] = (), source: str = "", skipped: Sequence[str] = ()) -> None:
        super().__init__(examples)
        self.source = source
        self.skipped = list(skipped)


@dataclass
class _Reader:
    """Turns rows into examples, with the columns found once for all rows of the same kind."""

    source: str
    columns: Mapping[str, Source]
    wanted: Sequence[Column]
    labelled: bool
    found: dict[tuple[Any, ...], dict[str, Source]] = field(default_factory=dict)

    def example(self, row: Row) -> Example:
        if row.cells is None:
            raise InputError(f"{row.place}: {row.problem}")
        names = tuple(row.cells) if isinstance(row.cells, Mapping) else (len(row.cells),)
        if names not in self.found:
            self.found[names] = self._find(row)
        example: Example = {"place": row.place}
        for name, source in self.found[names].items():
            if isinstance(source, tuple):
                example[name] = [_cell(row, part) for part in source]
            else:
                example[name] = _cell(row, source)
        return example

    def _find(self, row: Row) -> dict[str, Source]:
        """Return where each wanted column is found in rows like this one; a column is taken once."""
        found: dict[str, Source] = {}
        for column in self.wanted:
            if column.is_label and not self.labelled:
                continue
            given = self.columns.get(column.name)
            if given is not None:
                found[column.name] = self._given(column.name, given, row)
                continue
            taken = set(found.values())
            candidates = (_plain(_parts(name)) for name in (column.name, *column.candidates))
            place = next((c for c in candidates if c not in taken and _has(row, c)), None)
            if place is None and not isinstance(row.cells, Mapping) and column.number is not None:
                place = column.number if _has(row, column.number) else None
            if place is not None:
                found[column.name] = place
            elif column.required:
                raise InputError(self._absent(column, row))
        return found

    def _given(self, name: str, given: Source, row: Row) -> Source:
        if not _has(row, given):
            raise InputError(
                f"{row.place}: there is no column {_named(given)} for {name}; {_held(row)}. Give another with "
                f"--columns ({name}=COLUMN)."
            )
        return given

    def _absent(self, column: Column, row: Row) -> str:
        likely = ", ".join(dict.fromkeys((column.name, *column.candidates)))
        return (
            f"{row.place}: no column is called {likely}, as {column.name} is expected to be; {_held(row)}. Say which "
            f"it is with --columns ({column.name}=COLUMN; a number, from 0, where there is no header)."
        )


def parse_columns(text: str) -> dict[str, Source]:
    """Return the columns that a command's option names.

    Raises:
        InputError: it is not of the form `name=column,name=column`.

    Example:
        >>> parse_columns("text=sentence,label=2,choices=a+b")
        {'text': 'sentence', 'label': 2, 'choices': ('a', 'b')}
    """
    found: dict[str, Source] = {}
    for part in text.split(","):
        name, equals, source = (piece.strip() for piece in part.partition("="))
        if not (name and equals and source):
            raise InputError(f"--columns is {text!r}; it must be like text=sentence,label=1: {part!r} is not.")
        found[name] = _plain(_parts(source))
    return found


def read_examples(
    source: str | os.PathLike[str],
    columns: Mapping[str, Source] | None = None,
    *,
    wanted: Sequence[Column],
    check: Callable[[Example], Example | None] | None = None,
    labelled: bool = True,
    skip_broken: bool = False,
    split: str | None = None,
    word_lines: Sequence[str] = (),
) -> Examples:
    """Read the examples of a file or of a data set.

    The form of a file is told by its suffix: `.jsonl`, `.json` (a list, or SQuAD's), `.csv`, `.tsv`, `.txt` (one text a
    line), `.parquet`, `.conll`, `.iob`, `.bio`. What is no file and has no such suffix is the name of a data set for
    the `datasets` library, with a configuration after a colon if need be ("glue:sst2").

    Args:
        source: the file, or the data set's name.
        columns: where to find the task's columns, by the task's name for them; a number counts columns from 0, and says
            of a CSV or TSV that it has no header.
        wanted: the task's columns.
        check: makes an example of the task out of what was read, or None of what is no example; its InputErrors are
            about that example alone.
        labelled: whether the columns that are labels must be there; without, they are not read.
        skip_broken: whether to leave broken lines out, and to report them, instead of stopping at the first.
        split: the part of a data set to read ("train").
        word_lines: suffixes of further files that hold a word a line, and an empty line after a sentence.

    Raises:
        InputError: the file is not there or not readable, a column is absent, a line is broken, or there is no example.
        MissingDependencyError: the form needs a package that is not installed.
    """
    columns = _checked_columns(columns or {}, wanted, str(source))
    rows = forms.rows_of(source, columns, wanted, split, word_lines=word_lines)
    return gather(
        rows, columns, wanted=wanted, check=check, labelled=labelled, skip_broken=skip_broken, name=str(source)
    )


def gather(
    rows: Iterable[Row],
    columns: Mapping[str, Source],
    *,
    wanted: Sequence[Column],
    check: Callable[[Example], Example | None] | None,
    labelled: bool,
    skip_broken: bool,
    name: str,
) -> Examples:
    """Make examples of rows; the arguments are those of `read_examples`, `name` is what errors call the rows."""
    reader = _Reader(name, columns, wanted, labelled)
    examples, skipped = Examples(source=name), []
    for row in rows:
        try:
            example: Example | None = reader.example(row)
            if check and example is not None:
                example = check(example)
        except InputError as error:
            if not skip_broken:
                raise
            skipped.append(str(error))
        else:
            if example is not None:
                examples.append(example)
    examples.skipped = skipped
    if skipped:
        logger.warning(
            "%s: broken lines that were skipped: %d. %s%s",
            name,
            len(skipped),
            " ".join(skipped[:_SHOWN]),
            " ..." if len(skipped) > _SHOWN else "",
        )
    if not examples:
        rest = f": all {len(skipped)} lines are broken, the first so: {skipped[0]}" if skipped else "."
        raise InputError(f"{name}: there is no example in it{rest}")
    return examples


def text_of(example: Example, name: str) -> str:
    """Return a column that must be a text.

    Raises:
        InputError: it is something else.
    """
    value = example[name]
    if not isinstance(value, str):
        raise InputError(f"{example['place']}: {name} is {shown(value)}; it must be a text.")
    return value


def shown(value: Any) -> str:
    """Return a value as an error shows it: not too long, with its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _checked_columns(columns: Mapping[str, Source], wanted: Sequence[Column], name: str) -> dict[str, Source]:
    known = [column.name for column in wanted]
    for given in columns:
        if given not in known:
            raise InputError(f"{name}: --columns names {given!r}; this task has the columns {', '.join(known)}.")
    return dict(columns)


def _parts(text: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.lstrip("-").isdecimal() else part for part in text.split("+"))


def _plain(parts: tuple[str | int, ...]) -> Source:
    return parts[0] if len(parts) == 1 else parts


def _has(row: Row, source: Source) -> bool:
    if isinstance(source, tuple):
        return all(_has(row, part) for part in source)
    if isinstance(row.cells, Mapping):
        return source in row.cells
    assert row.cells is not None
    return isinstance(source, int) and -len(row.cells) <= source < len(row.cells)


def _cell(row: Row, source: str | int) -> Any:
    assert row.cells is not None
    return row.cells[source]  # type: ignore[index]


def _named(source: Source) -> str:
    return " + ".join(map(repr, source)) if isinstance(source, tuple) else repr(source)


def _held(row: Row) -> str:
    if isinstance(row.cells, Mapping):
        return f"the columns there are {', '.join(map(str, row.cells)) or 'none'}"
    assert row.cells is not None
    count = len(row.cells)
    return f"there {'is 1 column' if count == 1 else f'are {count} columns'}, numbered from 0: {shown(list(row.cells))}"
