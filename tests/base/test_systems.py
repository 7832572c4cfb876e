"""What a system without POSIX's own modules needs: reading caches, training and predicting go without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from pipeline.cache import folder
from tests.conftest import ROOT, warm_python
from tests.test_house import imports

SOURCES = sorted(path for room in ("pipeline", "stages") for path in (ROOT / room).rglob("*.py"))
MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
NAMES = ("O_NOFOLLOW", "getloadavg", "link", "sched_getaffinity", "statvfs")

# `os` and the modules as they are on Windows; what the libraries do with them here is loaded before, ours is not.
WITHOUT = f"""
import os, sys
import dvc.api, dvclive, filelock, h5py, numba, numcodecs, platformdirs, psutil, torch, torchvision
for name in {MODULES!r}:
    sys.modules[name] = None  # which is how Python says that there is no such module
for name in {NAMES!r}:
    delattr(os, name)
for name in list(sys.modules):
    if name.partition(".")[0] in ("pipeline", "stages"):
        del sys.modules[name]
sys.path.append({str(ROOT)!r})
from stages import cli
"""
READ = """
from pipeline import cache
print(cache.open("data/cache/big-logits").rows([4, 0, 7]).shape)
"""
RUN = """
import stages.main
cli.main(stages.main.app)
"""


def without(place: Path, program: str, *arguments: str) -> str:
    done = warm_python(place, "-c", WITHOUT + program, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_of_posix_alone_is_imported(path: Path) -> None:
    assert not imports(path) & set(MODULES)


def test_caches_are_read_and_students_trained_and_asked_without_posix(copy_of: Path) -> None:
    assert without(copy_of, READ) == "(3, 10)\n"
    weights = copy_of / "data/students/kd/seed-0/weights.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    without(copy_of, RUN, "train-student", "kd")
    assert weights.read_bytes() == before
    Image.new("L", (8, 8)).save(copy_of / "black.png")
    assert "black.png" in without(copy_of, RUN, "predict", "kd", "black.png")


def test_links_and_folders_are_no_files_on_a_system_that_cannot_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"a\r\nb\x1a")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    monkeypatch.delattr(os, "O_NOFOLLOW")
    monkeypatch.setattr(folder, "REGULAR_FILE_FLAGS", 0)
    with folder.open_regular_file(tmp_path / "file") as file:
        assert file.read() == b"a\r\nb\x1a"
    for other in (tmp_path, tmp_path / "link"):
        with pytest.raises(IsADirectoryError):
            folder.open_regular_file(other)
    with pytest.raises(FileNotFoundError):
        folder.open_regular_file(tmp_path / "nothing")
