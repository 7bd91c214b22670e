"""The command as it is called: what it prints, what it leaves, and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import isobert
from isobert.cli.main import app
from isobert.conversion.checkpoint import open_checkpoint, write_checkpoint
from isobert.conversion.expected import expected_tensors
from support.configs import random_config
from support.weights import random_value


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model")


def make_checkpoint(folder: Path, seed: int = 1, head: str = "ForSequenceClassification") -> Path:
    config = random_config("mobilebert", 3, num_labels=3, problem_type=None, vocab_size=50)
    shapes = expected_tensors(config, head)
    write_checkpoint(folder, {name: random_value(name, s, seed).astype(np.float32) for name, s in shapes.items()})
    config.replace(architectures=[f"MobileBert{head}"]).save_pretrained(folder)
    return folder


def test_the_version_is_the_packages() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"isobert {isobert.__version__}\n")


@pytest.mark.parametrize("command", [[], ["info"], ["convert"], ["trim"], ["predict"], ["verify"], ["demo"]])
def test_help_explains_every_option(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_help_and_info_start_no_framework(checkpoint: Path) -> None:
    for arguments in (["--help"], ["verify", "--help"], ["info", str(checkpoint)]):
        code = (
            f"import sys; sys.argv = ['isobert', *{arguments!r}]\n"
            "from isobert.cli.main import main\n"
            "try: main()\n"
            "except SystemExit as end: assert not end.code, end.code\n"
            "held = {'torch', 'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)\n"
            "assert not held, held"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_info_tells_family_head_sizes_parameters_and_files(checkpoint: Path) -> None:
    (checkpoint / "vocab.txt").write_text("[PAD]\n")
    result = run("info", checkpoint)
    with open_checkpoint(checkpoint) as held:
        count = sum(held.read(name).size for name in held.names())
    assert result.exit_code == 0
    for text in (
        "by config: MobileBertForSequenceClassification",
        "by tensors: MobileBertForSequenceClassification",
        f"{count:,}",
        f"float32 ({count:,})",
        "model.safetensors",
        "vocab.txt",
        "vocab_size 50",
        "classifier",
        "none was left over",
    ):
        assert text in result.stdout, text


def test_info_names_what_is_missing_and_left_over_for_another_head(checkpoint: Path) -> None:
    result = run("info", checkpoint, "--head", "ForQuestionAnswering")
    assert result.exit_code == 0
    for name in ("qa_outputs.weight", "qa_outputs.bias", "classifier.weight"):
        assert f"  {name}\n" in result.stdout


def test_info_tells_the_head_by_the_tensors_where_the_config_does_not(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", head="ForMaskedLM")
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    result = run("info", folder)
    assert "by config: none" in result.stdout
    assert "by tensors: MobileBertForMaskedLM" in result.stdout
    assert "For MobileBertForMaskedLM:" in result.stdout


def test_info_of_a_folder_without_config_still_tells_the_tensors(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"mobilebert.encoder.x": np.ones((3, 4), np.float32), "cls.y": np.ones(2, np.float32)})
    result = run("info", tmp_path)
    assert result.exit_code == 0
    assert "no config.json" in result.stdout
    assert "encoder 12" in result.stdout


def test_convert_leaves_the_checkpoint_and_says_what_it_did(checkpoint: Path, tmp_path: Path) -> None:
    result = run("convert", checkpoint, tmp_path / "b", "--dtype", "bfloat16", "--max-shard-size", "1KB")
    assert result.exit_code == 0
    assert "largest rounding error" in result.stdout
    with open_checkpoint(tmp_path / "b") as held:
        assert len(held.files) > 1
        assert {held.dtype(name) for name in held.names()} == {"bfloat16"}
    assert run("convert", checkpoint, tmp_path / "b").exit_code == 2
    assert run("convert", checkpoint, tmp_path / "b", "--force").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "{folder}/nothing"],
        ["info", "{folder}", "--head", "ForPoetry"],
        ["convert", "{folder}", "{folder}"],
        ["convert", "{folder}", "{folder}-b", "--max-shard-size", "huge"],
        ["verify", "{folder}", "--head", "ForMaskedLM"],
        ["verify", "{folder}", "--text", "{folder}/nothing.txt", "--b-framework", "pt"],
        ["verify", "{folder}", "--text", "{folder}", "--b-framework", "pt"],
        ["verify", "{folder}", "--plot", "{folder}/picture.xyz"],
        ["verify", "{folder}/nothing"],
    ],
)
def test_a_mistake_is_answered_in_one_line_with_status_2(checkpoint: Path, arguments: list[str]) -> None:
    if arguments[0] == "verify":
        pytest.importorskip("torch")
    result = run(*(argument.format(folder=checkpoint) for argument in arguments))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("isobert: error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["verify", "nothing", "--seed", "-1"], ["verify", "x", "--tolerance", "-1"], ["demo", "--seed", "-1"]]
)
def test_a_number_out_of_range_is_refused_before_any_work(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert f"Invalid value for '{arguments[-2]}'" in result.stderr


def test_a_damaged_checkpoint_is_answered_without_a_traceback(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    result = run("info", checkpoint)
    assert result.exit_code == 2
    assert "damaged" in result.stderr


def test_one_checkpoint_is_equal_in_both_frameworks_in_float64(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("keras")
    result = run("verify", checkpoint, "--json", tmp_path / "v.json", "--plot", tmp_path / "v.png")
    assert result.exit_code == 0, result.output
    assert "PyTorch against Keras, float64" in result.stdout
    content = json.loads((tmp_path / "v.json").read_text())
    assert content["passed"] is True
    kinds = {row["kind"] for row in content["rows"]}
    assert kinds == {"output", "loss", "gradient"}
    assert (tmp_path / "v.png").read_bytes().startswith(b"\x89PNG")


def test_two_checkpoints_of_different_weights_are_not_equal_and_the_status_is_1(
    checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    other = make_checkpoint(tmp_path / "other", seed=2)
    result = run("verify", checkpoint, other, "--dtype", "float32", "--no-gradients")
    assert result.exit_code == 1
    assert "NOT equal" in result.stdout
    assert run("verify", checkpoint, checkpoint, "--dtype", "float32").exit_code == 0


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForMultipleChoice"])
def test_verify_runs_on_the_users_own_text(tmp_path: Path, head: str) -> None:
    pytest.importorskip("torch")
    folder = make_checkpoint(tmp_path / "model", head=head)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three"]
    (folder / "vocab.txt").write_text("\n".join([*words, *(f"w{i}" for i in range(42))]) + "\n")
    (tmp_path / "text.txt").write_text("one two three\n\ntwo\n")
    result = run("verify", folder, "--b-framework", "pt", "--text", tmp_path / "text.txt")
    assert result.exit_code == 0, result.output
    (tmp_path / "text.txt").write_text("\n \n")
    assert "holds no text" in run("verify", folder, "--b-framework", "pt", "--text", tmp_path / "text.txt").stderr
