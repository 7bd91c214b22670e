"""Reading and writing checkpoints: nothing is altered, nothing is lost, and damage is named."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from isobert.conversion import checkpoint as module
from isobert.conversion.checkpoint import LazyTensor, open_checkpoint, write_checkpoint
from isobert.conversion.formats import torch_bin
from isobert.conversion.shards import parse_size
from isobert.errors import CheckpointError, CheckpointNotFoundError, InputError, UnknownNameError

Tensors = dict[str, np.ndarray]
FORMS = ("safetensors", "torch-bin")
ON_POSIX = pytest.mark.skipif(
    os.name != "posix", reason="elsewhere files are read, since none that is mapped can be replaced"
)


def tensors_of(seed: int) -> Tensors:
    random = np.random.default_rng(seed)
    return {
        "z.weight": random.normal(size=(7, 5)).astype(np.float32),
        "a.bias": random.normal(size=13).astype(np.float64),
        "half": random.normal(size=(3, 4)).astype(np.float16),
        "brain": random.normal(size=(5, 3)).astype(ml_dtypes.bfloat16),
        "ids": random.integers(-9, 9, (1, 6)),
        "flag": np.array([True, False, True]),
        "scalar": np.array(random.normal()),
        "empty": np.zeros((0, 4), np.float32),
    }


def read_all(folder: Path) -> Tensors:
    with open_checkpoint(folder) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.names()}


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert found[name].tobytes() == np.ascontiguousarray(tensor).tobytes(), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("max_shard_size", ["5GB", 120])
def test_a_round_trip_is_bit_identical(tmp_path: Path, form: str, max_shard_size: int | str) -> None:
    if form == "torch-bin":
        pytest.importorskip("torch")
    files = write_checkpoint(tmp_path, tensors_of(1), form=form, max_shard_size=max_shard_size)
    assert (len(files) == 1) == (max_shard_size == "5GB")
    assert_same(read_all(tmp_path), tensors_of(1))


@pytest.mark.parametrize("max_shard_size", ["5GB", 120])
def test_shapes_and_dtypes_are_known_without_reading(tmp_path: Path, max_shard_size: int | str) -> None:
    write_checkpoint(tmp_path, tensors_of(1), max_shard_size=max_shard_size)
    with open_checkpoint(tmp_path) as checkpoint:
        assert len(checkpoint) == len(tensors_of(1))
        for name, tensor in tensors_of(1).items():
            assert (checkpoint.shape(name), checkpoint.dtype(name)) == (tensor.shape, tensor.dtype.name)


def test_the_safetensors_library_reads_what_is_written(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tensors_of(2))
    assert_same(load_file(tmp_path / "model.safetensors"), tensors_of(2))


def test_files_of_the_safetensors_library_are_read(tmp_path: Path) -> None:
    save_file(tensors_of(2), tmp_path / "model.safetensors")
    assert_same(read_all(tmp_path), tensors_of(2))


def test_arrays_in_any_memory_order_are_written_by_their_values(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_checkpoint(tmp_path, {"t": array.T, "s": array[:, ::2], "b": array.astype(">f4")})
    found = read_all(tmp_path)
    np.testing.assert_array_equal(found["t"], array.T)
    np.testing.assert_array_equal(found["s"], array[:, ::2])
    np.testing.assert_array_equal(found["b"], array)


def test_shards_and_index_are_named_as_on_the_hub(tmp_path: Path) -> None:
    tensors = {name: np.ones(10, np.float32) for name in "abc"}
    files = write_checkpoint(tmp_path, tensors, max_shard_size=40)
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert [file.name for file in files] == names
    assert sorted(os.listdir(tmp_path)) == [*names, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index == {"metadata": {"total_size": 120}, "weight_map": dict(zip("abc", names, strict=True))}


def test_a_tensor_larger_than_a_shard_gets_one_of_its_own(tmp_path: Path) -> None:
    tensors = {"a": np.ones(1), "large": np.ones(100), "b": np.ones(1), "c": np.ones(1)}
    files = write_checkpoint(tmp_path, tensors, max_shard_size=16)
    assert [sorted(load_file(file)) for file in files] == [["a"], ["large"], ["b", "c"]]


def test_only_one_lazy_tensor_is_loaded_at_a_time_and_each_once(tmp_path: Path) -> None:
    events: list[str] = []

    def load(name: str) -> np.ndarray:
        events.append(name)
        return np.full(4, len(events), np.float32)

    lazy = {n: LazyTensor((4,), np.dtype(np.float32), lambda n=n: load(n)) for n in "abcd"}
    write_checkpoint(tmp_path, lazy, max_shard_size=32)
    assert events == list("abcd")
    assert read_all(tmp_path)["d"][0] == 4


def test_a_lazy_tensor_that_breaks_its_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tensor x was announced"):
        write_checkpoint(tmp_path, {"x": LazyTensor((4,), np.dtype(np.float32), lambda: np.ones(5, np.float32))})
    assert os.listdir(tmp_path) == []


def test_a_safetensors_file_says_pt_and_carries_the_digest_of_its_tensors(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"b": np.arange(3.0).reshape(3, 1), "a": np.ones(2, np.float32)})
    lines = []
    for name, told, array in (("a", "float32 [2] ", np.ones(2, np.float32)), ("b", "float64 [3, 1] ", np.arange(3.0))):
        lines.append(f"{name} {hashlib.sha256(told.encode() + array.tobytes()).hexdigest()}\n")
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt", "sha256": hashlib.sha256("".join(lines).encode()).hexdigest()}


@pytest.mark.parametrize("form", ["safetensors", "torch-bin"])
def test_a_flipped_bit_in_a_tensor_is_found_by_the_files_checksum(tmp_path: Path, form: str) -> None:
    [file] = write_checkpoint(tmp_path, {"a": np.zeros(1000, np.float32), "b": np.full(1000, 0.37)}, form=form)
    with open_checkpoint(tmp_path) as checkpoint:
        checkpoint.check()
    content = bytearray(file.read_bytes())
    content[content.index(np.full(10, 0.37).tobytes()) + 3] ^= 4
    file.write_bytes(content)
    with open_checkpoint(tmp_path) as checkpoint, pytest.raises(CheckpointError, match=re.escape(str(file))):
        checkpoint.check()


# Saves that are cut short.

KINDS: dict[str, int | str] = {"whole": "5GB", "two shards": 60, "four shards": 30}


def numbered(value: float) -> Tensors:
    return {name: np.full(7, value, np.float32) for name in "abcd"}


class PowerCut(BaseException):
    """Stands for whatever ends a process."""


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> list[str]:
    """Let the file system fail at one of the steps that change the folder; return the steps that were reached."""
    reached: list[str] = []

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if len(reached) == step:
                raise PowerCut
            reached.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    for owner, name in ((os, "replace"), (os, "link"), (Path, "unlink"), (module, "_flush"), (shutil, "rmtree")):
        watch(owner, name)
    return reached


@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("new", KINDS)
def test_a_crash_at_any_step_of_a_save_leaves_the_old_or_the_new_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    seen = set()
    for step in range(100):
        folder = tmp_path / str(step)
        write_checkpoint(folder, numbered(1), max_shard_size=KINDS[old])
        with monkeypatch.context() as patch:
            crash_at(patch, step)
            try:
                write_checkpoint(folder, numbered(2), max_shard_size=KINDS[new])
                finished = True
            except PowerCut:
                finished = False
        values = {float(value) for tensor in read_all(folder).values() for value in tensor}
        assert len(values) == 1, f"old and new are mixed after step {step}"
        seen |= values
        # What the interrupted save left behind does not hinder the next one, and is cleared away.
        write_checkpoint(folder, numbered(3), max_shard_size=KINDS[new])
        assert_same(read_all(folder), numbered(3))
        fresh = tmp_path / f"fresh {step}"
        write_checkpoint(fresh, numbered(3), max_shard_size=KINDS[new])
        assert sorted(os.listdir(folder)) == sorted(os.listdir(fresh))
        if finished:
            break
    assert finished
    assert seen == {1.0, 2.0}


def test_a_save_that_fails_while_writing_leaves_no_trace(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, numbered(1))

    def fail() -> np.ndarray:
        raise RuntimeError("the tensor is gone")

    with pytest.raises(RuntimeError, match="gone"):
        write_checkpoint(tmp_path, {"a": np.ones(3), "b": LazyTensor((3,), np.dtype(np.float64), fail)})
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert_same(read_all(tmp_path), numbered(1))


def test_a_save_over_shards_works_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise OSError("not supported here")

    write_checkpoint(tmp_path, numbered(1), max_shard_size=60)
    monkeypatch.setattr(os, "link", no_links)
    write_checkpoint(tmp_path, numbered(2), max_shard_size=60)
    assert_same(read_all(tmp_path), numbered(2))


def test_a_save_leaves_other_files_alone(tmp_path: Path) -> None:
    for name in ("config.json", "notes.txt", "pytorch_model.bin", "model-1-of-2.safetensors.bak"):
        (tmp_path / name).write_text("mine")
    write_checkpoint(tmp_path, numbered(1), max_shard_size=60)
    write_checkpoint(tmp_path, numbered(1))
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["config.json", "model.safetensors", "notes.txt", "pytorch_model.bin", "model-1-of-2.safetensors.bak"]
    )


# Damage.


def sharded(folder: Path) -> dict[str, Any]:
    write_checkpoint(folder, numbered(1), max_shard_size=60)
    index: dict[str, Any] = json.loads((folder / "model.safetensors.index.json").read_text())
    return index


def rewrite_index(folder: Path, index: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "shard", ["../secret.safetensors", "/etc/passwd", "a/../../secret.safetensors", "..\\secret", "C:secret", ""]
)
def test_an_index_that_points_out_of_its_folder_is_refused(tmp_path: Path, shard: str) -> None:
    folder = tmp_path / "model"
    index = sharded(folder)
    save_file({"a": np.ones(7, np.float32)}, tmp_path / "secret.safetensors")
    index["weight_map"]["a"] = shard
    rewrite_index(folder, index)
    with pytest.raises(CheckpointError, match="not a file inside its own folder"):
        open_checkpoint(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": {"a": 3}}])
def test_an_index_without_a_map_of_names_is_refused(tmp_path: Path, index: Any) -> None:
    sharded(tmp_path)
    rewrite_index(tmp_path, index)
    with pytest.raises(CheckpointError, match="weight_map"):
        open_checkpoint(tmp_path)


def test_an_index_that_is_not_json_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {')
    with pytest.raises(CheckpointError, match="not valid JSON"):
        open_checkpoint(tmp_path)


def test_missing_shards_are_named(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointNotFoundError, match="model-00002-of-00002.safetensors"):
        open_checkpoint(tmp_path)


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    index["weight_map"]["ghost"] = "model-00001-of-00002.safetensors"
    rewrite_index(tmp_path, index)
    with pytest.raises(CheckpointError, match=r"ghost \(in model-00001-of-00002"):
        open_checkpoint(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path)
    second = tmp_path / "model-00002-of-00002.safetensors"
    save_file({**load_file(second), "a": np.zeros(7, np.float32)}, second)
    with pytest.raises(CheckpointError, match="tensor a lies in two shards"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_safetensors_file_that_was_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    write_checkpoint(tmp_path, tensors_of(1))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged"):
        open_checkpoint(tmp_path)


def test_a_safetensors_file_that_is_cut_short_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"a": np.ones(100_000)})
    file = tmp_path / "model.safetensors"
    with open_checkpoint(tmp_path) as checkpoint:
        os.truncate(file, file.stat().st_size - 1)
        with pytest.raises(CheckpointError, match="ends within tensor a"):
            checkpoint.read("a")


@pytest.mark.parametrize("form", FORMS)
def test_a_view_holds_the_tensor_and_what_is_written_to_it_reaches_no_file(tmp_path: Path, form: str) -> None:
    tensors = tensors_of(2)
    write_checkpoint(tmp_path, tensors, form=form)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with open_checkpoint(tmp_path) as checkpoint:
        views = {name: checkpoint.view(name) for name in checkpoint.names()}
        again = {name: checkpoint.read(name) for name in checkpoint.names()}
    assert_same(views, tensors)
    for view in views.values():
        view[...] = 0
    assert_same(again, tensors)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@ON_POSIX
def test_views_of_a_file_are_one_mapping_of_it_which_outlives_another_save(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"a": np.full(100_000, 1.0), "b": np.full(100_000, 2.0)})
    with open_checkpoint(tmp_path) as checkpoint:
        a, b = checkpoint.view("a"), checkpoint.view("b")
    # What a view is a view of; NumPy's arrays in between are none of the mapping.
    assert isinstance(a.base.base.obj, mmap.mmap)  # type: ignore[union-attr]
    assert a.base.base.obj is b.base.base.obj  # type: ignore[union-attr]
    write_checkpoint(tmp_path, {"a": np.zeros(3), "c": np.zeros(3)})
    assert (a == 1).all()
    assert (b == 2).all()


def test_a_tensor_that_does_not_lie_as_its_elements_must_is_read(tmp_path: Path) -> None:
    # The format lets a file have its elements anywhere.
    header = (
        b'{"a":{"dtype":"I8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"F32","shape":[2],"data_offsets":[3,11]}}'
    )
    elements = np.arange(3, dtype=np.int8).tobytes() + np.array([1.5, -2], np.float32).tobytes()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + elements)
    with open_checkpoint(tmp_path) as checkpoint:
        view = checkpoint.view("b")
    assert view.flags.aligned
    assert view.tolist() == [1.5, -2]


def test_a_view_of_a_file_that_is_cut_short_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {"a": np.ones(100_000), "b": np.ones(100_000)})
    file = tmp_path / "model.safetensors"
    with open_checkpoint(tmp_path) as checkpoint:
        assert (checkpoint.view("a") == 1).all()
        os.truncate(file, file.stat().st_size - 1)
        with pytest.raises(CheckpointError, match="ends within tensor b"):
            checkpoint.view("b")


def test_the_elements_of_a_safetensors_file_begin_where_vector_instructions_want_them(tmp_path: Path) -> None:
    for count in range(1, 9):
        write_checkpoint(tmp_path, tensors_of(count))
        begin = (tmp_path / "model.safetensors").read_bytes()[:8]
        assert (8 + int.from_bytes(begin, "little")) % 64 == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_tensor_is_read_into_aligned_memory_of_its_own(tmp_path: Path, form: str) -> None:
    write_checkpoint(tmp_path, tensors_of(1), form=form)
    with open_checkpoint(tmp_path) as checkpoint:
        for name in checkpoint.names():
            array = checkpoint.read(name)
            assert array.flags.c_contiguous
            assert array.size == 0 or array.ctypes.data % 64 == 0
            array[...] = 1
        assert_same({name: checkpoint.read(name) for name in checkpoint.names()}, tensors_of(1))


def test_a_tensor_of_a_dtype_that_numpy_lacks_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    header = json.dumps(
        {
            "second": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]},
            "first": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]},
        }
    ).encode()
    data = b"\0\0" + np.float32(7).tobytes()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.names() == ("first", "second")
        assert checkpoint.dtype("first") == "F8_E4M3"
        assert checkpoint.read("second").tolist() == [7]
        with pytest.raises(CheckpointError, match="tensor first has dtype F8_E4M3, which is not supported"):
            checkpoint.read("first")


def test_a_folder_without_a_checkpoint_is_answered_with_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(CheckpointNotFoundError) as caught:
        open_checkpoint(tmp_path)
    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "readme.txt"):
        assert name in str(caught.value)


def test_a_tensor_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, numbered(1))
    with open_checkpoint(tmp_path) as checkpoint, pytest.raises(CheckpointError, match="no tensor ghost"):
        checkpoint.read("ghost")


def test_a_dtype_that_the_form_lacks_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tensor words .*<U5"):
        write_checkpoint(tmp_path, {"words": np.array(["hello"])})
    assert os.listdir(tmp_path) == []


def test_an_empty_checkpoint_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tensors"):
        write_checkpoint(tmp_path, {})


def test_an_unknown_form_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'gguf'"):
        write_checkpoint(tmp_path, numbered(1), form="gguf")


@pytest.mark.parametrize("size", ["", "5XB", "-3", 0, "GB", "five"])
def test_a_size_that_is_none_is_refused(size: int | str) -> None:
    with pytest.raises(InputError, match="size"):
        parse_size(size)


# Torch files.


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


def test_a_pickle_that_asks_for_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(2), "b": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="can run code"):
        open_checkpoint(tmp_path)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_of_both_layouts_are_read(tmp_path: Path, legacy: bool) -> None:
    torch = pytest.importorskip("torch")
    state = {"a": torch.randn(3, 4), "b": torch.randn(5).bfloat16(), "t": torch.randn(3, 2).T}
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    found = read_all(tmp_path)
    assert found["b"].dtype == ml_dtypes.bfloat16
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name].astype(np.float32), tensor.float().numpy())


@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_is_mapped_anew_once_much_of_it_is_resident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    torch = pytest.importorskip("torch")
    expected = {f"tensor{i}": torch.full((10,), float(i)) for i in range(6)}
    torch.save(expected, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    monkeypatch.setattr(torch_bin, "_MOST_MAPPED", 100)
    loaded = []
    monkeypatch.setattr(torch, "load", lambda *a, load=torch.load, **k: loaded.append(a) or load(*a, **k))
    assert {name: array[0] for name, array in read_all(tmp_path).items()} == {f"tensor{i}": i for i in range(6)}
    # Three tensors of 40 bytes are more than 100; a file that cannot be mapped is read once.
    assert len(loaded) == (1 if legacy else 3)


@pytest.mark.parametrize("keep", [0, 3, 200])
def test_a_torch_file_that_was_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    torch = pytest.importorskip("torch")
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.randn(100)}, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("state", [[1, 2], {"epoch": 3, "state_dict": {}}])
def test_a_torch_file_of_something_else_than_tensors_is_refused(tmp_path: Path, state: Any) -> None:
    torch = pytest.importorskip("torch")
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"expected|something else"):
        open_checkpoint(tmp_path)


def test_safetensors_are_preferred_to_a_torch_file_beside_them(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(7)}, tmp_path / "pytorch_model.bin")
    write_checkpoint(tmp_path, numbered(1))
    assert_same(read_all(tmp_path), numbered(1))


def test_two_tensors_that_share_memory_in_a_torch_file_are_read_apart(tmp_path):
    torch = pytest.importorskip("torch")
    shared = torch.zeros(3)
    torch.save({"a": shared, "b": shared}, tmp_path / "pytorch_model.bin")
    with open_checkpoint(tmp_path) as checkpoint:
        checkpoint.read("a")[:] = 1
        assert not checkpoint.read("a").any()
        assert not checkpoint.read("b").any()


def test_a_checkpoint_that_another_would_hide_is_not_written(tmp_path: Path) -> None:
    old, new = {"a": np.zeros(2, np.float32)}, {"a": np.ones(2, np.float32)}
    write_checkpoint(tmp_path, old)
    with pytest.raises(CheckpointError, match=r"model\.safetensors, which is read before any pytorch_model\.bin"):
        write_checkpoint(tmp_path, new, form="torch-bin")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
