"""Workers answer and fail with a reason, sides take turns, and times and memory are what they are said to be."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner import PEAK_RESET, BenchmarkError, Timing, Worker, alternate, peak_memory, quartiles, timed

RUNNER = Path(__file__).parents[2] / "benchmarks" / "runner.py"

SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from runner import serve

def divide(a, b):
    print("a library's greeting")
    return a / b

serve({{"divide": divide}})
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(SCRIPT.format(folder=str(RUNNER.parent)), encoding="utf-8")
    return path


def test_a_worker_answers_whatever_its_libraries_print(script: Path) -> None:
    with Worker(sys.executable, script) as worker:
        assert worker.ask("divide", a=3, b=2) == 1.5
        assert worker.ask("divide", a=1, b=4) == 0.25


def test_a_worker_that_fails_says_why(script: Path) -> None:
    with Worker(sys.executable, script) as worker, pytest.raises(BenchmarkError, match="ZeroDivisionError"):
        worker.ask("divide", a=1, b=0)


def test_a_worker_that_has_failed_says_so_again(script: Path) -> None:
    with Worker(sys.executable, script) as worker:
        for _ in range(2):
            with pytest.raises(BenchmarkError, match=r"worker\.py: divide ended with status 1"):
                worker.ask("divide", a=1, b=0)


def test_a_missing_interpreter_is_named(script: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"no-python does not exist: `make bench` installs it"):
        Worker(tmp_path / "no-python", script)


def test_sides_take_turns_in_alternating_order() -> None:
    order: list[str] = []

    def turn(name: str) -> Callable[[], list[float]]:
        def take() -> list[float]:
            order.append(name)
            return [len(order), 100.0, 0.0]

        return take

    found = alternate({"a": turn("a"), "b": turn("b")}, rounds=3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": Timing((1, 4, 5)), "b": Timing((2, 3, 6))}


def test_a_ratio_is_that_of_the_medians_with_the_rounds_quartiles() -> None:
    ours, peer = Timing((1.0, 2.0, 4.0, 2.0, 1.0)), Timing((2.0, 3.0, 4.0, 6.0, 4.0))
    ratio = peer.ratio_to(ours)
    assert ratio.median == 4.0 / 2.0
    assert (ratio.low, ratio.high) == (1.5, 3.0)  # of 1, 1.5, 2, 3, 4
    assert (ours.median, ours.least) == (2.0, 1.0)


def test_quartiles_of_one_value_are_that_value() -> None:
    assert quartiles([3.0]) == (3.0, 3.0)


def test_calls_are_timed_after_one_that_is_not() -> None:
    calls: list[float] = []

    def call() -> None:
        calls.append(time.perf_counter())
        time.sleep(0.2 if len(calls) == 1 else 0.01)

    took = timed(call, seconds=0.0, least=3)
    assert len(calls) == 4
    assert len(took) == 3
    assert all(0.01 <= seconds < 0.2 for seconds in took)


def test_calls_go_on_until_the_time_is_over() -> None:
    assert sum(timed(lambda: time.sleep(0.005), seconds=0.1)) >= 0.1


@pytest.mark.skipif(not PEAK_RESET.exists(), reason="only Linux tells the peak of the resident memory")
def test_the_peak_of_a_call_is_what_it_holds_at_once_beyond_what_was_held() -> None:
    held = bytes(1) * 30_000_000
    size = 40_000_000

    def call() -> None:
        for _ in range(2):
            first = b"\1" * size
            del first
        second, third = b"\1" * size, b"\1" * size
        del second, third

    assert peak_memory(call) == pytest.approx(2 * size, rel=0.05)
    assert len(held) == 30_000_000
