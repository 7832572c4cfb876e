"""SHA-256 of files, and of the chunks in them, in threads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline.base.files import READ_PIECE
from pipeline.base.progress import track
from pipeline.cache.chunk_table import iterate_gaps


def count_threads() -> int:
    """Hashing and reading release the interpreter's lock: one thread a core."""
    return min(8, os.cpu_count() or 1)


def hash_outside(folder: Path, files: Mapping[str, NDArray[Any]], title: str) -> dict[str, str]:
    """SHA-256, by name, of those bytes of each file that lie in none of its chunks (of a file without chunks: of all).

    Args:
        folder: of the cache.
        files: names below it, and the records of the chunks that lie there.
        title: of the progress bar.
    """
    with ThreadPoolExecutor(count_threads()) as pool:
        digests = pool.map(partial(_hash_file_outside, folder), files.items())
        return dict(zip(files, track(digests, title, len(files)), strict=True))


def _hash_file_outside(folder: Path, item: tuple[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    with (folder / item[0]).open("rb", buffering=0) as file:
        for start, end in iterate_gaps(item[1], os.fstat(file.fileno()).st_size):
            file.seek(start)
            left = end - start
            while left and (piece := file.read(min(READ_PIECE, left))):
                digest.update(piece)
                left -= len(piece)
    return digest.hexdigest()
