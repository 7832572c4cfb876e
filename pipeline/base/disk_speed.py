"""What a disk, and this machine's hashing, are worth: measured in a second or two."""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.files import hash_file, write_bytes

PROBE_BYTES = 64 << 20  # written, and read back
PAGE_BYTES = 4096  # what a disk reads for a byte
RANDOM_READS = 4096  # of a page, at most
RANDOM_SECONDS = 0.5
THREADS = 8  # that read at a time


@dataclass(frozen=True)
class DiskSpeed:
    """Seconds a byte.

    Attributes:
        write: to write, flush and hash.
        read: to read in order, from the disk where the system lets go of what it holds in memory.
        read_page: to read a page somewhere, likewise, with several threads (seconds a page).
        hash: SHA-256 on all cores, of what is in memory.
    """

    write: float
    read: float
    read_page: float
    hash: float


def measure_disk_speed(folder: Path) -> DiskSpeed:
    """Write, flush, hash and read a file in a folder; nothing stays."""
    data = random.Random(0).randbytes(PROBE_BYTES)  # noqa: S311 - bytes that do not compress, no secret
    with tempfile.TemporaryDirectory(dir=folder, prefix=".plan-") as place:
        probe = Path(place) / "probe"
        write = _time_call(lambda: write_bytes(probe, data)) + _time_call(lambda: hash_file(probe))
        _forget_pages(probe)
        read = _time_call(probe.read_bytes)
        _forget_pages(probe)
        page = _time_random_reads(probe)
    return DiskSpeed(write / PROBE_BYTES, read / PROBE_BYTES, page, _time_hashes(data) / PROBE_BYTES)


def _forget_pages(path: Path) -> None:
    """Ask the system to read a file from the disk the next time, where it can be asked."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _time_random_reads(path: Path) -> float:
    """Seconds a page, read by several threads."""
    places = random.Random(0).sample(range(PROBE_BYTES // PAGE_BYTES), RANDOM_READS)  # noqa: S311
    end = time.perf_counter() + RANDOM_SECONDS

    def read(thread: int) -> int:
        done = 0
        with path.open("rb", buffering=0) as file:
            for place in places[thread::THREADS]:
                if time.perf_counter() > end:
                    break
                file.seek(place * PAGE_BYTES)
                file.read(PAGE_BYTES)
                done += 1
        return done

    start = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as threads:
        done = sum(threads.map(read, range(THREADS)))
    return (time.perf_counter() - start) / max(1, done)


def _time_hashes(data: bytes) -> float:
    """Seconds to hash bytes, a share of them on each core."""
    cores = os.cpu_count() or 1
    share = len(data) // cores
    parts = [memoryview(data)[number * share : (number + 1) * share] for number in range(cores)]
    with ThreadPoolExecutor(cores) as threads:
        return _time_call(lambda: list(threads.map(hashlib.sha256, parts)))


def _time_call(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
