"""Remember which copies of a folder have been hashed in full: on this machine, outside the folder."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.base.files import hash_json, write_bytes
from pipeline.base.user_cache import find_user_folder

TICK_NS = 20_000_000  # of a file system's clock, at the most


def compute_signature(folder: Path, names: Iterable[str], root: str) -> str:
    """Digest of what the files should be, the folder's path, and each file's size, inode and times.

    The time of the last change of an inode is among them, which no program can set: a file that
    was touched in any way is another one.

    Args:
        folder: of the copy.
        names: of its files.
        root: the digest that a copy has whose files are as they should be.
    """
    return hash_json([root, str(folder.resolve()), read_facts(folder, names)])


def read_facts(folder: Path, names: Iterable[str]) -> list[list[str | int]]:
    """Of each file its name, size, device, inode and times; any change from now on is one of these."""
    facts: list[list[str | int]] = []
    newest = 0
    for name in sorted(names):
        found = (folder / name).stat()
        facts.append([name, found.st_size, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns])
        newest = max(newest, found.st_ctime_ns)
    # A change within the clock's same tick would not be seen: let it pass.
    if 0 <= time.time_ns() - newest < TICK_NS:
        time.sleep(TICK_NS / 1e9)
    return facts


def is_remembered(folder: Path, seen: str, check: str = "") -> bool:
    """Whether this very copy has been checked; a check beside that of its bytes has a name."""
    note = _note_path(folder, check)
    try:
        return note is not None and note.read_text(encoding="ascii") == seen
    except (OSError, ValueError):
        return False


def remember_copy(folder: Path, seen: str, check: str = "") -> None:
    """Note a copy that has been checked; where nothing can be noted, the next one checks again."""
    if note := _note_path(folder, check):
        with suppress(OSError):
            write_bytes(note, seen.encode())


def _note_path(folder: Path, check: str) -> Path | None:
    """One small file a path and check: a new copy at the same place takes the old note's place."""
    notes = find_user_folder("checked")
    return notes and notes / hash_json([str(folder.resolve()), check])[:32]
