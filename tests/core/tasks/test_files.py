"""Reading examples: every form of file, finding columns, and what is said of broken lines."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from isobert.core.tasks import files, forms, task_of
from isobert.core.tasks.files import Column, Example, parse_columns, read_examples
from isobert.errors import InputError, MissingDependencyError

WANTED = (
    Column("text", ("sentence",), number=0),
    Column("text_pair", ("sentence2",), required=False),
    Column("label", ("class",), is_label=True),
)


def read(path: Path, columns: dict[str, Any] | None = None, **how: Any) -> files.Examples:
    return read_examples(path, columns, wanted=WANTED, **how)


def without_places(examples: list[Example]) -> list[Example]:
    return [{name: value for name, value in example.items() if name != "place"} for example in examples]


EXPECTED = [{"text": 'one "quoted', "label": "a"}, {"text": "two, three", "label": "b"}]

FORMS = {
    "a.tsv": 'sentence\tclass\none "quoted\ta\n\ntwo, three\tb\n',
    "a.csv": 'sentence,class\n\n"one ""quoted",a\n"two, three",b\n',
    "a.jsonl": '{"sentence": "one \\"quoted", "class": "a"}\n\n{"sentence": "two, three", "class": "b", "other": 1}\n',
    "a.json": '[{"text": "one \\"quoted", "label": "a"},\n {"text": "two, three", "label": "b"}]',
    "b.json": '{"data": [{"text": "one \\"quoted", "label": "a"}, {"text": "two, three", "label": "b"}]}',
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_examples(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    # A byte-order mark and the line ends of Windows belong to no text.
    path.write_bytes(b"\xef\xbb\xbf" + FORMS[name].replace("\n", "\r\n").encode())
    assert without_places(read(path)) == EXPECTED


def test_a_parquet_file_gives_the_same_examples(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    parquet.write_table(arrow.Table.from_pylist(EXPECTED), tmp_path / "a.parquet")
    assert without_places(read(tmp_path / "a.parquet")) == EXPECTED
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"b\.parquet: this is no readable Parquet file"):
        read(tmp_path / "b.parquet")


def test_classes_of_a_data_set_become_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rows(list):  # type: ignore[type-arg]
        class Class:
            names = ["bad", "good"]

        features = {"text": object(), "label": Class()}

    class Library:
        @staticmethod
        def load_dataset(name: str, configuration: str | None, split: str) -> Rows:
            assert (name, configuration, split) == ("owner/set", "small", "test")
            return Rows([{"text": "x", "label": 1}, {"text": "y", "label": 0}])

    monkeypatch.setattr(forms, "needed", lambda *_: Library)
    found = read_examples("owner/set:small", wanted=WANTED, split="test")
    assert [(example["label"], example["place"]) for example in found] == [
        ("good", "owner/set:small[test]: row 0"),
        ("bad", "owner/set:small[test]: row 1"),
    ]


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name=name.partition(".")[0])

    monkeypatch.setattr(forms, "import_module", absent)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(MissingDependencyError, match=r"pyarrow.*'isobert\[train\]'"):
        read(tmp_path / "a.parquet")
    with pytest.raises(MissingDependencyError, match=r"no file 'dev' here.*datasets.*'isobert\[train\]'"):
        read_examples("dev", wanted=WANTED)


def test_a_file_without_header_has_numbered_columns(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("1\tx y\tz\n0\tu\tv\n")
    found = read(tmp_path / "a.tsv", {"label": 0, "text": 1, "text_pair": -1})
    assert without_places(found) == [
        {"text": "x y", "text_pair": "z", "label": "1"},
        {"text": "u", "text_pair": "v", "label": "0"},
    ]
    assert found[1]["place"] == f"{tmp_path / 'a.tsv'}:2"


def test_an_absent_column_is_answered_with_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("title\tclass\nx\ta\n")
    with pytest.raises(InputError, match=r"text, sentence.*the columns there are title, class"):
        read(path)
    with pytest.raises(InputError, match=r"a\.tsv:2: there is no column 'body' for text.*title, class"):
        read(path, {"text": "body"})
    with pytest.raises(InputError, match=r"names 'txt'; this task has the columns text, text_pair, label"):
        read(path, {"txt": "title"})
    with pytest.raises(InputError, match=r"no column 7 for text; there are 2 columns, numbered from 0"):
        read(path, {"text": 7, "label": 1})
    assert len(read(path, {"text": "title"})) == 1


def test_labels_are_read_only_where_they_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x\n\ny z\n")
    assert without_places(read(path, labelled=False)) == [{"text": "x"}, {"text": "y z"}]
    with pytest.raises(InputError, match=r"a\.txt:1: no column is called label, class"):
        read(path)


BROKEN = {
    "a.tsv": ("sentence\tclass\nx\ta\ny\tb\tc\nz\tb\n", "a.tsv:3: this line has 3 fields, and the header has 2"),
    "a.csv": ('sentence,class\n"x\n",a\n"y"z,b\nz,b\n', "a.csv:4: this is no line of a CSV file"),
    "a.jsonl": (
        '{"text": "x\\n", "label": "a"}\n{"text": "y"\n{"text": "z", "label": "b"}\n',
        "a.jsonl:2: this line is not valid JSON",
    ),
    "b.jsonl": (
        '{"text": "x", "label": "a"}\n{"text": "y"}\n[1]\n{"text": "z", "label": "b"}\n',
        "b.jsonl:2: no column",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_stops_with_its_place_or_is_skipped_and_reported(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content, message = BROKEN[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)
    with caplog.at_level(logging.WARNING, "isobert"):
        found = read(tmp_path / name, skip_broken=True)
    assert [example["text"].strip() for example in found] == ["x", "z"]
    assert found.skipped[0].startswith(str(tmp_path / message.partition(":")[0]))
    assert f"broken lines that were skipped: {len(found.skipped)}." in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "sentence\tclass\n", "there is no example in it"),
        ("a.jsonl", "", "there is no example in it"),
        ("a.json", "[]", "there is no example in it"),
        ("a.json", '{"a": 1}\n{"b": 2}', r"a\.json:2: this is not valid JSON .* is called \.jsonl"),
        ("a.json", "3", "it must be a list of objects"),
        ("a.tsv", "a\ta\nb\tc\n", "two columns are called 'a'"),
        ("a.xlsx", "", r"files of examples end in \.csv"),
    ],
)
def test_a_file_without_examples_is_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tsv is not there"):
        read(tmp_path / "none.tsv")
    with pytest.raises(InputError, match=r"is a folder; give a file"):
        read(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"good\n\xff\n")
    with pytest.raises(InputError, match=r"a\.txt: this is not UTF-8 text"):
        read(tmp_path / "a.txt", labelled=False)


def test_everything_broken_is_no_data_even_if_broken_lines_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{\n{\n")
    with pytest.raises(InputError, match=r"all 2 lines are broken, the first so: .*a\.jsonl:1"):
        read(tmp_path / "a.jsonl", skip_broken=True)


def test_the_commands_columns_are_names_numbers_and_lists() -> None:
    assert parse_columns("text=sentence, label=-1,choices=a+b") == {
        "text": "sentence",
        "label": -1,
        "choices": ("a", "b"),
    }
    for wrong in ("text", "text=", "=a", "text=a,,label=b"):
        with pytest.raises(InputError, match="it must be like text=sentence,label=1"):
            parse_columns(wrong)


def test_conll_files_give_sentences(tmp_path: Path) -> None:
    task = task_of("token-classification")
    (tmp_path / "a.conll").write_text("-DOCSTART- -X- O\n\nAnna NNP B-PER\nis VB O\n\n\nParis NNP B-LOC\n")
    found = task.read(tmp_path / "a.conll")
    assert without_places(found) == [
        {"words": ["Anna", "is"], "tags": ["B-PER", "O"]},
        {"words": ["Paris"], "tags": ["B-LOC"]},
    ]
    assert found[1]["place"] == f"{tmp_path / 'a.conll'}:7"
    (tmp_path / "a.tsv").write_text("# sentence 1\n1\tAn na\tB-PER\n#\t#\tO\n")
    found = task.read(tmp_path / "a.tsv", {"words": 1})
    assert without_places(found) == [{"words": ["An na", "#"], "tags": ["B-PER", "O"]}]
    (tmp_path / "b.tsv").write_text("a\tO\nb\nc\tO\n\nd\tO\n")
    with pytest.raises(InputError, match=r"b\.tsv:1: .*b\.tsv:2 has 1 fields, and the sentence's first line has 2"):
        task.read(tmp_path / "b.tsv")
    assert [example["words"] for example in task.read(tmp_path / "b.tsv", skip_broken=True)] == [["d"]]


def test_squads_form_gives_questions_with_the_place_of_each(tmp_path: Path) -> None:
    questions = [
        {"id": "q1", "question": "Where?", "answers": [{"text": "Paris", "answer_start": 3}]},
        {"id": "q2", "question": "Who?", "answers": [], "is_impossible": True},
        {"id": "q3", "question": "When?", "answers": [{"text": "now", "answer_start": 0}]},
    ]
    content = {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "In Paris.", "qas": questions}]}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    task = task_of("question-answering")
    with pytest.raises(InputError, match=r"qas\[2\] \(q3\): the answer 'now'.*not at character 0.*stands nowhere"):
        task.read(tmp_path / "a.json")
    found = task.read(tmp_path / "a.json", skip_broken=True)
    assert [example["answers"] for example in found] == [[("Paris", 3)], []]
    assert found[0]["place"].endswith("a.json[0].paragraphs[0].qas[0] (q1)")
