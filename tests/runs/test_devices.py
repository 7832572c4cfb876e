"""What stands in cards, metrics, timings and manifests of the device that computed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from pipeline import cache, runs
from pipeline.cache.rewrite import convert_cache
from pipeline.runs import dumps
from pipeline.runs.seeds import train_seeds
from tests.base.test_device import POOLING
from tests.conftest import Run


def read(folder: Path, path: str) -> Any:
    return json.loads((folder / "data" / path).read_text())


@pytest.mark.parametrize(
    "path",
    [
        "teachers/big/card.json",
        "students/kd/seed-0/card.json",
        "metrics/teachers/big.json",
        "metrics/students/kd.json",
        "timings/train-teacher-big/timings.json",
        "timings/dump-logits-big-logits/timings.json",
        "timings/train-student-kd/timings.json",
    ],
)
def test_the_device_is_noted_and_nothing_else_of_the_machine(made: Path, path: str) -> None:
    assert read(made, path)["device"] == "cpu"
    assert "nondeterministic" not in read(made, path)


def test_a_stage_that_chooses_no_device_notes_none(made: Path) -> None:
    assert "device" not in read(made, "timings/prepare-digits/timings.json")


def test_a_manifest_says_how_it_was_computed(made: Path, tmp_path: Path) -> None:
    folder = made / "data/cache/big-logits"
    opened = cache.open(folder)
    assert json.loads((folder / "manifest.json").read_text())["computed"] == {"device": "cpu", "precision": "float32"}
    converted = convert_cache(opened, tmp_path / "hdf5", tmp_path / "work", store="hdf5")
    assert converted.computed == opened.manifest.computed


def test_a_cache_of_another_device_is_another_cache_of_the_same_values(
    copy_of: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache.open(copy_of / "data/cache/big-logits").manifest
    monkeypatch.setattr(dumps, "describe_device", lambda _: "cuda (Card 5)")
    assert run(copy_of, "dump-logits", "big-logits") == 0
    after = cache.open(copy_of / "data/cache/big-logits").manifest
    assert after.computed is not None
    assert after.computed.device == "cuda (Card 5)"
    assert (after.values, after.files.keys()) == (before.values, before.files.keys())
    assert after.root != before.root
    assert run(copy_of, "train-student", "kd") == 0  # who reads it has no expectation of the device


def test_what_differs_each_time_stands_in_the_cards(
    copy_of: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*about: Any, **how: Any) -> Any:
        for _ in range(3):
            warnings.warn(POOLING, stacklevel=1)
        return train_seeds(*about, **how)

    monkeypatch.setattr("pipeline.runs.students.train_seeds", train)
    capsys.readouterr()
    assert run(copy_of, "train-student", "kd", "--device", "cpu") == 0
    for card in (copy_of / "data/students/kd").rglob("card.json"):
        assert json.loads(card.read_text())["nondeterministic"] == ["adaptive_avg_pool2d_backward_cuda"]
    assert runs.open_study(copy_of / "params.yaml").students["kd"].seeds == len(
        [*(copy_of / "data/students/kd").rglob("card.json")]
    )
