"""Stages under torchrun: one output, one line, the results of one process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from tests.conftest import STUDY, Run, copied, write_study
from tests.scenes import tree
from tests.torchrun import start_processes

GRID = {
    **STUDY["students"]["kd"],
    "seeds": 1,
    "grid": {"losses.soft_targets.weight": [0.25, 0.5, 1.0]},
}


def launch(folder: Path, processes: int, stage: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    device = () if stage == "prepare" else ("--device", "cpu")
    started = start_processes(folder, processes, f"stages.{stage}", *arguments, *device)
    told, errors = started.communicate(timeout=300)
    return subprocess.CompletedProcess(started.args, started.returncode, told, errors)


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def compare_weights(one: Path, other: Path) -> None:
    expected, found = load_file(one), load_file(other)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        assert float((found[name] - values).abs().max()) < 1e-5, name


def test_a_teacher_is_trained_by_two_as_by_one(copy_of: Path) -> None:
    place, before = copy_of / "data/teachers/big", copy_of / "before"
    shutil.copytree(place, before)
    shutil.rmtree(place)
    done = launch(copy_of, 2, "train_teacher", "big")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert list_files(place) == list_files(before)
    compare_weights(before / "weights.safetensors", place / "weights.safetensors")


@pytest.mark.parametrize("kind", ["grid", pytest.param("seeds", marks=pytest.mark.endurance)])
def test_runs_are_spread_over_processes(copy_of: Path, run: Run, kind: str) -> None:
    study: dict[str, Any] = copied(STUDY)
    study["students"]["swept"] = copied(GRID)
    write_study(copy_of, study)
    name = {"seeds": "kd", "grid": "swept"}[kind]
    assert run(copy_of, "train-student", name, "--device", "cpu") == 0
    students, metrics = copy_of / "data/students", copy_of / "data/metrics/students"
    names = [path.name for path in students.iterdir() if path.name.startswith(name)]
    before = copy_of / "before"
    shutil.copytree(students, before)
    expected = {each: json.loads((metrics / f"{each}.json").read_text()) for each in names}
    for each in names:
        shutil.rmtree(students / each)
        (metrics / f"{each}.json").unlink()
    done = launch(copy_of, 2, "train_student", name)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(names)
    for each in names:
        found = json.loads((metrics / f"{each}.json").read_text())
        assert found["test_accuracy"] == expected[each]["test_accuracy"]
        assert found.keys() == expected[each].keys()
        assert list_files(students / each) == list_files(before / each)
        for weights in (before / each).rglob("weights.safetensors"):
            compare_weights(weights, students / each / weights.relative_to(before / each))


def test_what_is_wrong_is_told_and_nothing_is_written(copy_of: Path) -> None:
    shutil.rmtree(copy_of / "data/prepared")
    before = list_files(copy_of / "data")
    done = launch(copy_of, 2, "train_student", "kd")
    assert done.returncode != 0
    told = {line for line in done.stderr.splitlines() if line.startswith("error: ")}
    assert len(told) == 1
    assert "prepare" in told.pop()
    assert list_files(copy_of / "data") == before


def test_a_stage_of_one_process_is_refused_by_several(copy_of: Path) -> None:
    before = list_files(copy_of / "data")
    done = launch(copy_of, 2, "prepare", "digits")
    assert done.returncode != 0
    assert "prepare-digits: expected one process, found 2" in done.stderr
    assert "Traceback" not in done.stderr.split("ChildFailedError")[0].split("torch/distributed")[0]
    assert list_files(copy_of / "data") == before


@pytest.mark.endurance
def test_two_machines_meet_again_where_a_process_of_one_has_died(copy_of: Path) -> None:
    """Two torchruns, each of which counts restarts for itself: one counts the death, the other a change of members."""
    before = tree(copy_of / "data/cache/big-logits")
    shutil.rmtree(copy_of / "data/cache/big-logits")
    port = 29_000 + os.getpid() % 1000
    agents = [start_agent(copy_of, port) for _ in range(2)]
    while not [*(copy_of / ".work").rglob("blocks-*")]:
        assert agents[0].poll() is agents[1].poll() is None
        time.sleep(0.01)
    psutil.Process(agents[1].pid).children()[0].kill()
    for agent in agents:
        _, errors = agent.communicate(timeout=200)
        assert agent.returncode == 0, errors
    assert tree(copy_of / "data/cache/big-logits") == before


def start_agent(folder: Path, port: int) -> subprocess.Popen[str]:
    meeting = ("--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-id", "x", "--rdzv-endpoint", f"localhost:{port}")
    return start_processes(folder, 1, "stages.dump", "big", "--device", "cpu", where=meeting, restarts=3)
