"""Many readers of one cache, threads of several processes, while it is verified: no error, no wrong value."""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from pipeline import cache, runs
from tests.cache.test_cache import ROWS, STORES, Store, values, write


def read_rows(folder: str, number: int) -> int:
    """Open the cache, and read all its rows in an order of one's own; those that were right."""
    opened, ids = cache.open(Path(folder)), np.random.default_rng(number).permutation(ROWS)
    expected = values("float32")[0]
    parts = np.array_split(ids, 4)
    return sum(int((opened.rows(part) == expected[part]).all(1).sum()) for part in parts)


def read_in_threads(folder: str, first: int, threads: int) -> list[int]:
    """So many readers of one process."""
    with ThreadPoolExecutor(threads) as pool:
        return [*pool.map(lambda number: read_rows(folder, number), range(first, first + threads))]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("processes", "threads"), [(2, 20), pytest.param(10, 50, marks=pytest.mark.endurance)], ids=["40", "500"]
)
def test_many_readers_and_checks_at_once(tmp_path: Path, store: Store, processes: int, threads: int) -> None:
    """The copy is new, so that the first of them, whoever they are, have to check it in full."""
    write(tmp_path / "made", store, chunk_rows=16)
    folder = tmp_path / "copy"
    shutil.copytree(tmp_path / "made/dump", folder)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        readers = [
            pool.submit(read_in_threads, str(folder), process * threads, threads) for process in range(processes)
        ]
        checks = 0
        while checks < 3 or not all(each.done() for each in readers):
            assert runs.verify_cache(str(folder), restart=True).found.is_whole
            checks += 1
        found = [right for each in readers for right in each.result()]
    assert found == [ROWS] * processes * threads
