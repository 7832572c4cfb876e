"""Pages of mapped files count as a process's memory for as long as they are mapped in: give them back now and then."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 200 << 20  # of mapped files that may be held beyond those at the start
SMALL_ROW = 16 << 10  # bytes: a few pages
STATM = Path("/proc/self/statm")  # in pages: the whole size, what is held, of that what is of files, ...


class PageWatch:
    """Calls `release` once this process holds many more pages of files than when the watch began.

    Counting what is read would not do: a row of 20 bytes brings in up to 64 KiB around it. Where the system does not
    say what is held (it is not Linux) nothing is called, and the system itself takes pages back when it needs them.

    Args:
        release: gives the pages of some maps back.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        self.release, self.start = release, count_file_bytes()

    def check(self) -> None:
        """Look, and give back; some microseconds."""
        if count_file_bytes() - self.start > MOST_BYTES:
            self.release()
            self.start = count_file_bytes()  # what is left is no page of these maps


def count_file_bytes() -> int:
    """Bytes of mapped files that this process holds; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(STATM.read_bytes().split()[2]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def release_pages(mapped: NDArray[Any]) -> None:
    """Give back the pages of an array over a file that is mapped to be read; the system's cache of the file stays."""
    _advise(mapped, "MADV_DONTNEED")


def expect_random_rows(mapped: NDArray[Any], row_bytes: int) -> None:
    """Say that rows of a mapped file will be picked at random: of small ones no neighbours are read along.

    (The system reads 128 KiB around a page that it does not hold: 30 times a row of 4 KiB. Large rows are read faster
    so than page by page.)
    """
    if row_bytes <= SMALL_ROW:
        _advise(mapped, "MADV_RANDOM")


def _advise(mapped: NDArray[Any], advice: str) -> None:
    """Advise the system about a whole file that an array maps, where both know such advice."""
    base: Any = mapped
    while isinstance(base, np.ndarray | memoryview):
        base = base.obj if isinstance(base, memoryview) else base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, advice):
        base.madvise(getattr(mmap, advice))
