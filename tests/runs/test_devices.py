"""What stands in cards, metrics, timings and manifests of the device that computed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import cache, runs
from pipeline.cache.rewrite import convert_cache
from pipeline.runs import dumps
from pipeline.runs.seeds import train_seeds
from pipeline.study.dump_stages import group_dumps
from pipeline.study.params_file import parse_study
from tests.base.test_device import POOLING
from tests.conftest import STUDY, Capture, Run, copied, refused, write_study


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
    computed = {"device": "cpu", "precision": "float32", "layout": None}
    assert json.loads((folder / "manifest.json").read_text())["computed"] == computed
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


def change_forward(folder: Path, dump: str, forward: Any) -> None:
    study = copied(STUDY)
    study["dumps"][dump]["forward"] = forward
    write_study(folder, study)


def test_a_dump_is_computed_as_it_says(copy_of: Path, run: Run, capsys: Capture) -> None:
    place = copy_of / "data/cache/big-logits"
    before = cache.open(place).load()
    change_forward(copy_of, "big-logits", {"precision": "bfloat16"})
    assert "forward.precision: expected bfloat16, found float32" in refused(run, capsys, copy_of, "train-student", "kd")
    assert run(copy_of, "dump-logits", "big-logits") == 0
    opened = cache.open(place)
    assert opened.manifest.computed is not None
    assert opened.manifest.computed.precision == "bfloat16"
    spread = np.abs(before).max()
    assert 0 < np.abs(opened.load().astype("f4") - before.astype("f4")).max() < 0.05 * spread
    assert run(copy_of, "train-student", "kd") == 0
    change_forward(copy_of, "big-logits", {"precision": "bfloat16", "layout": "contiguous"})
    assert "forward.layout: expected contiguous, found None" in refused(run, capsys, copy_of, "train-student", "kd")


def test_dumps_that_are_computed_otherwise_are_not_made_in_one_pass() -> None:
    study = copied(STUDY)
    study["dumps"]["half"] = {**study["dumps"]["big-logits"], "forward": {"precision": "bfloat16"}}
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "big-logits"
    passes = group_dumps(parse_study(study), ["big-logits", "half"])
    assert passes == [("big-logits",), ("half",)]


@pytest.mark.parametrize("what", ["teachers", "students", "dumps"])
def test_tf32_is_refused_without_a_gpu_that_has_it(copy_of: Path, run: Run, capsys: Capture, what: str) -> None:
    study = copied(STUDY)
    name, changed, command = {
        "teachers": ("big", {"precision": "tf32"}, "train-teacher"),
        "students": ("kd", {"precision": "tf32"}, "train-student"),
        "dumps": ("big-logits", {"forward": {"precision": "tf32"}}, "dump-logits"),
    }[what]
    study[what][name] |= changed
    write_study(copy_of, study)
    told = refused(run, capsys, copy_of, command, name, "--device", "cpu")
    assert "precision tf32: expected a GPU that has it (Ampere or later), found cpu; use float32" in told
