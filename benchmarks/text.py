"""Text to numbers: our tokenizers beside transformers', on the same texts and vocabularies, with the same ids.

    python benchmarks/text.py --peer .peers-5/bin/python --tf-peer .peers/bin/python

The texts are sentences of Python's language reference; WordPiece and Unigram vocabularies are learned from them. Fast
tokenizers are compared with transformers 5's, and with the `tokenizers` library alone ("tokenizers"), which turns texts
into rows without padding, and no rows into arrays; slow ones with transformers 4.57.6's, the last that has any. Each
side is this script again, as a worker: `text.py ours|peer|tokenizers`. The results are `measured.Case`s in
`results/text.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measured import Case, record, surroundings
from runner import BenchmarkError, Worker, alternate, environment, serve, timed

RESULTS = Path(__file__).parent / "results" / "text.json"
LEARNED, TEXTS, LONG_TEXTS, LONG_CHARACTERS = 1500, 1000, 40, 20_000
PADDED = {"padding": True, "return_tensors": "np"}
WINDOWS = {
    "max_length": 128,
    "truncation": True,
    "stride": 32,
    "return_overflowing_tokens": True,
    "return_offsets_mapping": True,
    "padding": "max_length",
    "return_tensors": "np",
}


@dataclass(frozen=True)
class Job:
    """What a case has a tokenizer do.

    Attributes:
        family: whose tokenizer, "mobilebert" (WordPiece) or "rembert" (Unigram).
        texts: which: "short", "pairs" or "long".
        arguments: of the call.
        slow: whether the tokenizer is one in Python.
        framework: whose tensors are asked for, if NumPy's are not.
    """

    family: str
    texts: str
    arguments: Mapping[str, Any] = field(default_factory=lambda: PADDED)
    slow: bool = False
    framework: str = ""


JOBS = {
    "fast WordPiece, short": Job("mobilebert", "short"),
    "fast WordPiece, short, PyTorch": Job("mobilebert", "short", {**PADDED, "return_tensors": "pt"}, framework="pt"),
    "fast WordPiece, short, TensorFlow": Job("mobilebert", "short", {**PADDED, "return_tensors": "tf"}, framework="tf"),
    "fast WordPiece, short, lists": Job("mobilebert", "short", {}),
    "fast WordPiece, pairs": Job("mobilebert", "pairs"),
    "fast WordPiece, long": Job("mobilebert", "long", {**PADDED, "verbose": False}),
    "fast WordPiece, windows of long": Job("mobilebert", "long", WINDOWS),
    "fast RemBERT, short": Job("rembert", "short"),
    "slow WordPiece, short": Job("mobilebert", "short", slow=True),
    "slow WordPiece, long": Job("mobilebert", "long", {**PADDED, "verbose": False}, slow=True),
    "slow RemBERT, short": Job("rembert", "short", slow=True),
    "slow RemBERT, long": Job("rembert", "long", {**PADDED, "verbose": False}, slow=True),
}


# In the worker.


class Side:
    """A tokenizer and a call of it.

    Args:
        who: "ours", "peer", or "tokenizers", which is what ours asks of that library.
    """

    def __init__(self, who: str) -> None:
        self.who = who
        self.call: Callable[[], Any] = lambda: None

    def about(self) -> dict[str, str]:
        """Return the versions of the libraries."""
        return {name: version(name) for name in ("transformers" if self.who == "peer" else "isobert", "tokenizers")}

    def choose(self, folder: str, texts: str, slow: bool, arguments: dict[str, Any]) -> str | None:
        """Open a tokenizer and return a digest of the ids of a call, which is to be timed next."""
        if self.who == "peer":
            from transformers import AutoTokenizer
        else:
            from isobert import AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=not slow)
        first, second = json.loads(Path(texts).read_text(encoding="utf-8"))
        if self.who == "tokenizers":
            samples = first if second is None else list(zip(first, second, strict=True))
            self.call = partial(tokenizer.backend_tokenizer.encode_batch, samples)
            return None
        self.call = partial(tokenizer, first, second, **arguments)
        ids = self.call()["input_ids"]
        if not isinstance(ids, list):
            ids = (ids if hasattr(ids, "tolist") else ids.numpy()).tolist()
        return hashlib.sha256(json.dumps(ids).encode()).hexdigest()

    def time(self, seconds: float) -> list[float]:
        """Return the seconds that calls took."""
        return timed(self.call, seconds)


# In the parent.


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peer", default=".peers-5/bin/python", help="interpreter with transformers 5 (%(default)s)")
    add("--tf-peer", default=".peers/bin/python", help="one with TensorFlow and transformers 4.57.6 (%(default)s)")
    add("--subjects", nargs="+", choices=JOBS, default=list(JOBS), metavar="NAME", help=f"of {'; '.join(JOBS)}")
    add("--texts", type=int, default=TEXTS, metavar="N", help="short texts of a call (%(default)s)")
    add("--rounds", type=int, default=9, metavar="N", help="turns that each side takes (%(default)s)")
    add("--seconds", type=float, default=0.4, metavar="S", help="length of a turn, of two calls at least (%(default)s)")
    add("--threads", type=int, default=2, metavar="N", help="threads of each side (%(default)s)")
    add("--no-peer", action="store_true", help="measure ours alone")
    add("--json", type=Path, default=RESULTS, metavar="FILE", help="where the results go (benchmarks/results)")
    return parser.parse_args(arguments)


def prepare(folder: Path, count: int) -> dict[str, int]:
    """Write the texts and both families' tokenizers for every side to open; return how many texts there are of each."""
    import isobert
    from isobert.tokenization.train import train_unigram, train_wordpiece
    from training import sentences

    learned = [row["text"] for row in sentences(LEARNED)]
    short = (learned * (1 + count // len(learned)))[:count]
    running = " ".join(learned)
    places = [index * 7919 % max(1, len(running) - LONG_CHARACTERS) for index in range(LONG_TEXTS)]
    long = [running[place : place + LONG_CHARACTERS] for place in places]
    chosen = {"short": (short, None), "pairs": (short, short[::-1]), "long": (long, None)}
    for name, pair in chosen.items():
        (folder / f"{name}.json").write_text(json.dumps(pair), encoding="utf-8")
    vocabulary = train_wordpiece(learned, 30_000, min_frequency=1)
    isobert.MobileBertTokenizerFast(vocab=vocabulary).save_pretrained(folder / "mobilebert")
    isobert.RemBertTokenizerFast(model=train_unigram(learned, 6_000)).save_pretrained(folder / "rembert")
    for family in ("mobilebert", "rembert"):
        (folder / family / "config.json").write_text(json.dumps({"model_type": family}), encoding="utf-8")
    return {name: len(first) for name, (first, _) in chosen.items()}


def measure(chosen: argparse.Namespace) -> Iterator[Case]:
    """Yield each case once it is measured."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        counts = prepare(folder, chosen.texts)
        workers: dict[tuple[str, str], Worker] = {}

        def worker(who: str, interpreter: str) -> Worker:
            if (who, interpreter) not in workers:
                variables = environment(chosen.threads, legacy_keras=who == "peer")
                started = Worker(interpreter, Path(__file__), who, environment=variables)
                workers[who, interpreter] = stack.enter_context(started)
            return workers[who, interpreter]

        for subject in chosen.subjects:
            job = JOBS[subject]
            sides = {"ours": worker("ours", sys.executable)}
            # transformers' fast RemBERT finds other pieces than SentencePiece, which is the truth.
            if not chosen.no_peer and (job.slow or job.family != "rembert"):
                # transformers 5 has neither slow tokenizers nor TensorFlow.
                old = job.slow or job.framework == "tf"
                sides["peer"] = worker("peer", chosen.tf_peer if old else chosen.peer)
            if not job.slow and job.family == "mobilebert" and not job.framework:
                sides["tokenizers"] = worker("tokenizers", sys.executable)
            case = Case("tokenizing", subject, job.framework, counts[job.texts], units=counts[job.texts])
            case.about = surroundings() | {"threads": chosen.threads}
            digests = set()
            for side, one in sides.items():
                about = {"texts": str(folder / f"{job.texts}.json"), "slow": job.slow, "arguments": dict(job.arguments)}
                digests.add(one.ask("choose", folder=str(folder / job.family), **about))
                case.versions[side] = one.ask("about")
            if len(digests - {None}) > 1:
                raise BenchmarkError(f"{subject}: the sides find different ids.")
            turns = {side: partial(one.ask, "time", seconds=chosen.seconds) for side, one in sides.items()}
            case.times = alternate(turns, chosen.rounds)
            yield case


def main() -> None:
    if len(sys.argv) == 2 and sys.argv[1] in ("ours", "peer", "tokenizers"):
        side = Side(sys.argv[1])
        serve({name: getattr(side, name) for name in ("about", "choose", "time")})
        return
    chosen = options()
    if os.getloadavg()[0] > 0.5:
        print(f"The machine is busy (load {os.getloadavg()[0]:.1f}): times will be too long, and ratios unsure.")
    try:
        for case in measure(chosen):
            record(chosen.json, case)
            times = ", ".join(f"{side} {timing.median * 1e3:.1f} ms" for side, timing in case.times.items())
            ratio = case.ratio("peer", "ours") if "peer" in case.times else None
            told = f"; ours is {ratio.median:.2f} times as fast ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else ""
            print(f"{case.subject}, {case.batch} texts: {times}{told}", flush=True)
    except BenchmarkError as error:
        sys.exit(f"text.py: error: {error}")


if __name__ == "__main__":
    main()
