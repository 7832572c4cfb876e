"""Which repository, and whose code, a study lies in."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pipeline.base.errors import InputError

OURS = ("pipeline", "stages")  # the packages of this distribution


def find_repository(folder: Path) -> Path | None:
    """The nearest folder at or above with a `.git`, or None."""
    folder = folder.resolve()
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)


def is_own_checkout(folder: Path) -> bool:
    """Whether a folder is a checkout of this project."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return project == "teachercache" and all((folder / package / "__init__.py").is_file() for package in OURS)


def refuse_other_code(folder: Path) -> None:
    """Raise InputError in a checkout of this project while another one's code runs.

    Its stages would depend on files that do not decide what they make.
    """
    folder, running = folder.resolve(), Path(__file__).resolve().parents[2]
    if folder == running or not is_own_checkout(folder) or read_sources(folder) == read_sources(running):
        return
    raise InputError(
        str(folder),
        expected="the code of this checkout, on which its stages depend",
        found=f"other code running, from {running}",
        fix="run `pip install -e .` here, or set PYTHONPATH to this folder",
    )


def read_sources(checkout: Path) -> dict[str, bytes]:
    """The source files of our packages, by their paths in a checkout."""
    files = (file for package in OURS for file in (checkout / package).rglob("*.py"))
    return {file.relative_to(checkout).as_posix(): file.read_bytes() for file in files}
