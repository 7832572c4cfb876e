"""Trainings that several processes share follow the curves of one process; so do those that were killed, or go on with
another number of processes.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from pipeline.base.errors import InputError
from pipeline.base.ranks import ALONE, Ranks
from pipeline.training.run import check_batches
from tests.cached_scene import Scene, make_scene
from tests.exact_training import options, train_in_float64
from tests.shared_training import TRAININGS, collect, train_shared
from tests.torchrun import ROOT, start_processes

MODULE = "tests.shared_training"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def scene(folder: Path) -> Scene:
    return make_scene(folder)


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    train_in_float64(monkeypatch)


def read(started: subprocess.Popen[str], out: Path) -> dict[str, Any]:
    _, errors = started.communicate(timeout=500)
    assert started.returncode == 0, errors
    found: dict[str, Any] = torch.load(out, weights_only=True)
    return found


def refuse_difference(one: list[dict[str, Any]], other: list[dict[str, Any]], name: str) -> None:
    assert len(one) == len(other) == TRAININGS[name].peers
    for its, others in zip(one, other, strict=True):
        assert len(its["history"]) == len(others["history"])
        for row, found in zip(its["history"], others["history"], strict=True):
            assert list(row) == list(found)
            for key, value in row.items():
                assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-9), (name, key)
        for key, values in its["state"].items():
            torch.testing.assert_close(others["state"][key], values, rtol=1e-8, atol=1e-8, msg=f"{name}: {key}")


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.endurance)])
def test_several_processes_follow_the_curve_of_one(scene: Scene, folder: Path, tmp_path: Path, processes: int) -> None:
    out = tmp_path / "found.pt"
    found = read(start_processes(ROOT, processes, MODULE, str(folder), ",".join(TRAININGS), str(out)), out)
    for name in TRAININGS:
        refuse_difference(collect(train_shared(scene, name, ALONE)), found[name], name)


def test_one_that_is_killed_costs_nothing_of_the_result(scene: Scene, folder: Path, tmp_path: Path) -> None:
    """torchrun starts all again; they go on from the checkpoint."""
    out, checkpoint = tmp_path / "found.pt", tmp_path / "work/checkpoint.pt"
    checkpoint.parent.mkdir()
    started = start_processes(ROOT, 2, MODULE, str(folder), "dropout", str(out), "12", str(checkpoint), restarts=1)
    wait_for(checkpoint, started)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(started.pid).children()[-1].kill()
    found = read(started, out)
    refuse_difference(collect(train_shared(scene, "dropout", ALONE, epochs=12)), found["dropout"], "dropout")


@pytest.mark.endurance
def test_another_number_of_processes_goes_on(scene: Scene, folder: Path, tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "found.pt", tmp_path / "work/checkpoint.pt"
    checkpoint.parent.mkdir()
    arguments = str(folder), "dropout", str(out), "12", str(checkpoint)
    started = start_processes(ROOT, 2, MODULE, *arguments)
    wait_for(checkpoint, started)
    for process in psutil.Process(started.pid).children(recursive=True):
        process.kill()
    started.kill()
    started.communicate()
    assert not out.exists()
    found = read(start_processes(ROOT, 3, MODULE, *arguments), out)
    refuse_difference(collect(train_shared(scene, "dropout", ALONE, epochs=12)), found["dropout"], "dropout")


def wait_for(path: Path, started: subprocess.Popen[str]) -> None:
    while not path.exists() and started.poll() is None:
        time.sleep(0.01)
    assert path.exists()


@pytest.mark.parametrize(
    ("batch", "samples", "drop_last", "sound"),
    [(5, 100, False, False), (6, 100, False, False), (6, 100, True, True), (10, 100, False, True)],
)
def test_each_process_has_two_samples_of_every_batch(batch: int, samples: int, drop_last: bool, sound: bool) -> None:
    how = options(batch_size=batch, drop_last=drop_last)
    with contextlib.nullcontext() if sound else pytest.raises(InputError, match="two for each process"):
        check_batches(nn.Linear(1, 1), samples, how, "student 's'", Ranks(0, 3))
