"""The forms of files that examples come in, each a function that yields rows with their places."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from .files import Column, Source


class Row(NamedTuple):
    """What a file holds at one place.

    Attributes:
        place: where, such as "dev.tsv:3".
        cells: by column name, or in order; None where the line is broken.
        problem: what is wrong with a broken line.
    """

    place: str
    cells: Mapping[Any, Any] | Sequence[Any] | None
    problem: str = ""


TABLES = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
WORD_LINES = (".conll", ".iob", ".iob2", ".bio", ".bioes")
SUFFIXES = (*TABLES, *JSON_LINES, ".json", *WORD_LINES, ".txt", ".parquet")


def rows_of(
    source: str | os.PathLike[str],
    columns: Mapping[str, Source],
    wanted: Sequence[Column],
    split: str | None,
    *,
    word_lines: Sequence[str],
) -> Iterator[Row]:
    """Yield the rows of a file or data set; the arguments are those of `files.read_examples`.

    Raises:
        InputError: there is no such file, or it is not of the form that its suffix says.
        MissingDependencyError: the form needs a package that is not installed.
    """
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    if not path.exists() and suffix not in SUFFIXES:
        return data_set_rows(str(source), split)
    if not path.is_file():
        what = "is a folder; give a file" if path.is_dir() else "is not there"
        raise InputError(f"{source} {what}.")
    numbered = bool(columns) and all(isinstance(column, int) for column in _flat(columns.values()))
    named = bool(columns) and not numbered
    if suffix in WORD_LINES or (suffix in word_lines and not named):
        return sentence_rows(path, columns, wanted)
    if suffix in TABLES:
        return table_rows(path, TABLES[suffix], header=not numbered)
    if suffix in JSON_LINES:
        return json_line_rows(path)
    if suffix == ".json":
        return json_rows(path)
    if suffix == ".parquet":
        return parquet_rows(path)
    if suffix == ".txt":
        return (Row(place, [text]) for place, text in lines_of(path) if text.strip())
    raise InputError(f"{source}: files of examples end in {', '.join(SUFFIXES)}; rename it to what it is.")


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each line of a UTF-8 file with its place, without what ends it.

    Raises:
        InputError: the file cannot be read, or is not UTF-8 text.
    """
    number = 0
    try:
        # Only a line feed ends a line: other blanks that Python would split at may stand in a text.
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                yield f"{path}:{number}", line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: this is not UTF-8 text after line {number}; save it as UTF-8.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def table_rows(path: Path, delimiter: str, *, header: bool) -> Iterator[Row]:
    """Yield the rows of a CSV (by the `csv` module) or a TSV (cut at tabs, quotes being plain characters)."""
    records = _csv_records(path, delimiter) if delimiter == "," else _tsv_records(path)
    names: list[str] | None = None
    count = 0
    for place, cells, problem in records:
        if cells is None:
            yield Row(place, None, problem)
        elif header and names is None:
            names, count = [cell.strip() for cell in cells], len(cells)
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise InputError(
                    f"{place}: two columns are called {twice!r}. If the file has no header, number its columns, as in "
                    "--columns text=0,label=1."
                )
        else:
            count = count or len(cells)
            if len(cells) != count:
                where = "the header" if header else "the first line"
                yield Row(place, None, f"this line has {len(cells)} fields, and {where} has {count}.")
            else:
                yield Row(place, cells if names is None else dict(zip(names, cells, strict=True)))


_Record = tuple[str, "list[str] | None", str]


def _tsv_records(path: Path) -> Iterator[_Record]:
    for place, line in lines_of(path):
        if line:
            yield place, line.split("\t"), ""


def _csv_records(path: Path, delimiter: str) -> Iterator[_Record]:
    # A record may go on over several lines; its place is its first one.
    lines = (line + "\n" for _, line in lines_of(path))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        place = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield place, None, f"this is no line of a CSV file ({error})."
            continue
        if cells:
            yield place, cells, ""


def json_line_rows(path: Path) -> Iterator[Row]:
    """Yield the objects of a file with one a line."""
    for place, line in lines_of(path):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            yield Row(place, None, f"this line is not valid JSON (column {error.colno}: {error.msg}).")
            continue
        yield _object_row(place, content)


def json_rows(path: Path) -> Iterator[Row]:
    """Yield the objects of a file that holds a list of them, or SQuAD's `{"data": [...]}`."""
    text = "\n".join(line for _, line in lines_of(path))
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        hint = " A file with one object a line is called .jsonl." if error.msg == "Extra data" else ""
        raise InputError(f"{path}:{error.lineno}: this is not valid JSON ({error.msg}).{hint}") from error
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if not isinstance(content, list):
        raise InputError(
            f"{path}: this holds a {type(content).__name__}; it must be a list of objects, or SQuAD's form."
        )
    if content and isinstance(content[0], dict) and "paragraphs" in content[0]:
        yield from _squad_rows(path, content)
        return
    for index, item in enumerate(content):
        yield _object_row(f"{path}[{index}]", item)


def _object_row(place: str, content: Any) -> Row:
    if isinstance(content, dict):
        return Row(place, content)
    return Row(place, None, f"this is a {type(content).__name__}; it must be an object with named columns.")


def _squad_rows(path: Path, articles: list[Any]) -> Iterator[Row]:
    """Yield a row for each question of SQuAD's nested form (Rajpurkar et al. 2016)."""
    for article_index, article in enumerate(articles):
        for paragraph_index, paragraph in enumerate(_listed(article, "paragraphs")):
            for question_index, question in enumerate(_listed(paragraph, "qas")):
                place = f"{path}[{article_index}].paragraphs[{paragraph_index}].qas[{question_index}]"
                if not isinstance(question, dict):
                    yield Row(place, None, f"this is a {type(question).__name__}; it must be an object.")
                    continue
                row = {**question, "context": paragraph.get("context")}
                if question.get("is_impossible"):
                    row["answers"] = []
                yield Row(f"{place} ({question['id']})" if "id" in question else place, row)


def _listed(content: Any, name: str) -> list[Any]:
    held = content.get(name) if isinstance(content, dict) else None
    return held if isinstance(held, list) else []


def sentence_rows(path: Path, columns: Mapping[str, Source], wanted: Sequence[Column]) -> Iterator[Row]:
    """Yield a row for each sentence of a file with a word a line, CoNLL's form; its columns are lists.

    The fields of a line are cut at tabs if the file has any, else at blanks. An empty line ends a sentence, a line that
    begins with `-DOCSTART-` is none, and neither is one that begins with `#` and has no tab where others have.
    """
    place, lines, tabs = "", list[list[str]](), None
    problem = ""
    for here, line in chain(lines_of(path), [("", "")]):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if lines or problem:
                yield Row(place, None, problem) if problem else Row(place, _sentence(lines, columns, wanted))
            lines, problem = [], ""
            continue
        if line.startswith("#") and tabs is not False and "\t" not in line:
            continue
        if tabs is None:
            tabs = "\t" in line
        fields = line.split("\t") if tabs else line.split()
        if not lines and not problem:
            place = here
        elif lines and len(fields) != len(lines[0]) and not problem:
            problem = f"{here} has {len(fields)} fields, and the sentence's first line has {len(lines[0])}."
        lines.append(fields)


def _sentence(lines: list[list[str]], columns: Mapping[str, Source], wanted: Sequence[Column]) -> Mapping[Any, Any]:
    """Return a sentence's columns, under their numbers (from the end as well) and the task's names for them."""
    count = len(lines[0])
    by_number = {number: [fields[number] for fields in lines] for number in range(-count, count)}
    named = {
        column.name: by_number[column.number]
        for column in wanted
        if column.name not in columns and column.number in by_number and (column.number >= 0 or count > 1)
    }
    return {**named, **by_number}


def parquet_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet file; needs pyarrow."""
    parquet = needed("pyarrow.parquet", "train", "A Parquet file")
    arrow = needed("pyarrow", "train", "A Parquet file")
    try:
        file = parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches():
            for cells in batch.to_pylist():
                number += 1
                yield Row(f"{path}: row {number}", cells)
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: this is no readable Parquet file ({error}).") from error


def data_set_rows(name: str, split: str | None) -> Iterator[Row]:
    """Yield the rows of a data set by its name for the `datasets` library; classes become their names."""
    datasets = needed("datasets", "train", f"There is no file {name!r} here, and a data set of that name")
    repository, _, configuration = name.partition(":")
    split = split or "train"
    try:
        held = datasets.load_dataset(repository, configuration or None, split=split)
    except Exception as error:
        # Whatever that library runs into (no network, no such name or split), the cure is the user's.
        raise InputError(
            f"There is no file {name!r} here, and the split {split!r} of a data set of that name could not be loaded "
            f"({type(error).__name__}: {error})."
        ) from error
    names = {column: _class_names(feature) for column, feature in held.features.items()}
    for number, cells in enumerate(held):
        yield Row(f"{name}[{split}]: row {number}", {c: _as_names(value, names[c]) for c, value in cells.items()})


def _class_names(feature: Any) -> list[str] | None:
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    return names if isinstance(names, list) else None


def _as_names(value: Any, names: list[str] | None) -> Any:
    if names is None or value is None:
        return value
    if isinstance(value, list):
        return [_as_names(item, names) for item in value]
    # A hidden label, as test sets have, is -1.
    return names[value] if isinstance(value, int) and value >= 0 else None


def needed(module: str, extra: str, what: str) -> Any:
    """Import a package that is not always installed.

    Raises:
        MissingDependencyError: it is not; the message names the extra that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingDependencyError(
            f"{what} needs {package}, which is not installed: pip install 'isobert[{extra}]'."
        ) from error


def _flat(sources: Iterable[Source]) -> Iterator[str | int]:
    for source in sources:
        yield from source if isinstance(source, tuple) else (source,)
