"""One writer at a time, on file systems with locks and without them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.base.files import hold_lock
from tests.conftest import ROOT, Capture, Run, refused, write_study

fcntl = pytest.importorskip("fcntl")
NO_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]
HELD = "expected no other writer, found a running process that writes the same output; wait for it to end, or stop it"
KILLED = """
import fcntl, os, signal, sys
from pathlib import Path
from pipeline.base.files import hold_lock
def failing(*_):
    raise OSError(int(sys.argv[2]), "none here")
if int(sys.argv[2]):
    fcntl.flock = failing
with hold_lock(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let flock(2) fail from now on, with this number."""

    def fail(number: int) -> None:
        def failing(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", failing)

    return fail


def test_a_second_writer_is_refused_and_a_later_one_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "new" / "work.lock"
    with hold_lock(path), pytest.raises(InputError) as second, hold_lock(path):
        pass
    assert str(second.value) == f"{path}: {HELD}"
    with hold_lock(path):
        assert caplog.messages == []


@pytest.mark.parametrize("number", NO_LOCKS, ids=errno.errorcode.get)
def test_a_file_stands_for_a_lock_where_there_is_none(
    number: int, tmp_path: Path, without: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    path, stand_in = tmp_path / "work.lock", tmp_path / "work.lock.held"
    without(number)
    with hold_lock(path):
        assert caplog.messages == [
            f"no file locks in {tmp_path} ({os.strerror(number)}): work.lock.held stands for one"
        ]
        assert stand_in.exists()
        with pytest.raises(InputError) as second, hold_lock(path):
            pass
    assert str(second.value) == (
        f"{path}: {HELD}; where none runs (one was killed on another machine), delete {stand_in}"
    )
    assert len(caplog.messages) == 1
    assert not stand_in.exists()
    with hold_lock(path):
        pass


@pytest.mark.parametrize("number", [0, *NO_LOCKS])
def test_a_killed_process_holds_nothing(
    number: int, tmp_path: Path, without: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "work.lock"
    program = [sys.executable, "-c", KILLED, str(path), str(number)]
    killed = subprocess.run(program, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "work.lock.held").exists() == bool(number)
    if number:
        without(number)
    with hold_lock(path):
        pass
    assert not (tmp_path / "work.lock.held").exists()


def test_a_stand_in_of_another_machine_is_respected(tmp_path: Path, without: Callable[[int], None]) -> None:
    (tmp_path / "work.lock.held").write_text("1\nanother-machine\n")
    without(errno.ENOLCK)
    with (
        pytest.raises(InputError, match=r"killed on another machine\), delete .*work\.lock\.held"),
        hold_lock(tmp_path / "work.lock"),
    ):
        pass


def test_an_error_that_is_no_missing_lock_is_not_hidden(tmp_path: Path, without: Callable[[int], None]) -> None:
    without(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"), hold_lock(tmp_path / "work.lock"):
        pass


def test_the_work_may_be_removed_while_its_lock_is_held(tmp_path: Path, without: Callable[[int], None]) -> None:
    for number in (0, errno.ENOSYS):
        if number:
            without(number)
        with hold_lock(tmp_path / "work" / "lock"):
            for path in (tmp_path / "work").iterdir():
                path.unlink()
            (tmp_path / "work").rmdir()
        assert not (tmp_path / "work").exists()


def test_a_stage_runs_without_locks(run: Run, capsys: Capture, tmp_path: Path, without: Callable[[int], None]) -> None:
    write_study(
        tmp_path, {"datasets": {"d": {"source": "digits", "train": {"first": 20}}}, "teachers": {}, "students": {}}
    )
    without(errno.ENOLCK)
    assert run(tmp_path, "prepare", "d") == 0
    assert "note: no file locks in .work" in capsys.readouterr().err
    with hold_lock(tmp_path / ".work/prepare-d.lock"):
        error = refused(run, capsys, tmp_path, "prepare", "d")
    assert "delete .work/prepare-d.lock.held" in error
