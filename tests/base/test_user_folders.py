"""Accounts without a home, and installations that they may not write to."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pipeline import cache
from pipeline.base import user_cache as user_folders
from pipeline.perplexity import joint_probabilities
from pipeline.perplexity import numba_cache as compiled_code
from tests.cache.test_cache import values, write
from tests.conftest import ROOT, note_hashed_folders


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The account's cache folder, which cannot be made, and the folder for temporary files."""
    (tmp_path / "file").touch()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("MPLCONFIGDIR", "put back at the end, whatever a test makes of it")
    monkeypatch.delenv("MPLCONFIGDIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "home" / "cache", tmp_path / "tmp"


def private(temporary: Path) -> Path:
    return temporary / f"teachercache-{os.geteuid()}"


def test_the_accounts_own_folder_comes_first(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    own, temporary = places
    monkeypatch.setenv("XDG_CACHE_HOME", str(own))
    assert user_folders.find_user_folder("notes") == own / "teachercache/notes"
    assert user_folders.find_user_folder("notes").is_dir()  # type: ignore[union-attr]
    assert list(temporary.iterdir()) == []


def test_without_it_a_private_folder_among_the_temporary_ones_does(places: tuple[Path, Path]) -> None:
    folder = private(places[1])
    for _ in range(2):
        assert user_folders.find_user_folder("notes") == folder / "notes"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_account_that_nobody_knows_has_no_home(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> Path:
        msg = "could not determine the home directory"
        raise RuntimeError(msg)

    monkeypatch.setattr(user_folders, "user_cache_path", none)
    user_folders.set_matplotlib_folder()
    assert os.environ["MPLCONFIGDIR"] == str(private(places[1]) / "matplotlib")
    assert user_folders.find_user_folder("notes") == private(places[1]) / "notes"


def test_a_home_that_nobody_knows_makes_no_folder_in_the_study(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`~` stays as it is for an account without HOME and without an entry among the accounts."""
    monkeypatch.setattr(user_folders, "user_cache_path", lambda name: Path("~/.cache", name))
    monkeypatch.chdir(tmp_path / "tmp")
    assert user_folders.find_user_folder("notes") == private(places[1]) / "notes"
    assert not (tmp_path / "tmp/~").exists()


@pytest.mark.parametrize("of", ["everybody", "somebody else", "a link", "a file"])
def test_a_folder_that_is_not_this_accounts_alone_is_not_used(
    of: str, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = private(places[1])
    if of == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif of == "a file":
        folder.touch(0o700)
    else:
        folder.mkdir(0o700)
        folder.chmod(0o777 if of == "everybody" else 0o700)
    if of == "somebody else":
        found = list(folder.lstat())
        found[stat.ST_UID] += 1
        assert not user_folders._is_private(os.stat_result(found))
        return
    assert user_folders.find_user_folder("notes") is None


@pytest.mark.parametrize(("private_is", "times"), [("made", 1), ("somebody's file", 2)])
def test_copies_are_remembered_there_and_hashed_again_where_nothing_can_be(
    private_is: str, times: int, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hashed = note_hashed_folders(monkeypatch)
    if private_is != "made":
        private(places[1]).touch()
    write(tmp_path)
    for _ in range(2):
        assert np.array_equal(cache.open(tmp_path / "dump").load(), values())
    assert hashed == ["dump"] * times


def test_matplotlib_is_given_a_folder_where_it_has_none(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file" / "config"))
    user_folders.set_matplotlib_folder()
    assert os.environ["MPLCONFIGDIR"] == str(private(places[1]) / "matplotlib")
    monkeypatch.setenv("MPLCONFIGDIR", "mine")
    user_folders.set_matplotlib_folder()
    assert os.environ["MPLCONFIGDIR"] == "mine"


def test_matplotlib_keeps_its_own_folders(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(places[0]))
    user_folders.set_matplotlib_folder()
    assert "MPLCONFIGDIR" not in os.environ
    assert not places[0].exists()


# --- compiled code ---------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", [None, "unwritable", "writable"])
def test_compiled_code_goes_where_something_can_be_written(
    variable: str | None,
    places: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen = {None: "", "unwritable": str(tmp_path / "file/x"), "writable": str(tmp_path / "mine")}[variable]
    monkeypatch.setattr(compiled_code.SETTINGS, "CACHE_DIR", chosen)
    assert compiled_code.provide_code_folder(tmp_path / "file" / "kernels.py")
    assert str(compiled_code.SETTINGS.CACHE_DIR) == (
        chosen if variable == "writable" else str(private(places[1]) / "compiled")
    )
    assert caplog.messages == []


def test_beside_its_source_it_needs_no_other_folder(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiled_code.SETTINGS, "CACHE_DIR", "")
    assert compiled_code.provide_code_folder(tmp_path / "kernels.py")
    assert compiled_code.SETTINGS.CACHE_DIR == ""
    assert list(places[1].iterdir()) == []


def test_where_nothing_can_be_kept_that_is_said(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    private(places[1]).touch()
    monkeypatch.setattr(compiled_code.SETTINGS, "CACHE_DIR", "")
    assert not compiled_code.provide_code_folder(tmp_path / "file" / "kernels.py")
    assert caplog.messages == [
        "no folder for compiled code can be written: each process compiles it; NUMBA_CACHE_DIR names one"
    ]


IN_MEMORY = """
import sys
import numpy as np
from pipeline.base import user_cache as user_folders
user_folders.is_writable, user_folders.find_user_folder = lambda _: False, lambda _: None
from pipeline.perplexity import joint_probabilities
np.save(sys.argv[2], joint_probabilities(np.load(sys.argv[1]), 20))
"""


def test_code_compiled_in_memory_gives_the_same_bits(tmp_path: Path) -> None:
    """As code from the disk: a sum whose terms are in another order would not."""
    features = np.random.default_rng(0).standard_normal((4, 50, 16))
    np.save(tmp_path / "features.npy", features)
    program = [sys.executable, "-c", IN_MEMORY, str(tmp_path / "features.npy"), str(tmp_path / "p.npy")]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("no folder for compiled code can be written")
    assert np.load(tmp_path / "p.npy").tobytes() == joint_probabilities(features, 20).tobytes()
