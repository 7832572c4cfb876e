"""Shuffled rows of a cache's arrays, whatever the number of views and files and the codec, against one memory map.

    python benchmarks/cache_rows.py [--repeats 7] [--samples 1000000]

Two tables. Uncompressed float16 logits of 10 classes, in 1, 300 and 2,000 views, in both stores: batches of 128 ids,
each of a view of its own, against the same rows of one `np.memmap` of the same bytes. And a zstd hints field of 1 KB
rows, half of its numbers zero as after a ReLU: with all chunks held decoded, and with room for hardly more than a batch
needs. All files lie in the page cache, and their checksums are summed before.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from measurement import Goal, Row, Spread, interleave, parser, ratios, record, seconds
from numpy.typing import NDArray
from synthetic import BATCH, describe_cache

from pipeline import cache
from pipeline.cache import Cache, Format
from pipeline.cache.blocks import ArrayPlan
from pipeline.cache.store_plan import plan_store
from pipeline.cache.writer import write_cache

IDS = 128  # a batch of a student
DRAWS = 50  # batches a timing
SLOW_DRAWS = 2  # of what takes a tenth of a second
SHAPES = ((1, 1_000_000), (300, 1150), (300, 60_000), (2000, 1150), (2000, 10_000))  # views, rows
HINT_SAMPLES, HINT_NUMBERS = 100_000, 512  # of a row
NOTHING = 1  # bytes: room for one chunk

Take = Callable[[NDArray[np.int64], NDArray[np.int64]], object]


@dataclass(frozen=True)
class Written:
    """A cache of one array, and the same values as one mapped file."""

    opened: Cache
    mapped: NDArray[Any]

    @property
    def files(self) -> int:
        """Of the array."""
        return len(np.unique(self.opened.table.records["file"]))


def write(folder: Path, values: NDArray[Any], codec: Any, store: Format) -> Written:
    """Write values (views, rows, n), as a cache and as a plain file."""
    views, rows, width = values.shape
    plan = plan_store({"x": ArrayPlan((width,), "float16", codec)}, views=views, rows=rows, batch=BATCH)
    write_cache(
        folder / "dump", folder / "work", plan, lambda block: {"x": values[block.view, block.start : block.stop]},
        store=store, description=describe_cache(rows, 10, views),
    )  # fmt: skip
    np.save(folder / "x.npy", values)
    mapped = np.load(folder / "x.npy", mmap_mode="r")
    return Written(cache.open(folder / "dump"), mapped.reshape(views * rows, width))


def draw(generator: np.random.Generator, views: int, rows: int, times: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Batches of ids and views."""
    return [(generator.integers(0, rows, IDS), generator.integers(0, views, IDS)) for _ in range(times)]


def compare(
    ours: Take, theirs: Take, shape: tuple[int, int], repeats: int, *, draws: tuple[int, int] = (DRAWS, DRAWS)
) -> tuple[list[float], list[float]]:
    """Seconds a batch of both sides, by repeat."""
    generator = np.random.default_rng(1)

    def time_batches(take: Take, times: int) -> float:
        batches = draw(generator, *shape, times)

        def every() -> None:
            for ids, views in batches:
                take(ids, views)

        return seconds(every) / times

    found = interleave(
        {"ours": partial(time_batches, ours, draws[0]), "theirs": partial(time_batches, theirs, draws[1])}, repeats
    )
    return found["ours"], found["theirs"]


def measure_views(folder: Path, shape: tuple[int, int], store: Format, repeats: int) -> Row:
    """Uncompressed rows of any view against one memory map."""
    views, rows = shape
    values = np.random.default_rng(0).integers(0, 1 << 14, (views, rows, 10), np.int16).view(np.float16)
    made = write(folder, values, "none", store)
    for view in range(views):  # the checksums
        made.opened.rows(np.arange(0, rows, 7), view)
    made.opened.rows(np.arange(rows), 0)
    np.asarray(made.mapped.view(np.int16)).sum()
    ours, theirs = compare(made.opened.rows, lambda ids, seen: made.mapped[seen * rows + ids], shape, repeats)
    labels = {"store": store, "views": f"{views:,}", "samples": f"{rows:,}", "files": str(made.files)}
    values_ = {
        f"{IDS} rows / `np.memmap`": ratios(ours, theirs),
        "microseconds": Spread.of(1e6 * each for each in ours),
    }
    return Row(labels=labels, values=values_, goal=Goal(at_most=1.5))


def measure_hints(folder: Path, samples: int, repeats: int) -> Iterator[Row]:
    """Rows of a compressed field, held and not held, against one memory map and against zarr-python."""
    shape = 1, samples, HINT_NUMBERS
    values = np.maximum(np.random.default_rng(0).standard_normal(shape, np.float32), 0).astype(np.float16)
    made = write(folder, values, "zstd", "zarr")
    views, rows, _ = shape
    whole = made.opened
    whole.rows(np.arange(rows))
    np.asarray(made.mapped).sum(dtype=np.float32)

    def plain(ids: NDArray[np.int64], seen: NDArray[np.int64]) -> object:
        return made.mapped[seen * rows + ids]

    def row(what: str, value: Spread, goal: Goal | None = None) -> Row:
        return Row(labels={"what": what}, values={"value": value}, goal=goal)

    held, mapped = compare(lambda ids, _: whole.rows(ids), plain, (views, rows), repeats)
    yield row("held: 128 rows / `np.memmap`", ratios(held, mapped), Goal(at_most=20))
    array: Any = zarr.open_group(folder / "dump/data.zarr", mode="r")["x"]

    def oindex(ids: NDArray[np.int64], _: object) -> object:
        return array.oindex[0, ids]

    held, library = compare(lambda ids, _: whole.rows(ids), oindex, (views, rows), repeats, draws=(DRAWS, SLOW_DRAWS))
    yield row("held: `zarr.Array.oindex` / 128 rows", ratios(library, held), Goal(at_least=20))
    bare = replace(whole, memory=NOTHING, _arrays={})
    small = replace(whole, memory=IDS * made.opened.manifest.arrays["x"].chunk_rows * 1024, _arrays={})
    few = (SLOW_DRAWS * 5, SLOW_DRAWS)
    loose, library = compare(lambda ids, _: small.rows(ids), oindex, (views, rows), repeats, draws=few)
    yield row("not held: `zarr.Array.oindex` / 128 rows", ratios(library, loose), Goal(at_least=20))
    yield row("not held, microseconds", Spread.of(1e6 * each for each in loose))
    one, _ = compare(lambda ids, _: bare.rows(ids), plain, (views, rows), repeats, draws=few)
    yield row("room for one chunk, microseconds", Spread.of(1e6 * each for each in one))


def measure(most: int, repeats: int) -> Iterator[tuple[str, Row]]:
    """All rows, each with its table."""
    shapes = [(views, min(samples, most)) for views, samples in SHAPES]
    with tempfile.TemporaryDirectory(prefix="cache-rows-") as base:
        os.environ["XDG_CACHE_HOME"] = str(Path(base) / "notes")
        for number, (shape, store) in enumerate((shape, store) for shape in shapes for store in ("zarr", "hdf5")):
            folder = Path(base) / str(number)
            folder.mkdir()
            yield "views", measure_views(folder, shape, store, repeats)  # type: ignore[arg-type]
        (folder := Path(base) / "hints").mkdir()
        yield from (("hints", row) for row in measure_hints(folder, min(HINT_SAMPLES, most), repeats))


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=7)
    options.add_argument("--samples", type=int, default=1_000_000, help="of a case, at most")
    given = options.parse_args()
    libraries = ["numpy", "zarr", "h5py", "numcodecs", "google-crc32c"]
    record("cache_rows", measure(given.samples, given.repeats), given, libraries, samples=given.samples)


if __name__ == "__main__":
    main()
