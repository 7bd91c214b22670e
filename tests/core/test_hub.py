"""Files: written whole or not at all."""

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
