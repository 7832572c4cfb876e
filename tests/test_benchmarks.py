"""Benchmarks run, and their README says what their results say."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # its files are scripts and find each other there

import measurement
import readme
import study
from measurement import Goal, Result, Row, Spread

runner = importlib.import_module("benchmarks.__main__")

BENCHMARKS = (
    "engine",
    "peers",
    "cohort",
    "tuned",
    "data_path",
    "start_up",
    "study",
    "student_epoch",
    "dump",
    "perplexity",
    "cache_io",
    "cache_rows",
    "cache_open",
    "scale",
    "prepare",
    "streaming",
    "ranks",
)
TINY = {
    "engine": ["--samples", "100"],
    "peers": ["--samples", "50"],
    "cohort": ["--samples", "100"],
    "tuned": ["--samples", "10"],
    "data_path": ["--samples", "100"],
    "start_up": ["--stages", "prepare"],
    "student_epoch": ["--rows", "150"],
    "dump": ["--rows", "200", "--steps", "1"],
    "perplexity": ["--batches", "1"],
    "cache_io": ["--sizes", "1"],
    "cache_rows": ["--samples", "150"],
    "cache_open": ["--chunks", "100", "--megabytes", "2"],
    "scale": ["--samples", "200", "--views", "2"],
    "prepare": ["--images", "120"],
    "streaming": ["--rows", "2000", "--limited", "4000"],
}
RESULTS = sorted(measurement.RESULTS.glob("*.json"))


def read(path: Path) -> Result:
    return Result.model_validate_json(path.read_text())


def test_every_benchmark_has_a_result() -> None:
    assert {path.stem for path in RESULTS} >= set(BENCHMARKS)


def test_the_readmes_tables_are_those_of_the_results() -> None:
    text = readme.README.read_text()
    assert len(readme.BLOCK.findall(text)) >= len(BENCHMARKS)
    for path in readme.READMES:
        assert readme.fill(path.read_text(), measurement.RESULTS) == path.read_text(), (
            "run: python benchmarks/readme.py"
        )


def test_the_short_table_has_a_number_in_each_row() -> None:
    table = readme.make_short_table(measurement.RESULTS)
    assert len(table.splitlines()) == 2 + len(readme.SHORT)
    assert measurement.UNMEASURED not in table
    assert table in readme.READMES[1].read_text()


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    result = read(measurement.RESULTS / "student_epoch.json")
    first, *others = result.tables["epochs"]
    changed = first.model_copy(update={"values": {**first.values, "loop / ours": Spread.of([123.0])}})
    other = result.model_copy(update={"tables": {"epochs": [changed, *others]}})
    (tmp_path / "student_epoch.json").write_text(other.to_json())
    block = readme.make_block(["student_epoch.epochs"], tmp_path)
    assert len(block.splitlines()) == 2 + len(others) + 1
    assert "| 123 (123 to 123, n = 1) |" in block
    assert block != readme.make_block(["student_epoch.epochs"], measurement.RESULTS)


def test_every_table_of_every_result_is_in_the_readme() -> None:
    shown = {name for _, names, _ in readme.BLOCK.findall(readme.README.read_text()) for name in names.split()}
    names = "engine-cuda.epochs engine-cuda.live peers-cuda.epochs data_path-cuda.steps cohort-cuda.seeds tuned-cuda.epochs cache_io-cuda.device"
    on_gpu = {*names.split(), "student_epoch-cuda.epochs", "dump-cuda.times"}
    for path in RESULTS:
        tables = {f"{path.stem}.{table}" for table in read(path).tables}
        assert path.stem in shown
        assert tables & on_gpu if path.stem.endswith("-cuda") else tables <= shown
    assert on_gpu <= shown


def test_a_gpu_nobody_has_tried_is_said_to_be_unmeasured(tmp_path: Path) -> None:
    (tmp_path / "dump.json").write_text((measurement.RESULTS / "dump.json").read_text())
    block = readme.make_block(["dump.times", "dump-cuda.times"], tmp_path)
    assert "| all fields in one pass | GPU | not yet measured | not yet measured | at most 1.25 |" in block
    assert block.count("| GPU |") == block.count("| CPU |") == 6


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_names_no_host_and_no_path(path: Path) -> None:
    text = path.read_text()
    assert platform.node() not in text
    assert not re.search(r"/(home|root|tmp|usr|work|Users|mnt|opt|srv)\b", text)
    assert str(Path.home()) not in text


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_is_written_as_it_is_read(path: Path) -> None:
    result = read(path)
    assert result.to_json() == path.read_text()
    assert {"Python", "teachercache", "numpy"} <= result.versions.keys()
    assert result.machine.processor
    assert result.machine.threads["torch"] >= 1
    assert all(row.values for rows in result.tables.values() for row in rows)


def test_a_spread_is_median_ends_and_count() -> None:
    spread = Spread.of([3.0, 1.0, 2.00004, 40.0, 1.5])
    assert spread == Spread(median=2.0, least=1.0, greatest=40.0, n=5)
    assert str(spread) == "2.00 (1.00 to 40.0, n = 5)"


def test_ratios_are_taken_within_a_repeat() -> None:
    assert measurement.ratios([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == Spread(median=3.0, least=2.0, greatest=4.0, n=3)


def test_sides_are_interleaved_and_the_first_repeat_thrown_away() -> None:
    seen: list[str] = []

    def count(name: str) -> float:
        seen.append(name)
        return len(seen)

    sides = {"a": partial(count, "a"), "b": partial(count, "b")}
    assert measurement.interleave(sides, 2) == {"a": [4.0, 5.0], "b": [3.0, 6.0]}
    assert seen == ["a", "b", "b", "a", "a", "b"]
    assert measurement.interleave(sides, 1, warm_up=False) == {"a": [7.0], "b": [8.0]}


@pytest.mark.parametrize(
    ("goal", "value", "words"),
    [
        (Goal(at_most=2), 2.0, "at most 2: reached"),
        (Goal(at_most=2), 2.01, "at most 2: **not reached**"),
        (Goal(at_least=12), Spread.of([11.0, 13.0, 14.0]), "at least 12: reached"),
        (Goal(at_least=12), Spread.of([11.0, 11.5, 14.0]), "at least 12: **not reached**"),
        (Goal(at_least=12), None, "at least 12"),
    ],
)
def test_a_goal_says_whether_the_median_reaches_it(goal: Goal, value: Spread | float | None, words: str) -> None:
    assert goal.verdict(value) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0031, "0.00310"),
        (1.0, "1.00"),
        (16.84, "16.8"),
        (99.96, "100"),
        (26088.0, "26,100"),
        (7e-9, "7e-09"),
        (0.0, "0.00"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert measurement.format_number(value) == text


def test_a_column_that_a_row_lacks_is_empty_and_goals_come_last() -> None:
    rows = [
        Row(labels={"what": "a"}, values={"x": 1.0}, goal=Goal(at_most=2)),
        Row(labels={"what": "b"}, values={"x": None, "y": 5.0}),
    ]
    assert measurement.make_table(rows).splitlines() == [
        "| what | x | y | goal |",
        "| --- | --- | --- | --- |",
        "| a | 1.000 |  | at most 2: reached |",
        "| b | not yet measured | 5.000 |  |",
    ]


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_tiny_run_measures_the_same_tables(name: str, tmp_path: Path) -> None:
    command = [sys.executable, f"benchmarks/{name}.py", "--repeats", "1", "--results", str(tmp_path), *TINY[name]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tiny, full = json.loads((tmp_path / f"{name}.json").read_text()), read(measurement.RESULTS / f"{name}.json")
    assert {table: set(rows[0]["values"]) for table, rows in tiny["tables"].items()} == {
        table: set(rows[0].values) for table, rows in full.tables.items()
    }


def run_all(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_runner_knows_every_benchmark() -> None:
    files = {
        path.stem for path in (ROOT / "benchmarks").glob("*.py") if 'if __name__ == "__main__"' in path.read_text()
    }
    assert set(runner.PLANS) == set(BENCHMARKS) == files - {"__main__", "readme"}
    assert sum(plan.minutes for plan in runner.PLANS.values() if not plan.only_named) < 20


def test_one_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    (tmp_path / "good.py").write_text("import pipeline; print('measured')")
    monkeypatch.setattr(runner, "HERE", tmp_path)
    monkeypatch.setattr(runner, "PLANS", {"bad": runner.Plan(1.0), "good": runner.Plan(1.0), "long": runner.Plan(30.0)})
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert runner.main([]) == 1
    said = capfd.readouterr().out
    assert "== bad: 0 s, failed with exit code 3" in said
    assert "measured" in said
    assert "== long: left out, takes about 30 minutes" in said
    assert said.splitlines()[-1].endswith("failed: bad")
    assert runner.main(["good"]) == 0


def test_what_needs_a_folder_is_left_out_without_it() -> None:
    done = run_all("prepare", "dump", "--minutes", "0")
    assert done.returncode == 0, done.stderr
    assert "== prepare: left out, needs --photos and --before" in done.stdout
    assert "== dump: left out, takes about" in done.stdout


def test_a_benchmark_that_nobody_knows_is_refused() -> None:
    done = run_all("speed")
    assert done.returncode == 2
    assert "no benchmark 'speed'; there are engine" in done.stderr


def test_a_study_is_run_in_a_clone_and_its_stages_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[list[str], Path]] = []
    stages = [{"seconds": 2.0, "startup": 1.5}, {"seconds": 4.0, "startup": 1.0}]
    monkeypatch.setattr(study, "run_other", lambda command, folder, **_: called.append((command, folder)))
    monkeypatch.setattr(study, "list_timings", lambda _: stages)
    ((table, row),) = study.measure(".", 1)
    (clone, _), (repro, folder) = called
    assert clone[:3] == ["git", "clone", "--quiet"]
    assert (repro, folder) == (["dvc", "repro"], Path(clone[-1]))
    assert table == "repro"
    assert row.values["stages' work, s"] == Spread.of([6.0])
    assert row.values["stages' start-up, s"] == Spread.of([2.5])
    assert row.values["stages"] == Spread.of([2.0])
    assert row.goal == Goal(at_most=100)
