"""What was measured comes back from its file as it was, and its ratios and shares are what they are said to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from measured import PRODUCT_GFLOP, Case, dtype_of, read, record
from runner import Timing


def case(**changes: object) -> Case:
    fields: dict[str, object] = {
        "case": "forward",
        "subject": "mobilebert",
        "framework": "pt",
        "batch": 8,
        "length": 128,
        "flop": 50_000_000_000,
        "times": {
            "ours": Timing((0.5, 0.5)),
            "ours bfloat16": Timing((0.25, 0.25)),
            "peer": Timing((1.0, 1.0)),
            "bert": Timing((2.0, 2.0)),
        },
        "memory": {"ours": 1_000_000, "peer": None},
        "products": {
            "float32": {
                "PyTorch's matmul": Timing((PRODUCT_GFLOP / 100,) * 2),
                "oneDNN's convolution": Timing((PRODUCT_GFLOP / 200,) * 2),
            },
            "bfloat16": {"PyTorch's matmul": Timing((PRODUCT_GFLOP / 400,) * 2)},
        },
        "difference": 2e-7,
        "versions": {"ours pt": {"isobert": "1"}},
        "refused": {"onnx": "RuntimeError: no"},
        "about": {"date": "2026-01-01", "command": "bench.py"},
    }
    return Case(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_product_of_2048_cubed_is_counted_with_its_additions() -> None:
    assert pytest.approx(17.18, abs=0.01) == PRODUCT_GFLOP


def test_the_share_is_of_the_fastest_kind_of_product_in_the_sides_dtype() -> None:
    # 50 GFLOP in half a second are 100 GFLOP/s, of 200.
    assert case().share("ours").median == pytest.approx(0.5)
    assert case().share("peer").median == pytest.approx(0.25)
    # 200 GFLOP/s of 400.
    assert case().share("ours bfloat16").median == pytest.approx(0.5)


def test_another_model_or_an_uncounted_case_has_no_share() -> None:
    assert case().share("bert") is None
    assert case(flop=0).share("ours") is None
    assert case(products={}).share("ours") is None


def test_the_fastest_side_is_found_among_those_that_were_measured() -> None:
    assert case().fastest(("peer", "ours", "peer compiled")) == "ours"
    assert case().fastest(("onnx",)) is None


def test_a_sides_dtype_is_a_word_of_its_name() -> None:
    assert dtype_of(["ours", "optimized", "bfloat16"]) == "bfloat16"
    assert dtype_of(["ours", "optimized"]) == "float32"


def test_a_case_comes_back_from_its_file(tmp_path: Path) -> None:
    record(tmp_path / "new" / "found.json", case())
    (back,) = read(tmp_path / "new" / "found.json")
    assert back == case()


def test_a_case_takes_the_place_of_an_earlier_one_with_its_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    record(path, case())
    record(path, case(batch=1))
    record(path, case(times={"ours": Timing((9.0,))}))
    assert [(one.batch, one.times["ours"].median) for one in read(path)] == [(8, 9.0), (1, 0.5)]


def test_a_file_that_is_not_there_has_no_cases(tmp_path: Path) -> None:
    assert read(tmp_path / "nothing.json") == []
