"""What memory is compared with, what is too much, and that a model of either framework takes little beyond itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import memory
import pytest
from rich.console import Console

import isobert
from runner import PEAK_RESET

ON_LINUX = pytest.mark.skipif(not PEAK_RESET.exists(), reason="only Linux tells the peak of the resident memory")

# Holds so many bytes for as long as the parent wants, then half of them.
HOLDER = """
import sys
first, second = b"1" * {size}, b"2" * {size}
print("held", flush=True)
sys.stdin.readline()
del second
print("less", flush=True)
sys.stdin.readline()
"""


def case(**changes: object) -> memory.Case:
    fields: dict[str, object] = {
        "family": "rembert",
        "head": "ForMaskedLM",
        "framework": "tf",
        "side": "ours",
        "action": "save",
        "size": 4_000_000_000,
        "peak": 5_000_000_000,
        "private": 4_400_000_000,
    }
    return memory.Case(**{**fields, **changes})  # type: ignore[arg-type]


def shown(*cases: memory.Case) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(memory.table_of(cases))
    return console.export_text()


def test_a_peak_is_told_relative_to_the_models_own_size() -> None:
    assert case().ratio == 1.25


def test_only_ours_can_take_too_much() -> None:
    assert not case(peak=5_200_000_000).too_much
    assert case(peak=5_200_000_001).too_much
    assert not case(peak=20_000_000_000, side="peer").too_much


def test_the_table_has_both_sides_in_one_row() -> None:
    text = shown(case(), case(side="peer", peak=12_000_000_000, private=8_000_000_000))
    row = next(line for line in text.splitlines() if "ForMaskedLM" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        *("rembert, ForMaskedLM", "Keras", "save", "4.00 GB"),
        *("1.25", "3.00", "1.10", "2.00"),
    ]


def test_a_side_that_was_not_measured_has_dashes() -> None:
    assert shown(case(side="peer")).count(" - ") == 2


def test_the_report_is_json_and_holds_every_case() -> None:
    benchmark = memory.Benchmark(memory.options([]), Console())
    found = json.loads(json.dumps(memory.report([case(), case(action="open")], benchmark)))
    assert [(one["action"], one["ratio"]) for one in found["cases"]] == [("save", 1.25), ("open", 1.25)]


@ON_LINUX
def test_a_watch_finds_the_peak_of_another_processes_private_memory() -> None:
    size = 50_000_000
    command = [sys.executable, "-c", HOLDER.format(size=size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        with memory.Watch(process.pid) as watch:
            time.sleep(0.1)
            print(file=process.stdin, flush=True)
            process.stdout.readline()
            time.sleep(0.1)
        with memory.Watch(process.pid) as later:
            time.sleep(0.1)
        process.stdin.close()
    assert watch.peak - later.peak == pytest.approx(size, rel=0.05)
    assert later.peak > size


@ON_LINUX
@pytest.mark.slow
@pytest.mark.parametrize("framework", memory.FRAMEWORKS)
def test_a_model_is_created_saved_and_opened_in_little_more_than_its_own_size(framework: str) -> None:
    arguments = ["--sides", "ours", "--frameworks", framework, "--heads", "ForMaskedLM", "--layers", "2"]
    cases = list(memory.Benchmark(memory.options(arguments), Console(quiet=True)).run())
    assert [found.action for found in cases] == ["create", "save", "open"]
    assert all(found.size > 2e9 for found in cases)
    # What a framework needs for itself counts for more in this model than in the whole one.
    assert {found.action: found.ratio for found in cases if found.ratio > 1.15} == {}


@ON_LINUX
def test_a_worker_counts_from_what_it_has_once_all_is_imported(tmp_path: Path) -> None:
    config = isobert.AutoConfig.from_size("convbert-small", vocab_size=100_000, num_hidden_layers=1)
    config.save_pretrained(tmp_path)
    with memory.Benchmark(memory.options([]), Console(quiet=True)).worker("ours", "pt") as worker:
        about = worker.ask("prepare", folder=str(tmp_path), head="Model")
        created, saved = worker.ask("create"), worker.ask("save", folder=str(tmp_path / "saved"))
        size = worker.ask("size")
    assert about["process"] != os.getpid()
    assert set(about["versions"]) == {"isobert", "torch"}
    assert size == 4 * isobert.AutoModel.from_config(config).num_parameters()
    assert size < created < size + 50_000_000
    assert size < saved < size + 50_000_000
