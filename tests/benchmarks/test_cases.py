"""The cases' own arithmetic, their inputs and their settings; and one small case, run with ours alone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import bench
import cases
from cases import CASES, Setting, checked, config_of, family_of, framework_of, who, write_inputs
from measured import read, record
from runner import BenchmarkError

EVERY_SETTING = [*bench.full_settings(), *bench.gpu_settings()]


def test_a_difference_is_relative_to_the_largest_number() -> None:
    assert checked(np.array([1.0, -4.999]), np.array([1.0, -5.0]), "") == pytest.approx(2e-4)


@pytest.mark.parametrize("found", [[1.0, -4.9], [1.0, np.nan], [1.0, -5.0, 0.0]])
def test_another_models_output_ends_the_case(found: list[float]) -> None:
    with pytest.raises(BenchmarkError, match="convbert, tf, peer: the output"):
        checked(np.array(found), np.array([1.0, -5.0]), "convbert, tf, peer")


@pytest.mark.parametrize("case", ["forward", "training step", "masked-LM step", "generating"])
def test_inputs_are_the_same_each_time_and_legal(case: str, tmp_path: Path) -> None:
    config = config_of("forward", "convbert-small")
    for name in ("a.npz", "b.npz"):
        write_inputs(tmp_path / name, case, config, batch=3, length=50)
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        assert all(np.array_equal(a[name], b[name]) for name in a)
        assert a["input_ids"].shape == (3, 50)
        assert 0 <= a["input_ids"].min() <= a["input_ids"].max() < config.vocab_size
        assert ("token_type_ids" in a) is (case != "generating")
        if case == "training step":
            assert a["labels"].shape == (3,)
        if case == "masked-LM step":
            counted = a["labels"] != -100
            assert 0 < counted.mean() < 0.4
            assert np.array_equal(a["labels"][counted], a["input_ids"][counted])


def test_a_size_belongs_to_its_family_and_a_family_is_its_first_size() -> None:
    assert family_of("convbert-small") == family_of("convbert") == "convbert"
    assert config_of("forward", "convbert").to_dict() == config_of("forward", "convbert-base").to_dict()
    assert config_of("forward", "rembert").num_hidden_layers == 32


def test_a_model_can_be_cut() -> None:
    assert config_of("training step", "rembert").num_hidden_layers == 8
    assert config_of("training step", "rembert", layers=2).num_hidden_layers == 2
    assert config_of("generating", "rembert").is_decoder


def test_a_side_says_who_it_is_and_where_it_computes() -> None:
    assert (who("peer pt"), framework_of("peer pt", "tf")) == ("peer", "pt")
    assert (who("ours optimized"), framework_of("ours optimized", "tf")) == ("ours", "tf")


def test_every_setting_is_of_a_case_and_each_is_asked_for_once() -> None:
    for settings in (bench.full_settings(), bench.gpu_settings()):
        assert len({one.key for one in settings}) == len(settings)
    assert {one.case for one in EVERY_SETTING} == set(CASES)
    for one in EVERY_SETTING:
        assert family_of(one.subject) in bench.FAMILIES
        assert one.sides[0] == "ours"


def test_squeezebert_has_no_peer_in_tensorflow_but_the_one_in_pytorch() -> None:
    for one in bench.full_settings():
        if one.framework == "tf":
            assert ("peer" in one.sides) is (one.subject != "squeezebert")
            assert ("peer pt" in one.sides) is (one.subject == "squeezebert")


def test_options_choose_among_the_settings() -> None:
    chosen = bench.options(
        [
            "--short",
            "--subjects",
            "mobilebert",
            "--frameworks",
            "pt",
            "--batches",
            "1",
            "--sides",
            "ours optimized",
            "bert",
        ]
    )
    (only,) = bench.settings(chosen)
    assert only == Setting("forward", "mobilebert", "pt", 1, 128, ("ours optimized", "bert"))


def test_counts_must_be_positive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.options(["--rounds", "0"])
    assert "0 is not positive" in capsys.readouterr().err


def test_an_unknown_subject_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.options(["--subjects", "bert"])
    assert "'bert' is no family and no size of one" in capsys.readouterr().err


def test_without_a_gpu_the_run_for_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench.py", "--gpu"])
    with pytest.raises(SystemExit, match="sees no GPU on this machine"):
        bench.main()


def small(arguments: list[str]) -> tuple[cases.Bench, list[str]]:
    options = [*arguments, "--layers", "1", "--rounds", "1", "--seconds", "0", "--threads", "1"]
    return cases.Bench(bench.options(options), Console(quiet=True)), options


def test_a_case_is_measured_recorded_and_read_back(tmp_path: Path) -> None:
    run, _ = small([])
    setting = Setting("forward", "convbert-small", "pt", 2, 16, ("ours", "ours bfloat16"))
    (case,) = run.run([setting])
    assert run.failures == []
    assert set(case.times) == {"ours", "ours bfloat16"} == set(case.memory)
    assert set(case.products) == {"float32", "bfloat16"}
    assert len(case.products["float32"]) == 3  # whichever framework is measured, of the fastest of all
    assert case.difference == 0.0
    assert case.share("ours") is not None
    assert case.versions["ours pt"].keys() == {"isobert", "torch"}
    record(tmp_path / "found.json", case)
    assert read(tmp_path / "found.json") == [case]


def test_what_another_dtype_rounds_is_told() -> None:
    run, _ = small([])
    setting = Setting("forward", "convbert-small", "pt", 2, 16, ("ours", "ours bfloat16", "ours int8"))
    (case,) = run.run([setting])
    error = case.errors["ours bfloat16"]
    assert 1e-4 < error < 0.1
    if "ours int8" in case.times:
        assert error != case.errors["ours int8"]
        assert 1e-4 < case.errors["ours int8"] < 0.1
    else:
        assert "AVX-512 VNNI" in case.refused["ours int8"]


def test_a_training_step_changes_no_other_side() -> None:
    run, _ = small([])
    setting = Setting("training step", "convbert-small", "pt", 2, 16, ("ours", "ours bfloat16"))
    (case,) = run.run([setting])
    assert run.failures == []
    assert case.difference == 0.0
    assert case.flop == 3 * cases.forward_flop(config_of("forward", "convbert-small", 1), 2, 16)


def test_a_side_that_cannot_be_run_is_told_and_the_others_go_on() -> None:
    run, _ = small([])
    # No checkpoint of a classifier can write words.
    setting = Setting("generating", "convbert-small", "pt", 1, 8, ("ours",))
    assert list(run.run([setting])) == []
    assert len(run.failures) == 1
    assert "generating, convbert-small" in run.failures[0]


def test_what_fails_within_one_side_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = small([])
    monkeypatch.setitem(CASES, "attention", cases.What("part", arguments={"name": "encoder.layer.9"}))
    (case,) = run.run([Setting("attention", "convbert-small", "pt", 1, 8, ("ours",))])
    assert case.times == {}
    assert "AttributeError" in case.refused["ours"]
    assert run.failures == [f"attention, convbert-small, pt, ours: {case.refused['ours']}"]
