"""Whatever goes wrong in a conversion: one clear error, nothing lost, nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isobert.conversion.checkpoint import open_checkpoint, write_checkpoint
from isobert.conversion.convert import convert
from isobert.conversion.expected import expected_tensors
from isobert.conversion.formats import FORMS, writable_forms
from isobert.errors import CheckpointError, CheckpointNotFoundError, IsobertError
from support.configs import random_config
from support.weights import random_value

WRITTEN = writable_forms()


def make_checkpoint(folder: Path, form: str = "safetensors", seed: int = 3, **fields: Any) -> dict[str, np.ndarray]:
    """Write a whole random MobileBERT in a form, with its config; return its tensors."""
    config = random_config("mobilebert", 3, **{"tie_word_embeddings": True, **fields})
    shapes = expected_tensors(config, "ForMaskedLM")
    tensors = {name: random_value(name, shape, seed).astype(np.float32) for name, shape in shapes.items()}
    native = folder if form == "safetensors" else folder.with_name(f"{folder.name}-native")
    write_checkpoint(native, tensors)
    config.replace(architectures=["MobileBertForMaskedLM"]).save_pretrained(native)
    if native != folder:
        convert(native, folder, to=form)
    return tensors


def read_all(folder: Path) -> dict[str, np.ndarray]:
    with open_checkpoint(folder) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.names()}


def weights_of(folder: Path) -> Path:
    with open_checkpoint(folder) as checkpoint:
        [file] = checkpoint.files
    return file


def refused(source: Path, target: Path, **options: Any) -> str:
    """Convert, expect one of the library's errors that names a file, and that nothing appears; return what it says."""
    held = sorted(os.listdir(target.parent))
    with pytest.raises(IsobertError) as caught:
        convert(source, target, **options)
    assert sorted(os.listdir(target.parent)) == held
    assert str(source) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", WRITTEN)
def test_a_truncated_source_is_named(tmp_path: Path, form: str) -> None:
    make_checkpoint(tmp_path / "a", form)
    file = weights_of(tmp_path / "a")
    whole = file.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 20):
        file.write_bytes(whole[:length])
        assert file.name in refused(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("form", WRITTEN)
def test_a_bit_flipped_anywhere_never_gives_a_raw_error(tmp_path: Path, form: str) -> None:
    tensors = make_checkpoint(tmp_path / "a", form)
    file = weights_of(tmp_path / "a")
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    places = [*range(0, 64, 7), *random.integers(0, len(whole), 25)]
    found = 0
    for number, place in enumerate(places):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << int(random.integers(8))
        file.write_bytes(spoilt)
        try:
            convert(tmp_path / "a", tmp_path / f"b{number}")
        except IsobertError:  # any other kind of error fails the test
            found += 1
        else:
            changed = read_all(tmp_path / f"b{number}")
            # It was in padding; or in a number, where the form has no checksum.
            differing = sum(np.count_nonzero(changed[name] != tensor) for name, tensor in tensors.items())
            assert differing <= (1 if form in ("transformers-h5", "keras-weights") else 0)
    assert found


@pytest.mark.parametrize("form", [name for name in WRITTEN if FORMS[name].is_native])
def test_a_missing_shard_is_named(tmp_path: Path, form: str) -> None:
    make_checkpoint(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "shards", to=form, max_shard_size=3000)
    with open_checkpoint(tmp_path / "shards") as checkpoint:
        missing = checkpoint.files[1]
    missing.unlink()
    assert missing.name in refused(tmp_path / "shards", tmp_path / "b")


@pytest.mark.parametrize("shard", ["../a/model.safetensors", "/etc/passwd", "x/../../a/model.safetensors"])
def test_an_index_cannot_name_a_file_outside_its_folder(tmp_path: Path, shard: str) -> None:
    make_checkpoint(tmp_path / "a")
    (tmp_path / "c").mkdir()
    index = {"weight_map": {"w": shard}}
    (tmp_path / "c" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert repr(shard) in refused(tmp_path / "c", tmp_path / "b")


def test_a_pickle_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    make_checkpoint(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").unlink()
    (tmp_path / "a" / "pytorch_model.bin").write_bytes(pickle.dumps({"w": Code()}))
    assert "pytorch_model.bin" in refused(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", WRITTEN)
def test_a_tensor_of_another_shape_than_the_config_says_is_named(tmp_path: Path, form: str) -> None:
    make_checkpoint(tmp_path / "a", form)
    path = tmp_path / "a" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "vocab_size": config["vocab_size"] + 1}))
    assert "word_embeddings.weight is [" in refused(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("form", [name for name in WRITTEN if not FORMS[name].is_native])
def test_a_tensor_that_is_none_of_the_familys_is_named_where_the_form_has_no_place_for_it(
    tmp_path: Path, form: str
) -> None:
    tensors = make_checkpoint(tmp_path / "a")
    write_checkpoint(tmp_path / "a", tensors | {"my.adapter": np.ones(3, np.float32)})
    assert "my.adapter" in refused(tmp_path / "a", tmp_path / "b", to=form)
    convert(tmp_path / "a", tmp_path / "b")
    assert "my.adapter" in read_all(tmp_path / "b")


@pytest.mark.parametrize("form", [name for name in WRITTEN if not FORMS[name].is_native])
def test_a_table_that_contradicts_its_tie_is_named_where_the_form_has_no_place_for_it(
    tmp_path: Path, form: str
) -> None:
    tensors = make_checkpoint(tmp_path / "a")
    words = tensors["mobilebert.embeddings.word_embeddings.weight"]
    write_checkpoint(tmp_path / "a", tensors | {"cls.predictions.decoder.weight": words + 1})
    assert "tie_word_embeddings" in refused(tmp_path / "a", tmp_path / "b", to=form)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff\xfe", '{"model_type": "gpt5"}', '{"model_type": 3}'])
def test_a_json_that_is_no_config_is_named(tmp_path: Path, content: str) -> None:
    make_checkpoint(tmp_path / "a")
    (tmp_path / "a" / "config.json").write_bytes(content.encode("latin-1"))
    assert "config" in refused(tmp_path / "a", tmp_path / "b", to="keras")


def test_a_config_with_an_illegal_field_is_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "a")
    path = tmp_path / "a" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": -3}))
    with pytest.raises(IsobertError, match="hidden_size"):
        convert(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"nothing that anybody knows", "damaged"),
    ],
)
@pytest.mark.parametrize("form", WRITTEN)
def test_something_else_under_a_checkpoints_name_is_told(tmp_path: Path, form: str, content: bytes, said: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / FORMS[form].file_name).write_bytes(content)
    assert said in refused(tmp_path / "a", tmp_path / "b")


def test_content_and_not_the_name_tells_the_form(tmp_path: Path) -> None:
    tensors = make_checkpoint(tmp_path / "a")
    os.rename(tmp_path / "a" / "model.safetensors", tmp_path / "a" / "pytorch_model.bin")
    assert convert(tmp_path / "a", tmp_path / "b").source_form == "safetensors"
    os.rename(tmp_path / "a" / "pytorch_model.bin", tmp_path / "a" / "mine.weights")
    assert convert(tmp_path / "a", tmp_path / "c").source_form == "safetensors"
    assert convert(tmp_path / "a" / "mine.weights", tmp_path / "d").source_form == "safetensors"
    for folder in "bcd":
        assert read_all(tmp_path / folder).keys() == tensors.keys()
    (tmp_path / "a" / "other.weights").write_bytes((tmp_path / "a" / "mine.weights").read_bytes())
    assert "mine.weights, other.weights" in refused(tmp_path / "a", tmp_path / "e")


def test_a_folder_without_a_checkpoint_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("nothing")
    with pytest.raises(CheckpointNotFoundError, match=r"notes\.txt"):
        convert(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("form", WRITTEN)
def test_what_does_not_read_back_as_it_was_sent_never_appears(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkpoint(tmp_path / "a")

    def write_badly(path: Path, tensors: Any, about: Any) -> None:
        name = next(name for name in tensors if name.endswith("LayerNorm.weight"))
        spoilt = np.array(tensors[name])
        spoilt[0] += 1
        assert FORMS_BEFORE[form].write is not None
        FORMS_BEFORE[form].write(path, {**tensors, name: spoilt}, about)

    FORMS_BEFORE = dict(FORMS)
    monkeypatch.setitem(FORMS, form, replace(FORMS[form], write=write_badly))
    with pytest.raises(CheckpointError, match="read back"):
        convert(tmp_path / "a", tmp_path / "b", to=form)
    assert os.listdir(tmp_path) == ["a"]


_CONVERT = """
import os, resource, signal, sys
from isobert.conversion.convert import convert
from isobert.errors import IsobertError
source, target, form, how = sys.argv[1:]
if how == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
def progress(name, done, total):
    if how == "killed" and done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)
try:
    convert(source, target, to=form, force=True, progress=progress)
except IsobertError as error:
    sys.exit(f"isobert: {error}")
"""


def convert_in_a_process(source: Path, target: Path, form: str, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _CONVERT, str(source), str(target), form, how]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("form", WRITTEN)
def test_a_full_disk_is_said_and_the_old_checkpoint_stays(tmp_path: Path, form: str) -> None:
    """A limit on the size of files stands in for the disk's."""
    make_checkpoint(tmp_path / "a", vocab_size=3000)
    make_checkpoint(tmp_path / "b", seed=5)
    before = read_all(tmp_path / "b")
    done = convert_in_a_process(tmp_path / "a", tmp_path / "b", form, "full")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert f"{tmp_path / 'b'} could not be written" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert all(np.array_equal(tensor, before[name]) for name, tensor in read_all(tmp_path / "b").items())


@pytest.mark.parametrize("form", WRITTEN)
def test_a_killed_process_leaves_the_old_checkpoint_and_no_half_of_the_new(tmp_path: Path, form: str) -> None:
    make_checkpoint(tmp_path / "a")
    make_checkpoint(tmp_path / "b", seed=5)
    before = read_all(tmp_path / "b")
    done = convert_in_a_process(tmp_path / "a", tmp_path / "b", form, "killed")
    assert done.returncode == -signal.SIGKILL
    assert all(np.array_equal(tensor, before[name]) for name, tensor in read_all(tmp_path / "b").items())
    assert convert_in_a_process(tmp_path / "a", tmp_path / "c", form, "killed").returncode == -signal.SIGKILL
    assert not (tmp_path / "c").exists()
    # What the killed ones left is in the way of nothing.
    assert convert_in_a_process(tmp_path / "a", tmp_path / "b", form, "whole").returncode == 0
    assert not np.array_equal(next(iter(read_all(tmp_path / "b").values())), next(iter(before.values())))
