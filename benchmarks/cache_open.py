"""Opening and verifying caches of very many chunks.

    python benchmarks/cache_open.py [--repeats 3] [--chunks 1000000] [--megabytes 600]

Two tables. A sealed cache of a million tiny chunks, in both stores: its first open, when every byte is checked; opened
again; and its manifest. And `cache verify` of a cache of ordinary chunks against `hashlib` in as many threads, which
reads and hashes the same files in pieces. All files lie in the page cache.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measurement import Goal, Row, Spread, interleave, parser, ratios, record, seconds
from synthetic import BATCH, describe_cache

from pipeline import cache, runs
from pipeline.cache import Format
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.chunk_grid import ChunkGrid
from pipeline.cache.digests import count_threads
from pipeline.cache.store_plan import StorePlan, plan_store
from pipeline.cache.writer import write_cache

CHUNK_ROWS = 16
CLASSES = 10
SHARDS = 32
PIECE_BYTES = 16 << 20  # that a thread hashes at a time
STORES: tuple[Format, ...] = ("zarr", "hdf5")


def write(folder: Path, plan: StorePlan, store: Format) -> Path:
    """A sealed cache of random numbers."""
    (array,) = plan.arrays.values()

    def compute(block: Block) -> dict[str, Any]:
        shape = (block.stop - block.start, *array.row_shape)
        return {"x": np.random.default_rng(block.index).integers(0, 1 << 14, shape, np.int16).view(np.float16)}

    write_cache(
        folder / "dump", folder / "work", plan, compute, store=store, description=describe_cache(plan.rows, CLASSES)
    )
    return folder / "dump"


def plan_chunks(chunks: int) -> StorePlan:
    """So many chunks of 320 bytes, in blocks of 4,096 of them."""
    rows, block_rows = chunks * CHUNK_ROWS, 4096 * CHUNK_ROWS
    shard = min(rows, math.ceil(rows / SHARDS / block_rows) * block_rows)
    grid = ChunkGrid(1, rows, CHUNK_ROWS, (1, shard))
    return StorePlan({"x": ArrayPlan((CLASSES,), "float16", "none")}, 1, rows, block_rows, {"x": grid})


def measure_open(folder: Path, store: Format, chunks: int, repeats: int) -> Iterator[Row]:
    """A first open, and later ones; the manifest."""
    notes = Path(os.environ["XDG_CACHE_HOME"])
    found: list[Path] = []
    seal = seconds(lambda: found.append(write(folder, plan_chunks(chunks), store)))
    (dump,) = found

    def open_first() -> float:
        shutil.rmtree(notes, ignore_errors=True)
        return seconds(lambda: cache.open(dump))

    def row(what: str, value: Spread | float, goal: Goal | None = None) -> Row:
        return Row(labels={"store": store, "chunks": f"{chunks:,}", "what": what}, values={"value": value}, goal=goal)

    first = [open_first() for _ in range(repeats)]
    later = [seconds(lambda: cache.open(dump)) for _ in range(repeats)]
    yield row("open, checked before, s", Spread.of(later), Goal(at_most=0.2))
    yield row("first open, s", Spread.of(first))
    yield row("dump and seal, s", seal)
    yield row("manifest, bytes", float((dump / "manifest.json").stat().st_size), Goal(at_most=1 << 16))


def hash_range(path: Path, start: int) -> bytes:
    """SHA-256 of a piece of a file."""
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        return hashlib.sha256(file.read(PIECE_BYTES)).digest()


def hash_plainly(folder: Path) -> None:
    """Read and hash all files, in as many threads as a check has."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    pieces = [(path, start) for path in files for start in range(0, path.stat().st_size, PIECE_BYTES)]
    with ThreadPoolExecutor(count_threads()) as threads:
        list(threads.map(lambda piece: hash_range(*piece), pieces))


def measure_verify(folder: Path, store: Format, megabytes: int, repeats: int) -> Row:
    """All bytes of a cache of ordinary chunks."""
    rows = megabytes * 10**6 // 2000 // BATCH * BATCH
    plan = plan_store({"x": ArrayPlan((1000,), "float16", "none")}, views=1, rows=rows, batch=BATCH)
    dump = write(folder, plan, store)
    size = sum(path.stat().st_size for path in dump.rglob("*") if path.is_file())
    sides = {
        "ours": partial(seconds, lambda: runs.verify_cache(dump)),
        "hashlib": partial(seconds, lambda: hash_plainly(dump)),
    }
    found = interleave(sides, repeats)
    return Row(
        labels={"store": store, "cache": f"{size / 1e6:.0f} MB, {plan.chunks} chunks"},
        values={
            "verify / `hashlib`": ratios(found["ours"], found["hashlib"]),
            "verify, GB/s": Spread.of(size / each / 1e9 for each in found["ours"]),
            "`hashlib`, GB/s": Spread.of(size / each / 1e9 for each in found["hashlib"]),
        },
    )


def measure(repeats: int, chunks: int, megabytes: int) -> Iterator[tuple[str, Row]]:
    """All rows, each with its table."""
    with tempfile.TemporaryDirectory(prefix="cache-open-") as base:
        os.environ["XDG_CACHE_HOME"] = str(Path(base) / "notes")
        for store in STORES:
            (folder := Path(base) / store).mkdir()
            yield from (("open", row) for row in measure_open(folder, store, chunks, repeats))
            shutil.rmtree(folder)
        for store in STORES:
            (folder := Path(base) / store).mkdir()
            yield "verify", measure_verify(folder, store, megabytes, repeats)
            shutil.rmtree(folder)


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--chunks", type=int, default=1_000_000)
    options.add_argument("--megabytes", type=int, default=600, help="of the cache that is verified")
    given = options.parse_args()
    measured = measure(given.repeats, given.chunks, given.megabytes)
    libraries = ["numpy", "h5py", "google-crc32c"]
    record("cache_open", measured, given, libraries, chunks=given.chunks, megabytes=given.megabytes)


if __name__ == "__main__":
    main()
