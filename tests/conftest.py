"""What the tests share: one thread a process, a tiny study, and the commands as functions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # two test processes share two cores
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="teachercache-tests-")  # the user's own is left alone
os.environ["DVC_TEST"] = "1"  # asks nobody for a newer version, and reports to nobody

import pytest
import torch
from hypothesis import settings
from ruamel.yaml import YAML

from pipeline.cache import content_check, damage, remote_errors
from pipeline.cache.folder import LocalFolder
from stages import cli
from tests.warm import Programs

# The same examples at every run. Before a change of what they are about: pytest --hypothesis-profile=explore
settings.register_profile("tests", max_examples=60, derandomize=True, database=None, deadline=None)
settings.register_profile("explore", max_examples=3000, database=None, deadline=None, print_blob=True)
settings.load_profile("tests")

ROOT = Path(__file__).resolve().parent.parent

STUDY: dict[str, Any] = {
    "seed": 0,
    "cache": {"format": "zarr", "dtype": "float32"},
    "datasets": {"digits": {"source": "digits", "train": {"first": 200}, "validation": {"first": 100}}},
    "teachers": {"big": {"model": {"name": "mlp", "widths": [16]}, "epochs": 2, "batch_size": 50}},
    "dumps": {"big-logits": {"field": "logits", "of": "big", "batch": 64}},
    "students": {
        "baseline": {
            "model": {"name": "mlp", "widths": [8]}, "epochs": 2, "batch_size": 50, "seeds": 2, "losses": {"ce": {}},
        },
        "kd": {
            "model": {"name": "mlp", "widths": [8]}, "epochs": 2, "batch_size": 50, "seeds": 2,
            "losses": {"ce": {"weight": 0.5}, "soft_targets": {"weight": 0.5, "temperature": 4.0}},
        },
    },
}  # fmt: skip


# The longest files come first, so that no process is left with one when all else is done.
LONG = (
    "test_servers",
    "test_kill",
    "test_dvc",
    "test_export",
    "test_hostile",
    "test_commands",
    "test_sealing",
    "test_docs",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_unconfigure() -> None:
    if programs.cache_info().currsize:
        programs().close()
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers in trouble are tried as often as ever, and at once."""
    monkeypatch.setattr(remote_errors, "PAUSES", (0.0,) * len(remote_errors.PAUSES))


@pytest.fixture
def study() -> dict[str, Any]:
    """A small valid study as plain values, to be changed at will."""
    made: dict[str, Any] = copied(STUDY)
    return made


def copied(value: Any) -> Any:
    """A deep copy of plain values."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def sweep(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Parameters of a test: those of `quick` in every run, the others where `pytest -m exhaustive` asks for them."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.exhaustive) for value in values]


def write_study(folder: Path, study: dict[str, Any]) -> Path:
    """Write a study's params.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(study, file)
    return folder


Run = Callable[..., int]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a `teachercache` command in this process; returns its exit code."""
    from stages.main import app

    path = list(sys.path)
    before = Path.cwd()

    def call(folder: Path, *arguments: str) -> int:
        os.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["teachercache", *arguments])
        try:
            cli.main(app)
        except SystemExit as stop:
            return int(stop.code or 0)
        finally:
            with suppress(PermissionError):  # a test may be another user for a while
                os.chdir(before)
        return 0

    yield call
    sys.path[:] = path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder with everything made: data, teacher, cache, students."""
    folder = tmp_path_factory.mktemp("made") / "study"
    write_study(folder, STUDY)
    for command in (
        "prepare digits", "train-teacher big", "dump-logits big-logits", "train-student baseline", "train-student kd",
    ):  # fmt: skip
        shell(folder, f"teachercache {command}")
    return folder


@pytest.fixture
def copy_of(made: Path, tmp_path: Path) -> Path:
    """A copy of `made` that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


@cache
def programs() -> Programs:
    """The programs that `shell` starts."""
    folder = Path(os.environ["XDG_CACHE_HOME"], "programs")
    folder.mkdir()
    return Programs(folder)


def shell(folder: Path, command: str, **variables: str) -> str:
    """Run a shell command, `teachercache` and `dvc` as forks of a warm process; its output, both streams."""
    done = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": programs().path, **variables},
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"{command}\n{output}"
    return output


def warm_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `python -c` or `-m` does, as a fork of a warm process: not for what is about imports."""
    return subprocess.run(
        [programs().folder / "python", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def refused(run: Run, capsys: Capture, folder: Path, *command: str) -> str:
    """The one line on standard error of a command that must exit with 2."""
    capsys.readouterr()
    assert run(folder, *command) == 2
    said = capsys.readouterr().err.splitlines(keepends=True)
    error = "".join(line for line in said if not line.startswith("note: on cuda"))  # which GPU was chosen, where one is
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


def note_hashed_folders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on, the name of each cache's folder whose files are hashed in full."""
    hashed: list[str] = []

    def note(folder: LocalFolder, *arguments: Any) -> Iterator[content_check.ChangedFile]:
        hashed.append(folder.path.name)
        return content_check.find_changed_files(folder, *arguments)

    monkeypatch.setattr(damage, "find_changed_files", note)
    return hashed
