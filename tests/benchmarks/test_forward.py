"""The case's own arithmetic: shares of the machine's rate, differences, and what is reported of a missing peer."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import forward
import gemm
from runner import BenchmarkError, Timing


def case(**changes: object) -> forward.Case:
    fields: dict[str, object] = {
        "family": "mobilebert",
        "framework": "tf",
        "part": "",
        "batch": 8,
        "length": 128,
        "flop": 50_000_000_000,
        "times": {
            "ours": Timing((0.5, 0.5)),
            "peer": Timing((1.0, 1.0)),
            "PyTorch's matmul": Timing((gemm.GFLOP / 100,)),
            "oneDNN's convolution": Timing((gemm.GFLOP / 200,)),
        },
        "memory": {"ours": 1_000_000, "peer": 9_000_000},
        "difference": 2e-7,
    }
    return forward.Case(**{**fields, **changes})  # type: ignore[arg-type]


def shown(found: forward.Case) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(forward.table_of([found]))
    return console.export_text()


def test_the_share_is_of_the_fastest_kind_of_product() -> None:
    assert case().rate == pytest.approx(200e9)
    # 50 GFLOP in half a second are 100 GFLOP/s.
    assert case().share("ours") == pytest.approx(0.5)
    assert case().share("peer") == pytest.approx(0.25)


def test_a_product_of_2048_cubed_is_counted_with_its_additions() -> None:
    assert pytest.approx(17.18, abs=0.01) == gemm.GFLOP


def test_the_table_shows_both_sides() -> None:
    text = shown(case())
    for figure in ("500.0 ms", "1000.0 ms", "2.00", "50% of the rate", "25% of the rate", "1 MB", "9 MB", "50.0 GFLOP"):
        assert figure in text


def test_without_a_peer_or_memory_the_table_has_dashes() -> None:
    alone = case(times={k: t for k, t in case().times.items() if k != "peer"}, memory={"ours": None})
    assert "500.0 ms" in shown(alone)
    assert shown(alone).count(" - ") == 4


def test_a_difference_is_relative_to_the_largest_number() -> None:
    assert forward.checked(np.array([1.0, -4.999]), np.array([1.0, -5.0]), "") == pytest.approx(2e-4)


@pytest.mark.parametrize("found", [[1.0, -4.9], [1.0, np.nan], [1.0, -5.0, 0.0]])
def test_another_models_output_ends_the_run(found: list[float]) -> None:
    with pytest.raises(BenchmarkError, match="convbert, tf, peer: the output"):
        forward.checked(np.array(found), np.array([1.0, -5.0]), "convbert, tf, peer")


def test_the_report_is_json_and_holds_every_round() -> None:
    chosen = forward.options(["--families", "mobilebert", "--json", "out.json"])
    benchmark = forward.Benchmark(chosen, Console())
    found = json.loads(json.dumps(forward.report([case()], benchmark, 0.1)))
    (only,) = found["cases"]
    assert only["times"]["ours"] == {"rounds": [0.5, 0.5]}
    assert only["seconds"]["peer"] == {"median": 1.0, "least": 1.0}
    assert only["peer_over_ours"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert only["share"] == {"ours": pytest.approx(0.5), "peer": pytest.approx(0.25)}
    assert found["gflop_per_second"] == {"PyTorch's matmul": 100, "oneDNN's convolution": 200}


def test_counts_must_be_positive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        forward.options(["--rounds", "0"])
    assert "0 is not positive" in capsys.readouterr().err


def test_inputs_are_the_same_each_time_and_legal(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        forward.write_inputs(tmp_path / name, vocab_size=50, batch=3, length=7)
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        assert sorted(a) == ["attention_mask", "input_ids", "token_type_ids"]
        assert all(np.array_equal(a[name], b[name]) for name in a)
        assert a["input_ids"].shape == (3, 7)
        assert 0 <= a["input_ids"].min() <= a["input_ids"].max() < 50


def test_every_family_with_models_has_a_formula() -> None:
    namespace = forward.options([])
    assert isinstance(namespace, argparse.Namespace)
    assert namespace.families == [name for name, family in forward.FAMILIES.items() if family.heads]
