"""SHA-256 of files and of the blocks in them, in threads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.base.files import hash_file
from pipeline.base.progress import track

ByteRange = tuple[str, int, int]  # file below the folder, offset, bytes


def count_threads() -> int:
    """Hashing and reading release the interpreter's lock: one thread a core."""
    return min(8, os.cpu_count() or 1)


def hash_files(folder: Path, names: Iterable[str], title: str) -> dict[str, str]:
    """SHA-256 of each file, by name, with a progress bar on a terminal."""
    ordered = sorted(names)
    with ThreadPoolExecutor(count_threads()) as pool:
        digests = pool.map(lambda name: hash_file(folder / name), ordered)
        return dict(zip(ordered, track(digests, title, len(ordered)), strict=True))


def hash_ranges(folder: Path, ranges: Mapping[object, ByteRange]) -> dict[object, str]:
    """SHA-256 of each range, by its key."""
    with ThreadPoolExecutor(count_threads()) as pool:
        digests = pool.map(lambda r: hash_file(folder / r[0], r[1], r[2]), ranges.values())
        return dict(zip(ranges, digests, strict=True))
