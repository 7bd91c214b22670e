"""Files: written whole or not at all."""

import subprocess
import sys

import pytest

from isobert.core.hub import atomic_write, read_json, write_json


def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "model.bin"
    target.write_text("old")

    def fail():
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_complete_write_replaces_the_old_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "new" / "config.json"
    for content in ({"a": 1}, {"a": 2, "ü": "ß"}):
        write_json(target, content)
        assert read_json(target) == content
    assert list(target.parent.iterdir()) == [target]


def test_offline_a_file_that_the_hub_is_known_to_lack_is_absent_and_any_other_unreachable(tmp_path, monkeypatch):
    commit = "a" * 40
    repository = tmp_path / "models--owner--name"
    for folder in ("refs", f"snapshots/{commit}", f".no_exist/{commit}"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit / "pytorch_model.bin").write_text("cached")
    (repository / ".no_exist" / commit / "model.safetensors").touch()
    program = """
from isobert.core.hub import resolve_file
from isobert.errors import CheckpointNotFoundError
assert resolve_file("owner/name", "model.safetensors", required=False) is None
assert resolve_file("owner/name", "pytorch_model.bin").read_text() == "cached"
try:
    resolve_file("owner/name", "config.json", required=False)
except CheckpointNotFoundError as error:
    assert "could not be fetched" in str(error)
else:
    raise AssertionError("an unknown file counts as absent")
"""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported, hence the process of its own
    subprocess.run([sys.executable, "-c", program], check=True)
