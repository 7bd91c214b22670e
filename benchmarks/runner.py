"""What every benchmark needs: workers in interpreters of their own, turns taken side by side, and statistics.

A case starts one worker for each library. A worker builds its model once and then works only when it
is told to, so that one interpreter at a time uses the machine. The sides take turns, round by round: what else the
machine does, or how warm it is, meets all of them alike. Peers' interpreters import this file too, so it needs the
standard library alone.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

Name = TypeVar("Name", bound=Hashable)

# A process's own: writing 5 sets the peak of its resident set back to what is resident now (man 5 proc).
PEAK_RESET = Path("/proc/self/clear_refs")

# Until the threads of the side before have stopped waiting for more work, they use the processor.
SETTLING_SECONDS = 0.02


class BenchmarkError(RuntimeError):
    """A benchmark cannot be run, or its sides do not compute the same."""


# In the worker.


def serve(actions: Mapping[str, Callable[..., Any]]) -> None:
    """Answer requests until there are no more.

    A request is a line of JSON on stdin, `{"action": name, ...arguments}`; its answer is a line of JSON on stdout. What
    libraries print goes to stderr instead. An exception ends the worker, with its traceback on stderr.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(actions[request.pop("action")](**request)), file=answers, flush=True)


# What a first call misses (caches that other workers have used, a clock that has slowed down) is over sooner than this.
WARM_SECONDS = 1.0


def timed(call: Callable[[], Any], seconds: float, least: int = 2) -> list[float]:
    """Return the seconds that each of several calls took: at least `least` of them, until `seconds` are over.

    A call before them is not counted: it brings the caches back that other workers have used. Where that call alone
    takes longer than `WARM_SECONDS`, that is no matter, and it is the one that counts.
    """
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    if first > max(WARM_SECONDS, seconds):
        return [first]
    took: list[float] = []
    start = now = time.perf_counter()
    while len(took) < least or now - start < seconds:
        before = now
        call()
        now = time.perf_counter()
        took.append(now - before)
    return took


def peak_memory(call: Callable[[], Any], times: int = 3) -> int | None:
    """Return the bytes that a call needs beyond what is resident before it, or None where the system does not tell.

    It is the median of several calls after a first one: what that sets up and keeps (threads, compiled kernels) is not
    what a call needs. Before each, the memory that the allocator holds on to is handed back, since a call that is given
    it again would seem to need none; how much of it can be handed back is what differs from call to call, by little
    where a call needs much: one that takes longer than `WARM_SECONDS` is made once.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None or not PEAK_RESET.exists():
        return None
    start = time.perf_counter()
    call()
    is_slow = time.perf_counter() - start > WARM_SECONDS
    peaks = []
    for _ in range(1 if is_slow else times):
        gc.collect()
        trim(0)
        before = resident("VmRSS")
        PEAK_RESET.write_text("5")
        call()
        peaks.append(max(resident("VmHWM") - before, 0))
    return int(statistics.median(peaks))


def resident(field: str) -> int:
    """Return a field of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise BenchmarkError(f"/proc/self/status has no {field}.")


# In the parent.


# glibc's settings by which a process keeps memory that it has freed, up to the largest blocks that it keeps at all.
KEEP_FREED = {"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TOP_PAD_": str(2**29)}


def environment(threads: int, *, legacy_keras: bool = False, device: str = "cpu") -> dict[str, str]:
    """Return the variables that a worker is started with.

    Args:
        threads: that it computes with.
        legacy_keras: for the peer's TensorFlow classes, which are Keras 2's.
        device: "cpu" hides what else there is.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_USE_LEGACY_KERAS": "1" if legacy_keras else "0",
        "HF_HUB_OFFLINE": "1",
        **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}),
    }


class Worker:
    """A script in a process of its own that `serve`s requests; a context manager that ends it.

    Args:
        interpreter: the Python that runs it.
        script: which calls `serve`.
        arguments: of the script.
        environment: variables that are set for it, beyond the parent's.

    Raises:
        BenchmarkError: there is no such interpreter.
    """

    def __init__(
        self, interpreter: str | Path, script: Path, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = " ".join([script.name, *arguments])
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  it is open for as long as the worker lives
        try:
            self._process = subprocess.Popen(
                [str(interpreter), str(script), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        except FileNotFoundError:
            self._stderr.close()
            raise BenchmarkError(f"{interpreter} does not exist: `make bench` installs it.") from None

    def ask(self, action: str, **arguments: Any) -> Any:
        """Have an action done and return its answer; both must be JSON.

        Raises:
            BenchmarkError: the worker has ended instead; the message has the last of what it wrote to stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"action": action, **arguments}), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            status = self._process.wait()
            self._stderr.seek(0)
            last = "".join(self._stderr.readlines()[-20:])
            raise BenchmarkError(f"{self.name}: {action} ended with status {status}:\n{last}")
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it may have ended before it had read all
            self._process.stdin.close()
        if exception[0] is not None:
            self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._stderr.close()


def alternate(turns: Mapping[Name, Callable[[], Sequence[float]]], rounds: int) -> dict[Name, Timing]:
    """Let each side take one turn in every round, and return each side's times.

    Every other round runs in the opposite order, so that no side always follows the same one.

    Args:
        turns: for each side's name, what measures some of its calls, in seconds.
        rounds: how many there are.
    """
    measured: dict[Name, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        for name in list(turns)[:: 1 if number % 2 == 0 else -1]:
            time.sleep(SETTLING_SECONDS)
            measured[name].append(statistics.median(turns[name]()))
    return {name: Timing(tuple(medians)) for name, medians in measured.items()}


@dataclass(frozen=True)
class Spread:
    """The middle of several numbers, and how far they lie apart.

    Attributes:
        median: the middle, or another figure that stands for all.
        low: the lower quartile.
        high: the upper quartile.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Timing:
    """One side's times.

    Attributes:
        rounds: the median of each round's calls, in seconds.
    """

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def least(self) -> float:
        """The fastest round."""
        return min(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The rounds' quartiles."""
        return quartiles(self.rounds)

    def ratio_to(self, other: Timing) -> Spread:
        """Return how many times as long this side takes as another: of the medians, and the rounds' quartiles."""
        low, high = quartiles([mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True)])
        return Spread(self.median / other.median, low, high)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the lower and the upper quartile; of a single value, that value twice."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high
