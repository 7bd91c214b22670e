"""What is to be reached is judged by the fastest sides, and measured by settings that name all of them."""

from __future__ import annotations

import pytest

import goals
from goals import GOALS, Goal, judge, settings_of
from measured import PRODUCT_GFLOP, Case
from runner import Timing

KEY = ("forward", "mobilebert", "pt", 1, 128)


def goal(**changes: object) -> Goal:
    fields: dict[str, object] = {
        "title": "a goal",
        "key": KEY,
        "ours": ("ours", "ours compiled"),
        "peers": ("peer", "peer compiled"),
        "least": 1.5,
    }
    return Goal(**{**fields, **changes})  # type: ignore[arg-type]


def case(share: float = 0.5, **seconds: float) -> Case:
    times = {name.replace("_", " "): Timing((value, value)) for name, value in seconds.items()}
    # The share is of the fastest side of ours.
    flop = int(share * 1e11 * min(value for name, value in seconds.items() if name.startswith("ours")))
    products = {"float32": {"PyTorch's matmul": Timing((PRODUCT_GFLOP / 100,) * 2)}}
    return Case(*KEY, times=times, flop=flop, products=products)


def verdict(of: Goal, found: Case | None) -> goals.Verdict:
    (only,) = judge([of], {} if found is None else {found.key: found})
    return only


def test_the_fastest_sides_are_compared() -> None:
    found = verdict(goal(), case(ours=2.0, ours_compiled=1.0, peer=4.0, peer_compiled=1.4))
    assert (found.ours, found.peer) == ("ours compiled", "peer compiled")
    assert found.found is not None
    assert found.found.median == pytest.approx(1.4)
    assert found.met is False


def test_a_ratio_is_reached_at_its_figure() -> None:
    assert verdict(goal(), case(ours=1.0, peer=1.5)).met is True
    assert verdict(goal(), case(ours=1.0, peer=1.49)).met is False


def test_a_forward_pass_at_nine_tenths_of_the_rate_has_nothing_left_to_win() -> None:
    assert verdict(goal(), case(share=0.91, ours=1.0, peer=1.0)).met is True
    assert verdict(goal(), case(share=0.89, ours=1.0, peer=1.0)).met is False


def test_other_cases_are_not_excused_by_their_share() -> None:
    key = ("training step", *KEY[1:])
    found = case(share=0.95, ours=1.0, peer=1.0)
    found.case = "training step"
    assert verdict(goal(key=key), found).met is False


def test_a_share_and_seconds_are_judged_by_themselves() -> None:
    assert verdict(goal(of="share", least=0.9, peers=()), case(share=0.9, ours=1.0)).met is True
    assert verdict(goal(of="share", least=0.9, peers=()), case(share=0.8, ours=1.0)).met is False
    assert verdict(goal(of="seconds", least=0.2, peers=()), case(ours=0.2)).met is True
    assert verdict(goal(of="seconds", least=0.2, peers=()), case(ours=0.21)).met is False


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert verdict(goal(), None).met is None
    assert verdict(goal(), case(ours=1.0)).met is None


def test_each_case_is_measured_once_with_all_sides_that_goals_compare() -> None:
    settings = {one.key: one.sides for one in settings_of(GOALS)}
    assert len(settings) == len(settings_of(GOALS))
    for one in GOALS:
        if one.key[0] in ("forward", "training step"):
            assert set(one.ours) | set(one.peers) <= set(settings[one.key])


def test_every_family_has_the_goals_that_all_have() -> None:
    for family in ("mobilebert", "squeezebert", "convbert", "rembert"):
        keys = [one.key for one in GOALS]
        assert ("training step", family, "pt", 8, 128) in keys
        for batch in (1, 8):
            assert ("forward", family, "tf", batch, 128) in keys
        assert any(one.key == ("forward", family, "pt", 8, 128) and "ours bfloat16" in one.ours for one in GOALS)
