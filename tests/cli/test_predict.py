"""`isobert predict` as it is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import isobert
from isobert.cli.main import app
from support.tasks import TEXTS, inputs_of, make_checkpoint


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    make_checkpoint(folder, "squeezebert", "text-classification", num_hidden_layers=1)
    return folder


def expected(folder: Path, task: str, inputs: list[Any], **options: Any) -> list[Any]:
    return list(isobert.pipeline(task, folder, framework="pt", **options)(inputs))


def read(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_each_line_has_its_answer_in_a_file(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    output = tmp_path / "new" / "answers.jsonl"
    result = predict(
        *("--framework", "pt", "--task", "text-classification", "--model", classifier),
        *("--input", tmp_path / "texts.txt", "--output", output),
    )
    assert (result.exit_code, result.stdout) == (0, "")
    assert "7 answers written to" in result.stderr
    assert read(output.read_text()) == expected(classifier, "text-classification", TEXTS)


def test_both_frameworks_answer_on_stdout(classifier: Path, tmp_path: Path, monkeypatch: Any) -> None:
    used: list[str] = []

    def opened(*arguments: Any, **options: Any) -> Any:
        made = isobert.pipeline(*arguments, **options)
        used.append(type(made).__module__)
        return made

    monkeypatch.setattr("isobert.cli.predict.pipeline", opened)
    (tmp_path / "pairs.tsv").write_text("id\ta\tb\n" + "".join(f"{i}\t{t}\tanna\n" for i, t in enumerate(TEXTS)))
    found = {}
    for framework in ("pt", "tf"):
        result = predict(
            *("--framework", framework, "--task", "text-classification", "--model", classifier),
            *("--input", tmp_path / "pairs.tsv", "--columns", "text=a,text_pair=b", "--batch-size", 3),
            *("--max-length", 16, "--dtype", "float64"),
        )
        assert result.exit_code == 0, result.stderr
        found[framework] = read(result.stdout)
    assert used == ["isobert.pt.inference", "isobert.tf.inference"]
    assert [answer["label"] for answer in found["pt"]] == [answer["label"] for answer in found["tf"]]
    pairs = [(text, "anna") for text in TEXTS]
    wanted = expected(classifier, "text-classification", pairs, max_length=16, dtype="float64")
    for answers in found.values():
        for mine, other in zip(answers, wanted, strict=True):
            assert mine["score"] == pytest.approx(other["score"], abs=1e-10)


def test_options_of_the_task_are_options_of_the_command(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "model", "mobilebert", "fill-mask", num_hidden_layers=1)
    inputs = inputs_of("fill-mask", isobert.AutoTokenizer.from_pretrained(tmp_path / "model"))
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in inputs))
    result = predict(
        *("--task", "fill-mask", "--model", tmp_path / "model", "--input", tmp_path / "texts.jsonl", "--top-k", 1)
    )
    assert result.exit_code == 0, result.stderr
    assert read(result.stdout) == expected(tmp_path / "model", "fill-mask", inputs, top_k=1)


def test_texts_are_written_as_asked(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "model", "rembert", "text-generation", num_hidden_layers=1)
    (tmp_path / "prompts.txt").write_text("anna\nparis\n")
    command = ("--task", "text-generation", "--model", tmp_path / "model", "--input", tmp_path / "prompts.txt")
    result = predict(*command, "--max-new-tokens", 4, "--do-sample", "--temperature", 2.0, "--seed", 5)
    pipeline = isobert.pipeline("text-generation", tmp_path / "model", framework="pt")
    wanted = pipeline(["anna", "paris"], max_new_tokens=4, do_sample=True, temperature=2.0, seed=5)
    assert read(result.stdout) == wanted
    other = predict(*command, "--max-new-tokens", 4, "--do-sample", "--temperature", 2.0, "--seed", 6)
    assert read(other.stdout) != wanted


def test_broken_lines_stop_it_or_are_skipped(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "anna"}\n{"text": 3}\n{"text": "paris"}\n')
    command = (
        *("--task", "text-classification", "--model", classifier, "--input", tmp_path / "texts.jsonl"),
        *("--output", tmp_path / "answers.jsonl"),
    )
    (tmp_path / "answers.jsonl").write_text("old\n")
    result = predict(*command)
    assert result.exit_code == 2
    assert f"{tmp_path / 'texts.jsonl'}:2: text is 3 (int); it must be a text." in result.stderr
    assert (tmp_path / "answers.jsonl").read_text() == "old\n"
    assert predict(*command, "--skip-broken").exit_code == 0
    assert read((tmp_path / "answers.jsonl").read_text()) == expected(
        classifier, "text-classification", ["anna", "paris"]
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--task": "sentiment"}, "There is no task 'sentiment'; the tasks are text-classification"),
        ({"--task": "fill-mask"}, "is no SqueezeBertForMaskedLM, which fill-mask needs"),
        ({"--model": "nowhere"}, "There is no folder 'nowhere' here"),
        ({"--input": "nowhere.txt"}, "nowhere.txt is not there"),
        ({"--columns": "text"}, "--columns is 'text'; it must be like"),
        ({"--columns": "txt=0"}, "--columns names 'txt'; this task has the columns text, text_pair, label"),
        ({"--max-length": "2"}, "The option max_length is 2; it must be"),
        ({"--max-length": "99"}, "max_length is 99, and the model has 40 positions"),
        ({"--max-new-tokens": "2"}, "'max_new_tokens' is an argument of text generation"),
        ({"--output": "."}, ". is a folder; name a file for the answers"),
        ({"--device": "fast"}, "device is 'fast'; it must be"),
    ],
)
def test_wrong_input_is_answered_with_one_line(
    classifier: Path, tmp_path: Path, monkeypatch: Any, change: dict[str, str], words: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "texts.txt").write_text("anna [MASK]\n")
    command = {"--task": "text-classification", "--model": classifier, "--input": tmp_path / "texts.txt", **change}
    result = predict(*(part for option in command.items() for part in option))
    assert result.exit_code == 2
    assert result.stderr.startswith("isobert: error: ")
    assert words in result.stderr
    assert result.stdout == ""


def test_an_empty_file_is_answered(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n\n")
    result = predict("--task", "text-classification", "--model", classifier, "--input", tmp_path / "texts.txt")
    assert result.exit_code == 2
    assert "there is no example in it" in result.stderr
