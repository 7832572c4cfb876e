"""Caches that a study names by a pinned URL (`dumps.NAME.at`): fetched once an account, kept by their root digests."""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.base.errors import InputError
from pipeline.base.files import remove_path
from pipeline.base.memory import parse_size
from pipeline.base.sizes import format_size
from pipeline.base.user_cache import find_user_folder
from pipeline.cache.cache_paths import MANIFEST_PATH
from pipeline.cache.folder import locate_folder, read_manifest
from pipeline.cache.root_pins import refuse_other_root, split_pin
from pipeline.cache.url_systems import hide_password
from pipeline.runs.transfers import pull_cache

LOG = logging.getLogger(__name__)
FOLDER, LIMIT = "TEACHERCACHE_COPIES", "TEACHERCACHE_COPIES_LIMIT"  # environment variables
DEFAULT_LIMIT = "100GB"  # of all copies together
IN_USE = 24 * 3600.0  # seconds since a copy was last asked for, in which somebody may still read it


def fetch_pinned(url: str) -> Path:
    """The folder of a cache that is named by its URL and root digest; nothing is fetched where it is here already.

    Several processes may ask at once: one fetches, the others wait.

    Raises:
        InputError: no cache there, or another one; or a limit that is none.
        NotNowError: it cannot be fetched now; what has arrived is kept.
    """
    folder, (_, pin) = _find_folder(), split_pin(url)
    assert pin is not None  # the section requires it
    limit = parse_size(os.environ.get(LIMIT, DEFAULT_LIMIT), LIMIT)
    here = _take_copy(folder, pin)
    if here is None:
        _fetch(url, folder, pin)
        _make_room(folder, pin, limit)
        here = _take_copy(folder, pin)
    assert here is not None  # just fetched, and not for others to remove
    return here


def _find_folder() -> Path:
    stated = os.environ.get(FOLDER)
    folder = Path(stated).expanduser() if stated else find_user_folder("caches")
    if folder is None:
        raise InputError("copies of caches", expected="a folder to keep them in", found="none", fix=f"set {FOLDER}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _hold_room(folder: Path) -> FileLock:
    """Held for a moment while a copy is found and marked, or removed."""
    return FileLock(folder / "room.lock")


def _list_copies(folder: Path) -> list[Path]:
    """Whole copies, each named by its root digest."""
    named = (path for path in folder.iterdir() if re.fullmatch(r"[0-9a-f]{64}", path.name))
    return [path for path in named if (path / MANIFEST_PATH).is_file()]


def _take_copy(folder: Path, pin: str) -> Path | None:
    """The copy whose root begins so, marked as in use; None where there is none."""
    with _hold_room(folder):
        found = [path for path in _list_copies(folder) if path.name.startswith(pin)]
        if len(found) > 1:
            told = " and ".join(path.name[:20] for path in found[:2])
            raise InputError(f"#{pin}", expected="one cache that begins so", found=told, fix="write more digits")
        for path in found:
            os.utime(path)
        return found[0] if found else None


def _fetch(url: str, folder: Path, pin: str) -> None:
    place, _ = split_pin(url)
    shown = hide_password(place)
    manifest = read_manifest(locate_folder(place, None), "ask who keeps it where it is now")
    refuse_other_root(shown, manifest, pin, "ask who keeps it which one is meant")
    lock, target = FileLock(folder / f"{manifest.root}.lock"), folder / manifest.root
    try:
        lock.acquire(timeout=0)
    except Timeout:
        LOG.warning("%s: another process fetches it; this one waits", shown)
        lock.acquire()
    try:
        for line in pull_cache(url, target).text:
            LOG.info("%s", line)
    finally:
        lock.release()


def _make_room(folder: Path, pin: str, limit: int) -> None:
    """Remove copies that nobody has asked for lately, the longest first, until all others fit the limit."""
    with _hold_room(folder):
        copies = sorted(_list_copies(folder), key=lambda path: path.stat().st_mtime)
        sizes = {path: sum(each.stat().st_size for each in path.rglob("*") if each.is_file()) for path in copies}
        total = sum(sizes.values())
        for path in copies:
            old = time.time() - path.stat().st_mtime > IN_USE
            if total > limit and old and not path.name.startswith(pin):
                trash = path.with_name(f".trash-{path.name}")
                path.replace(trash)
                remove_path(trash)
                total -= sizes[path]
                LOG.info("%s, a copy of %s, makes room", path.name[:12], format_size(sizes[path]))
    if total > limit:
        LOG.warning("copies of caches take %s, more than %s=%s", format_size(total), LIMIT, format_size(limit))
