"""What is to be reached, as data: each goal names its case, the sides that it compares, and the figure.

The short form of the benchmark measures what the goals name and nothing else; `judge` says which are met.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cases import Setting
from measured import Case
from runner import Spread

Key = tuple[str, str, str, int, int]

LENGTH = 128

# A forward pass that reaches this share of the machine's own rate has nothing left to win.
ENOUGH = 0.9

OPTIMIZED = ("ours optimized", "ours optimized compiled")
KERAS = ("ours", "ours xla", "ours optimized", "ours optimized xla")
BFLOAT16 = ("ours bfloat16", "ours optimized bfloat16")
KERAS_PEER = ("peer", "peer xla")


@dataclass(frozen=True)
class Goal:
    """One figure to be reached.

    Attributes:
        title: what is measured.
        key: of the case.
        ours: the sides of ours; the fastest counts.
        peers: the sides that it is compared with; the fastest counts. None: see `of`.
        least: the ratio, the share, or the seconds.
        of: "ratio" (the peer's time to ours), "share" (of the machine's rate), or "seconds" (at most so many).
        beside: sides that are measured with them, and show what bounds the figure.
    """

    title: str
    key: Key
    ours: tuple[str, ...]
    peers: tuple[str, ...]
    least: float
    of: str = "ratio"
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What was found of a goal.

    Attributes:
        goal: which.
        ours, peer: the sides that counted; "" where there is none.
        found: the figure, with the quartiles of the rounds; None if it was not measured.
        share: of the machine's rate that ours reaches, where operations are counted.
    """

    goal: Goal
    ours: str = ""
    peer: str = ""
    found: Spread | None = None
    share: Spread | None = None

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None if it was not measured."""
        if self.found is None:
            return None
        if self.goal.of == "seconds":
            return self.found.median <= self.goal.least
        return self.found.median >= self.goal.least or self.met_by_share

    @property
    def met_by_share(self) -> bool:
        """Whether a forward pass has nothing left to win, whatever the ratio is."""
        is_forward = self.goal.key[0] == "forward" and self.goal.of == "ratio"
        return is_forward and self.share is not None and self.share.median >= ENOUGH


def _forward(family: str, framework: str, batch: int) -> Key:
    return "forward", family, framework, batch, LENGTH


def _goals() -> list[Goal]:
    eager, compiled = ("peer",), ("peer compiled",)
    goals = [
        Goal(
            "MobileBERT optimized, batch 1, against transformers 5 eager",
            *(_forward("mobilebert", "pt", 1), ("ours optimized",), eager, 1.5),
        ),
        Goal(
            "the same, against transformers 5 compiled",
            *(_forward("mobilebert", "pt", 1), OPTIMIZED, compiled, 1.2),
        ),
        Goal(
            "the same, against BERT-base of transformers 5",
            *(_forward("mobilebert", "pt", 1), ("ours optimized",), ("bert",), 4.3),
        ),
        Goal(
            "MobileBERT optimized, batch 8, share of the rate",
            *(_forward("mobilebert", "pt", 8), OPTIMIZED, (), ENOUGH, "share"),
            beside=("ours optimized products",),
        ),
    ]
    for family, title, leasts in (("squeezebert", "SqueezeBERT", (1.3, 1.3)), ("convbert", "ConvBERT", (1.25, 1.2))):
        for batch, least in zip((1, 8), leasts, strict=True):
            goals.append(
                Goal(
                    f"{title} optimized, batch {batch}, against transformers 5 eager",
                    *(_forward(family, "pt", batch), ("ours optimized",), eager, least),
                )
            )
    goals.append(
        Goal(
            "RemBERT, batch 8, share of the rate",
            *(_forward("rembert", "pt", 8), ("ours", "ours optimized"), (), ENOUGH, "share"),
        )
    )
    titles = {"mobilebert": "MobileBERT", "squeezebert": "SqueezeBERT", "convbert": "ConvBERT", "rembert": "RemBERT"}
    for family, title in titles.items():
        goals.append(
            Goal(
                f"{title} in bfloat16, batch 8, against ours in float32",
                *(_forward(family, "pt", 8), BFLOAT16, ("ours", "ours optimized"), 1.6),
            )
        )
    for family, title in titles.items():
        # Of SqueezeBERT there is no other Keras model; its twin in PyTorch stands in.
        peers = KERAS_PEER if family != "squeezebert" else ("peer pt",)
        of = "transformers 4.57.6, the better" if family != "squeezebert" else "transformers 5 in PyTorch"
        for batch, least in ((1, 1.2), (8, 1.1)):
            goals.append(
                Goal(
                    f"{title} in Keras, compiled, batch {batch}, against {of}",
                    *(_forward(family, "tf", batch), KERAS, peers, least),
                    beside=("ours products",) if family == "rembert" else (),
                )
            )
    for family, title in titles.items():
        key = "training step", family, "pt", 8, LENGTH
        goals.append(Goal(f"{title}, training step, batch 8, against transformers 5", key, ("ours",), eager, 1.2))
    goals += [
        Goal("fast tokenizer, 1,000 short texts, against transformers 5", *TEXT["fast"], 2.5),
        Goal("slow WordPiece, against transformers 4.57.6's slow", *TEXT["wordpiece"], 2.0),
        Goal("slow RemBERT tokenizer, against transformers 4.57.6's slow", *TEXT["rembert"], 2.0),
        Goal("`from_pretrained`, RemBERT of full size, against transformers 5", *TEXT["opening"], 5.0),
        Goal("`import isobert`, in seconds", *TEXT["importing"], 0.2, "seconds"),
    ]
    for framework, title, side in (("pt", "PyTorch", "transformers 5's `Trainer`"), ("tf", "Keras", "4.57.6's `fit`")):
        key = "fine-tuning", "mobilebert", framework, 32, LENGTH
        goals.append(Goal(f"a fine-tuning run in {title}, against {side}", key, ("ours",), eager, 1.5))
    return goals


# The cases that `text.py` and `loading.py` measure: key, sides of ours, sides of the peer.
TEXT: dict[str, tuple[Key, tuple[str, ...], tuple[str, ...]]] = {
    "fast": (("tokenizing", "fast WordPiece, short", "", 1000, 0), ("ours",), ("peer",)),
    "wordpiece": (("tokenizing", "slow WordPiece, short", "", 1000, 0), ("ours",), ("peer",)),
    "rembert": (("tokenizing", "slow RemBERT, short", "", 1000, 0), ("ours",), ("peer",)),
    "opening": (("opening", "rembert", "pt", 0, 0), ("ours",), ("peer",)),
    "importing": (("importing", "isobert", "", 0, 0), ("ours",), ()),
}

GOALS = _goals()


def settings_of(goals: Iterable[Goal]) -> list[Setting]:
    """Return what to measure for goals, of the cases that `cases.py` has: each case once, with all sides named."""
    sides: dict[Key, list[str]] = {}
    for goal in goals:
        if goal.key[0] in ("forward", "training step"):
            known = sides.setdefault(goal.key, [])
            known += [side for side in (*goal.ours, *goal.peers, *goal.beside) if side not in known]
    return [Setting(*key, tuple(names)) for key, names in sides.items()]


def judge(goals: Iterable[Goal], cases: Mapping[Key, Case]) -> list[Verdict]:
    """Return what was found of each goal."""
    return [_judge(goal, cases.get(goal.key)) for goal in goals]


def _judge(goal: Goal, case: Case | None) -> Verdict:
    ours = None if case is None else case.fastest(goal.ours)
    if case is None or ours is None:
        return Verdict(goal)
    share = case.share(ours)
    if goal.of == "share":
        return Verdict(goal, ours, "", share, share)
    if goal.of == "seconds":
        timing = case.times[ours]
        return Verdict(goal, ours, "", Spread(timing.median, *timing.quartiles), share)
    peer = case.fastest(goal.peers)
    if peer is None:
        return Verdict(goal, ours, "", None, share)
    return Verdict(goal, ours, peer, case.ratio(peer, ours), share)
