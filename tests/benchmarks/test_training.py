"""The texts of the fine-tuning run are real ones, every side gets the same, and ours trains on them."""

from __future__ import annotations

from pathlib import Path

import pytest

import isobert
import training
from model_tf import BIN_FOLDER
from runner import BenchmarkError


def test_sentences_are_as_long_as_people_write_them_and_the_same_each_time() -> None:
    rows = training.sentences(500)
    assert rows == training.sentences(500)
    assert len({row["text"] for row in rows}) == 500
    lengths = sorted(len(row["text"].split()) for row in rows)
    assert lengths[0] >= 3
    # Long ones are several times as long as most: a batch of any of them is mostly padding.
    assert lengths[-1] > 3 * lengths[250]
    assert {row["label"] for row in rows} == {0, 1, 2, 3}


def test_more_sentences_than_there_are_cannot_be_had() -> None:
    with pytest.raises(BenchmarkError, match="not 1000000: ask for fewer with --texts"):
        training.sentences(1_000_000)


def test_a_files_labels_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_text("so good\tpos\nso\tbad\tneg\nthird\tpos\n", encoding="utf-8")
    assert training.rows_of(path, 2) == [{"text": "so good", "label": 1}, {"text": "so\tbad", "label": 0}]
    path.write_text("nothing\n", encoding="utf-8")
    with pytest.raises(BenchmarkError, match="no lines of text<TAB>label"):
        training.rows_of(path, 2)


def test_ours_trains_from_the_checkpoint_that_every_side_gets(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    chosen = training.options(["--layers", "1", "--texts", "20"])
    training.make_checkpoint(tmp_path, training.sentences(20), chosen)
    assert (tmp_path / BIN_FOLDER / "pytorch_model.bin").exists()
    assert isobert.AutoConfig.from_pretrained(tmp_path / BIN_FOLDER).num_labels == 4
    settings = {"batch": 8, "length": 32, "epochs": 1, "texts": 12}
    assert training.Ours("pt").run(tmp_path, settings) > 0
