"""The benchmark of opening and importing measures each side in processes of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import isobert
import loading
from goals import TEXT
from measured import read
from runner import BenchmarkError

pytest.importorskip("torch")

SMALL = ["--families", "mobilebert", "--frameworks", "pt", "--layers", "1", "--rounds", "1"]


@pytest.mark.slow
def test_ours_alone_is_measured_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "loading.json"
    monkeypatch.setattr(sys, "argv", ["loading.py", *SMALL, "--no-peer", "--json", str(results)])
    loading.main()
    cases = {case.key[:3]: case for case in read(results)}
    assert list(cases) == [
        ("importing", "isobert", ""),
        ("importing", "a model's class", "pt"),
        ("importing", "isobert --help, the whole process", ""),
        ("opening", "mobilebert", "pt"),
        ("opening", "mobilebert, every number read", "pt"),
    ]
    assert all(set(case.times) == {"ours"} for case in cases.values())
    assert cases["opening", "mobilebert", "pt"].versions["ours"].keys() == {"isobert", "torch"}
    imported = cases["importing", "isobert", ""]
    assert imported.times["ours"].median < cases["importing", "a model's class", "pt"].times["ours"].median


def test_a_side_opens_what_was_saved_and_adds_it_up(tmp_path: Path) -> None:
    model = isobert.MobileBertModel(isobert.MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=1))
    model.save_pretrained(tmp_path)
    side = loading.Side("isobert", "pt")
    assert side.prepare("mobilebert").keys() == {"isobert", "torch"}
    assert len(side.open(str(tmp_path), read=True)) == 1
    assert side.total() == sum(float(parameter.double().sum()) for parameter in model.parameters())


def test_the_goals_cases_are_among_those_that_are_measured() -> None:
    chosen = loading.options([])
    assert TEXT["opening"][0] == ("opening", "rembert", "pt", 0, 0)
    assert ("rembert" in chosen.families, "pt" in chosen.frameworks) == (True, True)
    assert TEXT["importing"][0] == ("importing", "isobert", "", 0, 0)


def test_sides_that_open_other_numbers_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stub:
        def __init__(self, side: str) -> None:
            self.side = side

        def __enter__(self) -> Stub:
            return self

        def __exit__(self, *exception: object) -> None:
            pass

        def ask(self, action: str, **arguments: Any) -> Any:
            return {"prepare": {}, "open": [1.0], "total": 1.0 if self.side == "ours" else 1.1}[action]

    benchmark = loading.Benchmark(loading.options(SMALL))
    monkeypatch.setattr(benchmark, "make", lambda family, folder: None)
    monkeypatch.setattr(benchmark, "worker", lambda side, framework: Stub(side))
    with pytest.raises(BenchmarkError, match=r"mobilebert, pt: the sides open different numbers"):
        next(benchmark.opening("mobilebert", Path()))


def test_an_import_that_fails_is_told() -> None:
    benchmark = loading.Benchmark(loading.options(SMALL))
    with pytest.raises(BenchmarkError, match="import nothing_of_that_name failed"):
        benchmark.import_seconds("ours", "pt", "import nothing_of_that_name")
