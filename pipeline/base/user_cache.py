"""Folders for what saves time when it is kept, and decides no result: compiled code, fonts, notes of checked copies."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from platformdirs import user_cache_path, user_config_path


def find_user_folder(name: str) -> Path | None:
    """Return a folder of this name in the account's cache folder, else in a private one for temporary files.

    None where neither can be written: an account without a home, and a full or read-only temporary folder.
    """
    return _make_account_folder(name) or _make_temporary_folder(name)


def is_writable(folder: Path) -> bool:
    """Make a folder, and try whether a file can be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def set_matplotlib_folder() -> None:
    """Name a folder for its fonts where matplotlib's own cannot be written: it would look through all fonts each time.

    To be called before it is first imported; MPLCONFIGDIR, where it is set, stays.
    """
    try:
        own = all(map(_can_be_made, (user_config_path("matplotlib"), user_cache_path("matplotlib"))))
    except RuntimeError:  # an account that nobody knows has no home
        own = False
    if "MPLCONFIGDIR" not in os.environ and not own and (folder := find_user_folder("matplotlib")):
        os.environ["MPLCONFIGDIR"] = str(folder)


def _make_account_folder(name: str) -> Path | None:
    try:
        folder = user_cache_path("teachercache")
    except RuntimeError:
        return None
    # Older versions take "~" for the home of an account that nobody knows: a folder of that name, wherever one stands.
    return folder / name if folder.is_absolute() and is_writable(folder / name) else None


def _make_temporary_folder(name: str) -> Path | None:
    """Others may write to the folder around it, and compiled code is run: it has to be this account's alone."""
    try:
        folder = Path(tempfile.gettempdir()) / f"teachercache-{_account_name()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if not _is_private(folder.lstat()):
            return None
    except OSError:
        return None
    return folder / name if is_writable(folder / name) else None


def _account_name() -> str:
    return str(os.geteuid()) if hasattr(os, "geteuid") else "kept"


def _is_private(found: os.stat_result) -> bool:
    if not hasattr(os, "geteuid"):  # Windows: the temporary folder itself is the account's
        return stat.S_ISDIR(found.st_mode)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _can_be_made(folder: Path) -> bool:
    """Whether there is a folder, or one can be made, without making it."""
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place) or place == place.parent)
    return folder.is_absolute() and os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)  # noqa: PTH112 - raises nothing
