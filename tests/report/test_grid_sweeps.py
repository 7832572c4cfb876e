"""The sweeps of a grid: which keys have one, and which students stand where in it."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from pipeline.report.grid_sweeps import derive_sweeps
from pipeline.report.groups import group_students
from pipeline.report.metrics_pictures import PictureOptions, draw_metrics
from pipeline.study.grid import shorten_keys
from tests.report.test_figures import TEACHERS, metrics

WEIGHT, RATE = "losses.tsne.weight", "optimizer.lr"
VALUES = {"0": 0, "0_1": 0.1, "1": 1.0}


def test_one_key_is_one_sweep() -> None:
    made = derive_sweeps("kd", {f"kd-weight-{name}": {WEIGHT: value} for name, value in VALUES.items()})
    assert made.keys() == {"kd-weight"}
    assert made["kd-weight"].option == WEIGHT
    assert made["kd-weight"].values == {"kd-weight-0": 0.0, "kd-weight-0_1": 0.1, "kd-weight-1": 1.0}


def test_each_key_has_its_own_with_all_students() -> None:
    members = {
        f"kd-{number}": {WEIGHT: w, RATE: lr} for number, (w, lr) in enumerate(product((0.1, 1.0), (0.01, 0.02, 0.03)))
    }
    made = derive_sweeps("kd", members)
    assert {name: set(sweep.values.values()) for name, sweep in made.items()} == {
        "kd-weight": {0.1, 1.0}, "kd-lr": {0.01, 0.02, 0.03},
    }  # fmt: skip
    assert all(sweep.values.keys() == members.keys() for sweep in made.values())


@pytest.mark.parametrize(
    "values",
    [("adam", "sgd"), (1.0, "sgd"), (True, False), (0.5, 0.5), (-1.0, 1.0), ((8,), (16,)), (float("nan"), 1.0)],
)
def test_what_is_no_axis_has_no_sweep(values: tuple[Any, Any]) -> None:
    assert derive_sweeps("kd", {f"kd-{number}": {"key": value} for number, value in enumerate(values)}) == {}


def test_keys_are_called_by_what_tells_them_apart() -> None:
    keys = ["losses.tsne.weight", "losses.ce.weight", "optimizer.lr", "lr_schedule.optimizer.lr", "epochs"]
    assert shorten_keys(keys) == ["tsne-weight", "ce-weight", "optimizer-lr", "lr_schedule-optimizer-lr", "epochs"]


def test_a_derived_sweep_is_drawn() -> None:
    students = {f"kd-weight-{name}": metrics(0.9, 0.91) for name in VALUES}
    sweeps = derive_sweeps("kd", {f"kd-weight-{name}": {WEIGHT: value} for name, value in VALUES.items()})
    made = draw_metrics(TEACHERS, students, group_students(students, {}, "run"), {}, PictureOptions(sweeps=sweeps))
    (picture,) = [each for each in made if each.name == "sweep-kd-weight.png"]
    assert picture.png.startswith(b"\x89PNG")
    assert picture.caption.startswith("Error against losses.tsne.weight, ")
