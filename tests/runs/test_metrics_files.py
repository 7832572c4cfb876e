"""Metrics files that somebody has edited are refused by their key, wherever they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Capture, Run, refused

EDITS: list[tuple[str, Any, str]] = [
    ("test_accuracy", "x", "test_accuracy"),
    ("test_accuracy", {"mean": 0.5}, "test_accuracy.std"),
    ("test_accuracy", {"mean": [1], "std": None, "n": 1}, "test_accuracy.mean"),
    ("weights_sha256", [], "weights_sha256"),
    ("weights_sha256", [3], "weights_sha256.0"),
]
OF_REPORTS: list[tuple[str, Any, str]] = [
    ("losses", ["ce"], "losses"),
    ("pretrain", [{"ce": 1}], "pretrain.0.ce"),
    ("test_accuracy_per_seed", [], "test_accuracy_per_seed"),
    ("consumed", None, "consumed"),
    ("parameters", {}, "parameters"),
]


def edit(folder: Path, path: str, key: str, value: Any) -> None:
    file = folder / "data/metrics" / path
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))


@pytest.mark.parametrize("command", ["cost", "report"])
@pytest.mark.parametrize(("key", "value", "place"), EDITS)
def test_a_students_file_is_refused_by_its_key(
    run: Run, capsys: Capture, copy_of: Path, command: str, key: str, value: Any, place: str
) -> None:
    edit(copy_of, "students/kd.json", key, value)
    told = refused(run, capsys, copy_of, *([command, "kd"] if command == "cost" else [command]))
    assert f"data/metrics/students/kd.json: {place}: expected" in told
    assert "train-student" in told


@pytest.mark.parametrize(("key", "value", "place"), OF_REPORTS)
def test_so_is_what_the_report_alone_reads(
    run: Run, capsys: Capture, copy_of: Path, key: str, value: Any, place: str
) -> None:
    edit(copy_of, "students/kd.json", key, value)
    assert f"data/metrics/students/kd.json: {place}: expected" in refused(run, capsys, copy_of, "report")


def test_a_teachers_file_is_refused_as_well(run: Run, capsys: Capture, copy_of: Path) -> None:
    edit(copy_of, "teachers/big.json", "test_accuracy", {"mean": 0.5})
    assert "data/metrics/teachers/big.json: test_accuracy: expected" in refused(run, capsys, copy_of, "report")


def test_a_file_where_a_folder_belongs_is_told_in_one_line(run: Run, capsys: Capture, copy_of: Path) -> None:
    (copy_of / "data/students").rename(copy_of / "aside")
    (copy_of / "data/students").write_text("a file")
    told = refused(run, capsys, copy_of, "train-student", "kd", "--device", "cpu")
    assert "data/students" in told
    assert "move away what is in its place" in told
