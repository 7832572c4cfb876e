"""Precisions and layouts are timed, and what is faster is told in lines for params.yaml."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline import runs
from pipeline.runs import tunings
from pipeline.training.run import Run as Training
from pipeline.training.stack import Stack
from pipeline.training.step_times import StepTime
from tests.conftest import STUDY, Capture, Run, copied, write_study

CONV = {**STUDY["students"]["kd"], "model": {"name": "cnn"}, "seeds": 1}


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """The study with a student that has convolutions, one whose layout is stated, and an ensemble."""
    there = Path(shutil.copytree(made, tmp_path / "study"))
    study = copied(STUDY)
    study["students"] |= {"conv": copied(CONV), "stated": {**copied(CONV), "layout": "contiguous"}}
    study["teachers"] |= {"second": copied(STUDY["teachers"]["big"]), "both": {"members": ["big", "second"]}}
    return write_study(there, study)


def tune(folder: Path, name: str) -> Mapping[str, Any]:
    return runs.time_choices(runs.open_study(folder / "params.yaml"), name, "cpu", steps=2, repeats=2).values


def choices(found: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    return [(each["precision"], each["layout"]) for each in found["choices"]]


def list_files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("name", "present"), [("conv", "channels_last"), ("stated", "contiguous")])
def test_convolutions_have_layouts_and_the_present_one_comes_first(folder: Path, name: str, present: str) -> None:
    found = tune(folder, name)
    assert found["present"] == {"precision": "float32", "layout": present, "compile": False}
    assert choices(found)[0] == ("float32", present)
    both = ("contiguous", "channels_last")
    assert sorted(choices(found)) == sorted((kind, layout) for kind in ("float32", "bfloat16") for layout in both)
    assert all(0 < each["low_ms"] <= each["median_ms"] <= each["high_ms"] for each in found["choices"])


@pytest.mark.parametrize("name", ["kd", "baseline", "big"])
def test_other_networks_have_precisions_alone(folder: Path, name: str) -> None:
    assert choices(tune(folder, name)) == [("float32", None), ("bfloat16", None)]


def test_a_layout_that_is_stated_without_convolutions_is_no_choice(folder: Path) -> None:
    study = copied(STUDY)
    study["students"]["kd"]["layout"] = "channels_last"
    write_study(folder, study)
    found = tune(folder, "kd")
    assert found["present"] == {"precision": "float32", "layout": None, "compile": False}
    assert choices(found) == [("float32", None), ("bfloat16", None)]


def test_each_choice_is_trained_as_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[tuple[str, bool], int] = {}
    real = Training.run_steps

    def watch(run: Training) -> None:
        network = run.trainees[0].network
        key = (
            network.precision,
            any(tunings._is_channels_last(each) for each in network.parameters() if each.dim() == 4),
        )
        seen[key] = seen.get(key, 0) + 1
        assert run.options.count_steps(run.epoch, len(run.order)) == 2
        real(run)

    monkeypatch.setattr(Training, "run_steps", watch)
    tune(folder, "conv")
    assert seen == {(kind, last): 3 for kind in ("float32", "bfloat16") for last in (True, False)}


@pytest.mark.parametrize(("name", "notes"), [("kd", (tunings.TOGETHER,)), ("conv", ())])
def test_a_note_says_where_training_itself_takes_another_path(folder: Path, name: str, notes: tuple[str, ...]) -> None:
    assert runs.time_choices(runs.open_study(folder / "params.yaml"), name, "cpu", steps=1, repeats=2).notes == notes


def test_nothing_is_written(folder: Path) -> None:
    before = list_files(folder)
    tune(folder, "conv")
    assert list_files(folder) == before


def test_a_choice_that_fails_is_told_in_its_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch, run: Run, capsys: Capture
) -> None:
    real = Training.run_steps

    def fail(run: Training) -> None:
        if run.trainees[0].network.precision == "bfloat16":
            raise RuntimeError("no such kernel\nat line 3")
        real(run)

    monkeypatch.setattr(Training, "run_steps", fail)
    assert run(folder, "tune", "kd", "--steps", "1", "--repeats", "2", "--json", "--device", "cpu") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["choices"][1] == {
        "precision": "bfloat16",
        "layout": None,
        "compile": False,
        "failure": "no such kernel",
    }
    assert found["fastest"] is None
    assert run(folder, "tune", "kd", "--steps", "1", "--repeats", "2", "--device", "cpu") == 0
    assert "fails: no such kernel" in " ".join(capsys.readouterr().out.split())


def test_numbers_that_are_not_finite_are_a_failure_and_no_choice_left_is_refused(
    folder: Path, run: Run, capsys: Capture
) -> None:
    study = copied(STUDY)
    study["students"]["kd"]["optimizer"] = {"name": "sgd", "lr": 1e30}
    write_study(folder, study)
    assert run(folder, "tune", "kd", "--device", "cpu") == 2
    assert "students.kd: every choice fails; the present one: student 'kd'" in capsys.readouterr().err


def test_the_fastest_is_told_in_lines_for_the_parameters(
    folder: Path, monkeypatch: pytest.MonkeyPatch, run: Run, capsys: Capture
) -> None:
    def measure(timed: Mapping[tunings.Choice, Any], _: int) -> dict[tunings.Choice, StepTime]:
        fast = tunings.Choice("bfloat16", "contiguous")
        return {key: StepTime(0.002, 0.001, 0.003) if key == fast else StepTime(0.01, 0.009, 0.011) for key in timed}

    monkeypatch.setattr(tunings, "measure_steps", measure)
    assert run(folder, "tune", "conv", "--device", "cpu") == 0
    told = capsys.readouterr().out
    assert told.endswith(
        "the fastest, 5.00 times as fast; in params.yaml, under students.conv:\n"
        f"  precision: bfloat16\n  layout: contiguous\n{tunings.NOTE}\n"
    )
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in told.splitlines() if line.startswith("│")]
    assert rows[0] == ["float32", "channels_last", "-", "10", "9 to 11", "1.00", "present"]
    assert ["bfloat16", "contiguous", "-", "2", "1 to 3", "0.20", "fastest"] in rows


def test_each_choice_is_timed_compiled_too(
    folder: Path, run: Run, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, timed = Stack.run_steps, []

    def watch(stack: Stack) -> None:
        timed.append(stack.first.network.precision)
        real(stack)

    monkeypatch.setattr(Stack, "run_steps", watch)
    capsys.readouterr()
    arguments = ("--compile", "--steps", "1", "--repeats", "2", "--json", "--device", "cpu")
    assert run(folder, "tune", "baseline", *arguments) == 0
    found = json.loads(capsys.readouterr().out)["choices"]
    assert [(each["precision"], each["compile"]) for each in found] == [
        *(("float32", False), ("float32", True), ("bfloat16", False), ("bfloat16", True))
    ]
    assert sorted(timed) == ["bfloat16"] * 3 + ["float32"] * 3
    assert all(each["median_ms"] > 0 for each in found)


def test_a_compiled_network_is_told_what_is_faster_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch, run: Run, capsys: Capture
) -> None:
    study = copied(STUDY)
    study["students"]["kd"]["compile"] = True
    write_study(folder, study)

    def measure(timed: Mapping[tunings.Choice, Any], _: int) -> dict[tunings.Choice, StepTime]:
        return {key: StepTime(0.01, 0.009, 0.011) if key.compile else StepTime(0.002, 0.001, 0.003) for key in timed}

    monkeypatch.setattr(tunings, "measure_steps", measure)
    assert run(folder, "tune", "kd", "--device", "cpu") == 0
    assert "\n  precision: float32\n  compile: false\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nobody", "params.yaml: students: unknown name 'nobody'"),
        ("both", "teacher 'both': expected one that is trained here"),
        ("kd --steps 0", "--steps"),
        ("kd --repeats 1", "--repeats"),
        ("kd --device tpu", "--device"),
    ],
)
def test_what_is_refused(run: Run, capsys: Capture, folder: Path, arguments: str, message: str) -> None:
    assert run(folder, "tune", *arguments.split()) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""


@pytest.mark.parametrize("missing", ["data/cache/big-logits", "data/prepared"])
def test_what_is_missing_is_told_as_training_tells_it(run: Run, capsys: Capture, folder: Path, missing: str) -> None:
    shutil.rmtree(folder / missing)
    assert run(folder, "tune", "kd", "--device", "cpu") == 2
    told = capsys.readouterr().err
    assert run(folder, "train-student", "kd", "--device", "cpu") == 2
    assert capsys.readouterr().err == told
