"""What a conversion is compared with, and what is too much memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import convert
import pytest

from isobert.conversion.checkpoint import open_checkpoint, write_checkpoint
from isobert.core.hub import resolve_file
from runner import PEAK_RESET

ON_LINUX = pytest.mark.skipif(not PEAK_RESET.exists(), reason="only Linux tells the peak of the resident memory")


def case(**changes: Any) -> convert.Case:
    fields = {"source_form": "safetensors", "to": "keras", "side": "ours", "size": 1000, "largest": 100}
    return convert.Case(**{**fields, **changes})


def test_only_ours_can_take_too_much() -> None:
    assert not case(peak=250).too_much
    assert case(peak=251).too_much
    assert not case(peak=10_000, side="peer").too_much


def test_the_middle_of_the_rounds_counts() -> None:
    assert case(seconds=[9.0, 1.0, 2.0]).median == 2.0


def test_the_table_tells_the_others_in_parts_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    convert.show(
        [
            case(seconds=[2.0], peak=300_000_000),
            case(seconds=[1.0], side="copy"),
            case(seconds=[7.0], side="peer", peak=5_000_000_000),
        ]
    )
    shown = capsys.readouterr().out
    assert "2.0 s" in shown
    assert "1.0 s (0.50)" in shown
    assert "7.0 s (3.50)" in shown
    assert "5,000 MB" in shown


@ON_LINUX
def test_a_worker_converts_and_tells_what_it_took(tmp_path: Path) -> None:
    import numpy as np

    write_checkpoint(tmp_path / "a", {"w": np.zeros((1000, 1000), np.float32)})
    for side in ("ours", "copy"):
        with convert.Worker(convert.sys.executable, Path(convert.__file__), side) as worker:
            worker.ask("prepare", to="safetensors", source_form="safetensors")
            target = tmp_path / side
            took = worker.ask(
                "convert", source=str(tmp_path / "a"), source_form="safetensors", target=str(target), to="safetensors"
            )
        assert took["seconds"] > 0
        assert resolve_file(target, "model.safetensors") is not None
        with open_checkpoint(target) as checkpoint:
            assert checkpoint.shape("w") == (1000, 1000)
