"""The page is written from the results, region by region, and nothing else of it is touched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bench
import page
import plots
import tables
from cases import CASES, Setting, config_of
from flops import forward_flop
from goals import GOALS, settings_of
from measured import Case, record
from runner import Timing


def measured(setting: Setting) -> Case:
    """Return a case of which each further side takes 10 ms more."""
    case = Case(*setting.key)
    config = config_of(setting.case, setting.subject)
    case.flop = CASES[setting.case].passes * forward_flop(config, setting.batch, setting.length)
    case.times = {side: Timing((0.01 * n, 0.01 * n)) for n, side in enumerate(setting.sides, 1)}
    case.memory = dict.fromkeys(setting.sides, 5000000)
    case.products = {dtype: {"PyTorch's matmul": Timing((0.1, 0.1))} for dtype in ("float32", "bfloat16", "float16")}
    case.about = {"date": "2026-01-01", "command": "bench.py", "gpu": "a card"}
    return case


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> page.Results:
    """Every case that the page shows."""
    folder = tmp_path_factory.mktemp("results")
    settings = [one for one in bench.full_settings() if one.case != "forward" or one.subject.startswith("mobilebert")]
    for one in settings:
        record(folder / f"{one.case}.json", measured(one))
    for one in bench.gpu_settings()[:3]:
        record(folder / "gpu.json", measured(one))
    for one in bench.int8_settings()[:2]:
        record(folder / "int8.json", measured(one))
    for one in settings_of(GOALS)[:2]:
        record(folder / "goals.json", measured(one))
    return page.results_of(folder)


def write(text: str, results: page.Results, folder: Path) -> str:
    (folder / "page.md").write_text(text, encoding="utf-8")
    page.write_page(results, folder / "page.md")
    return (folder / "page.md").read_text(encoding="utf-8")


def region(name: str, body: str = "old\n") -> str:
    return f"<!-- results: {name} -->\n{body}<!-- end -->\n"


def test_the_page_has_every_region_once_and_each_can_be_written() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert sorted(page.names(text)) == sorted(page.REGIONS)
    assert text.count("<!-- results: ") == len(page.REGIONS)


def test_what_stands_outside_the_regions_stays(results: page.Results, tmp_path: Path) -> None:
    written = write(f"before\n{region('training')}between\n{region('goals')}after\n", results, tmp_path)
    assert written.startswith("before\n<!-- results: training -->\n| case |")
    assert "<!-- end -->\nbetween\n<!-- results: goals -->\n| goal |" in written
    assert written.endswith("<!-- end -->\nafter\n")
    assert "old" not in written


def test_writing_again_changes_nothing(results: page.Results, tmp_path: Path) -> None:
    text = "".join(map(region, page.REGIONS))
    once = write(text, results, tmp_path)
    assert write(once, results, tmp_path) == once


def test_a_region_without_results_stays_as_it_is(tmp_path: Path) -> None:
    text = "".join(map(region, page.REGIONS))
    assert write(text, page.results_of(tmp_path / "none"), tmp_path) == text


def test_pictures_are_drawn_where_the_page_looks_for_them(results: page.Results, tmp_path: Path) -> None:
    written = write(region("forward-pt") + region("forward-tf") + region("lines"), results, tmp_path)
    pictures = re.findall(r"\]\((images/.*?)\)", written)
    assert len(pictures) == 5
    for picture in pictures:
        assert (tmp_path / picture).stat().st_size < 200_000


def test_one_point_is_no_line(tmp_path: Path) -> None:
    case = measured(Setting("forward", "mobilebert", "pt", 1, 128, ("ours",)))
    assert plots.against(tmp_path / "a.png", [case], "length") is None
    assert plots.sizes(tmp_path / "a.png", [case]) is None
    assert not (tmp_path / "a.png").exists()


def test_a_goal_that_was_not_measured_says_so(results: page.Results) -> None:
    rows = page.goal_rows(results)
    assert len(rows) == len(GOALS)
    assert rows[0][0] == "MobileBERT optimized, batch 1, against transformers 5 eager"
    assert rows[0][2].startswith("2.00 (2.00 to 2.00)")  # its sides take 10 and 20 ms
    assert any(row[2] == "not measured" for row in rows)


def test_the_goals_are_judged_by_the_short_forms_cases_first(tmp_path: Path) -> None:
    (first, *_) = settings_of(GOALS)
    record(tmp_path / "goals.json", measured(first))
    slower = measured(first)
    slower.times["peer"] = Timing((9.0, 9.0))
    record(tmp_path / "forward.json", slower)
    assert page.goal_rows(page.results_of(tmp_path))[0][2].startswith("2.00")


def test_a_ratio_tells_how_many_times_as_long_the_yardstick_takes() -> None:
    case = Case("forward", "a", times={"ours": Timing((1.0,)), "peer": Timing((3.0,)), "peer compiled": Timing((2.0,))})
    assert tables.time_cell(case, "ours") == "1.00 s<br>3.00x"
    assert tables.time_cell(case, "peer compiled") == "2.00 s<br>1.50x"
    assert tables.time_cell(case, "peer") == "3.00 s"
    assert tables.time_cell(case, "ours", "peer compiled") == "1.00 s<br>2.00x"


def test_a_rate_stands_beside_the_time_where_units_are_counted() -> None:
    case = Case("fine-tuning", "a", "pt", 32, 128, times={"ours": Timing((2.0,))}, units=1000)
    assert "2.00 s (500 a second)" in tables.rows([case])
    assert "fine-tuning, a, 32 x 128, PyTorch" in tables.rows([case])


def test_integers_stand_beside_the_first_side_with_their_errors() -> None:
    times = {"ours optimized": Timing((1.0,)), "ours int8": Timing((0.25,))}
    case = Case("forward", "a", "pt", 1, 8, times=times, errors={"ours int8": 0.0123})
    assert "| a, 1 x 8 | 1.00 s | 250.0 ms<br>4.00x<br>error 0.012 |" in tables.integers([case])


def test_what_integers_change_is_told_of_each_model() -> None:
    sides = {"float32": {"accuracy": 0.9}, "bfloat16": {"accuracy": 0.9}, "int8": {"accuracy": 0.85}}
    content = {"a model": {"examples": 20, "sides": sides, "changed": {"float32": 0, "bfloat16": 0, "int8": 1}}}
    assert "| a model | 20 | 90.00% | 90.00% | 85.00% | 0 | 1 |" in tables.int8_accuracy(content)


def test_what_could_not_be_run_is_told() -> None:
    case = Case("forward", "a", batch=1, length=8, refused={"onnx": "ValueError: no"})
    assert "- a, 1 x 8, onnx: `ValueError: no`" in tables.refused([case])
    assert tables.refused([Case("forward", "a")]) == ""


def test_times_have_a_unit_that_suits_them() -> None:
    assert [tables.seconds(value) for value in (2.5, 0.0123, 4e-5)] == ["2.50 s", "12.3 ms", "40 us"]


def test_memorys_table_is_in_parts_of_the_models_own_size() -> None:
    def case(head: str, side: str, action: str, ratio: float) -> dict[str, object]:
        size = 4_000_000_000
        peak = ratio * size
        return {
            "head": head,
            "framework": "pt",
            "side": side,
            "action": action,
            "size": size,
            "ratio": ratio,
            "peak": peak,
            "private": peak if side == "ours" else 0.0,
        }

    actions = ("create", "save", "open")
    content = {
        "versions": {"peer pt": {"transformers": "5"}},
        "cases": [case(h, s, a, 1.0 if s == "ours" else 2.0) for h in "AB" for s in ("ours", "peer") for a in actions],
    }
    written = tables.memory(content)
    assert "| PyTorch, ours | 1.00 / 1.00 | 1.00 / 1.00 | 1.00 / 1.00 |" in written
    assert "| transformers 5 | 2.00 / 2.00 (mapped) |" in written
