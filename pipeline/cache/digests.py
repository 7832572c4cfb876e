"""SHA-256 of files and of the blocks in them, in threads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.progress import track

READ_BYTES = 1 << 20  # a read, so that hashing never holds a file in memory

Range = tuple[str, int, int]  # file below the folder, offset, bytes


def threads() -> int:
    """Hashing and reading release the interpreter's lock: one thread a core."""
    return min(8, os.cpu_count() or 1)


def sha256_of_range(path: Path, offset: int = 0, size: int | None = None) -> str:
    """SHA-256 of `size` bytes of a file from `offset` on (of what there is of them), or of all to its end."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        left = size
        while piece := file.read(READ_BYTES if left is None else min(READ_BYTES, left)):
            digest.update(piece)
            left = None if left is None else left - len(piece)
    return digest.hexdigest()


def sha256_of_files(folder: Path, names: Iterable[str], title: str) -> dict[str, str]:
    """SHA-256 of each file, by name, with a progress bar on a terminal."""
    ordered = sorted(names)
    with ThreadPoolExecutor(threads()) as pool:
        digests = pool.map(lambda name: sha256_of_range(folder / name), ordered)
        return dict(zip(ordered, track(digests, title, len(ordered)), strict=True))


def sha256_of_ranges(folder: Path, ranges: Mapping[object, Range]) -> dict[object, str]:
    """SHA-256 of each range, by its key."""
    with ThreadPoolExecutor(threads()) as pool:
        digests = pool.map(lambda r: sha256_of_range(folder / r[0], r[1], r[2]), ranges.values())
        return dict(zip(ranges, digests, strict=True))
