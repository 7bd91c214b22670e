"""What every case hands over: the times and the memory of several sides, as a record that files and pages are made of.

A module of cases has a function that yields each `Case` once it is measured, with a timing for each of its sides, all
taken in the same rounds (`runner.alternate`). `record` puts a case into a file of `results/`, where it takes the place
of an earlier one with the same key, and `read` gets them back. `goals.py` and `page.py` look cases up by their key and
sides by their names; a case that they shall show needs nothing else. `text.py` and `loading.py` record theirs in
`results/text.json` and `results/loading.json`: "tokenizing", "opening", "saving" and "importing" have their tables,
and `goals.TEXT` has the keys of those that are to reach a figure.

A side's name begins with who it is (`ours`, `peer`, or another word), and what else sets it apart follows in words:
`ours`, `ours optimized`, `ours optimized bfloat16`, `peer compiled`, `onnx`, `bert`. Standard library alone.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from runner import Spread, Timing


@dataclass
class Case:
    """One thing that several sides did in turns.

    Attributes:
        case: what they did: "forward", "training step", "tokenizing", "opening", ...
        subject: what they did it with: a family ("mobilebert"), a size of one, "fast tokenizer", "short texts".
        framework: "pt", "tf" or "".
        batch, length: texts, and tokens of each; 0 where that means nothing.
        times: each side's.
        memory: each side's bytes at the peak, or None where the system does not tell.
        flop: operations of one call of any side; 0 where they are not counted.
        products: the times of the machine's own products in the same rounds, by dtype and kind.
        difference: the largest of the float32 sides' differences from the first side's output, relative to its
            largest number.
        errors: of the sides that compute in another dtype, how far their outputs are from the first side's: the norm of
            the difference in parts of the output's.
        refused: why a side that was to be measured cannot do it, by side.
        units: examples or tokens that a call goes through, where a rate says more than a time; 0 otherwise.
        versions: of the libraries, by side.
        about: when, where and how it was measured (`surroundings`).
    """

    case: str
    subject: str
    framework: str = ""
    batch: int = 0
    length: int = 0
    times: dict[str, Timing] = field(default_factory=dict)
    memory: dict[str, int | None] = field(default_factory=dict)
    flop: int = 0
    products: dict[str, dict[str, Timing]] = field(default_factory=dict)
    difference: float | None = None
    errors: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    units: int = 0
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """What tells cases apart."""
        return self.case, self.subject, self.framework, self.batch, self.length

    def fastest(self, sides: Iterable[str]) -> str | None:
        """Return which of the sides takes the least time, or None where none of them was measured."""
        return min((side for side in sides if side in self.times), key=lambda s: self.times[s].median, default=None)

    def ratio(self, peer: str, ours: str) -> Spread:
        """Return how many times as long one side takes as another."""
        return self.times[peer].ratio_to(self.times[ours])

    def share(self, side: str, kinds: Iterable[str] | None = None) -> Spread | None:
        """Return which share of the machine's rate a side reaches: that of the fastest of the kinds of product.

        It is None where the operations are not counted, no product was measured in the side's dtype, or the side is
        another model.
        """
        if side.split()[0] == YARDSTICK:
            return None
        products = self.products.get(dtype_of(side.split()), {})
        found = [timing for kind, timing in products.items() if kinds is None or kind in kinds]
        if not self.flop or not found:
            return None
        product = min(found, key=lambda timing: timing.median)
        ratio = product.ratio_to(self.times[side])
        scale = self.flop / (PRODUCT_GFLOP * 1e9)
        return Spread(ratio.median * scale, ratio.low * scale, ratio.high * scale)

    def to_json(self) -> dict[str, Any]:
        """Return everything, with each side's median and fastest round beside its rounds."""
        found = asdict(self)
        found["seconds"] = {side: {"median": t.median, "least": t.least} for side, t in self.times.items()}
        return found

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Case:
        """Return what `to_json` was made from."""
        known = {spec.name: content[spec.name] for spec in fields(cls) if spec.name in content}
        known["times"] = _timings(known.get("times", {}))
        known["products"] = {dtype: _timings(kinds) for dtype, kinds in known.get("products", {}).items()}
        return cls(**known)


# The side of the matrices whose product is the machine's rate, and what one such product computes.
PRODUCT_SIZE = 2048
PRODUCT_GFLOP = 2 * PRODUCT_SIZE**3 / 1e9

# The side that is another model than the case's: BERT-base.
YARDSTICK = "bert"

# The word of a side that is a part of a forward pass: its dense maps alone, which bound what any other side can reach.
PART = "products"

# 8-bit integers are no dtype of a model's, but of its products.
INT8 = "int8"
DTYPES = ("bfloat16", "float16", INT8)


def dtype_of(words: Iterable[str]) -> str:
    """Return what a side computes in, from the words of its name."""
    return next((word for word in words if word in DTYPES), "float32")


def _timings(content: Mapping[str, Any]) -> dict[str, Timing]:
    return {name: Timing(tuple(timing["rounds"])) for name, timing in content.items()}


def surroundings() -> dict[str, Any]:
    """Return when, on which machine and with which command a case is measured."""
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "processor": processor(),
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def record(path: Path, case: Case) -> None:
    """Put a case into a file, in the place of one with the same key; the file is written beside it and moved."""
    cases = {known.key: known for known in read(path)} | {case.key: case}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps({"cases": [known.to_json() for known in cases.values()]}, indent=1), encoding="utf-8")
    beside.replace(path)


def read(path: Path) -> list[Case]:
    """Return the cases of a file, none where there is no such file."""
    if not path.exists():
        return []
    contents = json.loads(path.read_text(encoding="utf-8"))["cases"]
    # What was written before there was this form has no name of a case.
    return [Case.from_json(content) for content in contents if "case" in content]
