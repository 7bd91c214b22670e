"""The tokenizers' benchmark has every side tokenize the same texts, and refuses sides that find other ids."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import text
from goals import TEXT
from measured import read
from runner import BenchmarkError, Worker

FEW = ["--texts", "20", "--rounds", "1", "--seconds", "0", "--no-peer"]


def test_every_goals_case_is_measured() -> None:
    assert {key[1] for key, *_ in TEXT.values() if key[0] == "tokenizing"} <= set(text.JOBS)


def test_ours_alone_is_measured_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "text.json"
    subjects = ["fast WordPiece, pairs", "slow RemBERT, short"]
    monkeypatch.setattr(sys, "argv", ["text.py", *FEW, "--subjects", *subjects, "--json", str(results)])
    text.main()
    fast, slow = read(results)
    assert (fast.key, slow.key) == (("tokenizing", subjects[0], "", 20, 0), ("tokenizing", subjects[1], "", 20, 0))
    assert (set(fast.times), set(slow.times)) == ({"ours", "tokenizers"}, {"ours"})
    assert slow.versions["ours"].keys() == {"isobert", "tokenizers"}
    assert "slow RemBERT, short, 20 texts: ours" in capsys.readouterr().out


def test_all_jobs_can_be_done_and_python_and_rust_find_the_same_ids(tmp_path: Path) -> None:
    counts = text.prepare(tmp_path, 20)
    assert counts == {"short": 20, "pairs": 20, "long": text.LONG_TEXTS}
    digests: dict[Any, set[Any]] = {}
    side = text.Side("ours")
    for job in text.JOBS.values():
        if job.framework or job.texts == "long":
            continue
        found = side.choose(
            str(tmp_path / job.family), str(tmp_path / f"{job.texts}.json"), job.slow, {**job.arguments}
        )
        digests.setdefault((job.family, job.texts, *job.arguments), set()).add(found)
        assert len(side.time(0)) >= 1
    assert all(len(found) == 1 for found in digests.values())
    assert len(digests[("mobilebert", "short", *text.PADDED)] | digests[("rembert", "short", *text.PADDED)]) == 2


def test_long_texts_are_long(tmp_path: Path) -> None:
    text.prepare(tmp_path, 5)
    long, none = json.loads((tmp_path / "long.json").read_text())
    assert none is None
    assert {len(one) for one in long} == {text.LONG_CHARACTERS}
    assert len(set(long)) == text.LONG_TEXTS


def test_sides_that_find_other_ids_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "ask", lambda self, action, **arguments: f"{id(self)}" if action == "choose" else {})
    chosen = text.options([*FEW[:-1], "--peer", sys.executable, "--subjects", "fast WordPiece, short"])
    with pytest.raises(BenchmarkError, match="fast WordPiece, short: the sides find different ids"):
        next(text.measure(chosen))
