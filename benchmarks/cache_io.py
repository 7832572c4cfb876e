"""Reading and writing a cache against plain numpy and the stores' own libraries, side by side.

    python benchmarks/cache_io.py [--repeats 7] [--sizes 100 400] [--device cuda]

Uncompressed float16 logits of each size in MB, in both stores. Every ratio is taken within one
repeat, the two sides one behind the other. Files lie in the page cache: what is measured is the
code, not the disk (but for the writes). On a GPU only the loading onto it is measured.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import h5py
import numpy as np
import torch
import zarr
from measurement import Goal, Row, Spread, interleave, name_device, open_device, parser, ratios, record, seconds
from numpy.typing import NDArray
from synthetic import BATCH, describe_cache

from pipeline import cache
from pipeline.base.files import remove_path
from pipeline.cache import Cache, Format
from pipeline.cache.block_files import BlockFiles, write_blocks
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.chunk_table import divide_records
from pipeline.cache.manifest import Manifest
from pipeline.cache.store_plan import StorePlan, plan_store
from pipeline.cache.writer import write_cache

IDS = 128  # a batch of a student
DRAWS = 200  # gathers a timing: one takes microseconds
LIBRARY_DRAWS = 2  # of a store's own library, which takes seconds
LOADS = 5  # a timing


@dataclass(frozen=True)
class Case:
    """One cache to be measured, and the same values as one `.npy` file."""

    store: Format
    classes: int
    megabytes: int
    folder: Path

    @property
    def rows(self) -> int:
        return self.megabytes * 1_000_000 // (2 * self.classes)

    @property
    def target(self) -> Path:
        return self.folder / "dump"

    @property
    def npy(self) -> Path:
        return self.folder / "logits.npy"

    def plan(self) -> StorePlan:
        return plan_store({"logits": ArrayPlan((self.classes,), "float16")}, views=1, rows=self.rows, batch=BATCH)

    def row(self, what: str, value: Spread | float, goal: Goal | None = None) -> Row:
        """A line of the table of stores."""
        return Row(labels={"cache": str(self), "what": what}, values={"value": value}, goal=goal)

    def __str__(self) -> str:
        return f"{self.store}, {self.megabytes} MB, {self.classes} classes"


class Accepted(Exception):  # noqa: N818 - no error: it stops a writer that has sealed
    """Raised before anything is published, so that the blocks stay."""


def make_logits(rows: int, classes: int) -> NDArray[np.float16]:
    """Normal numbers, made in pieces: float32 of a whole cache may not fit."""
    made: NDArray[np.float16] = np.empty((rows, classes), np.float16)
    generator = np.random.default_rng(0)
    for start in range(0, rows, piece := max(1, 10_000_000 // classes)):
        made[start : start + piece] = generator.standard_normal((min(piece, rows - start), classes), np.float32)
    return made


def write(case: Case, values: NDArray[Any], accept: Callable[[Manifest], None] = lambda _: None) -> Manifest:
    """Write the case's cache."""

    def compute(block: Block) -> Mapping[str, NDArray[Any]]:
        return {"logits": values[block.start : block.stop]}

    return write_cache(
        case.target, case.folder / "work", case.plan(), compute,
        store=case.store, description=describe_cache(case.rows, case.classes), accept=accept,
    )  # fmt: skip


def refuse(_: Manifest) -> None:
    """Stop a writer between sealing and publishing."""
    raise Accepted


def time_seal(case: Case, values: NDArray[Any]) -> float:
    """Seconds to seal and publish when all blocks are there: assembly, digests, manifest, renames."""
    try:
        write(case, values, refuse)
    except Accepted:
        os.sync()
        return seconds(lambda: write(case, values))
    raise AssertionError


def time_block_writes(case: Case, values: NDArray[Any]) -> float:
    """Seconds to write all row blocks, and to see them on the disk."""
    os.sync()
    plan = case.plan()
    blocks = BlockFiles(case.folder / "blocks", plan, case.store)

    def every() -> None:
        write_blocks(blocks, plan.blocks(), lambda block: {"logits": values[block.start : block.stop]})

    try:
        return seconds(every)
    finally:
        remove_path(blocks.folder)


def time_save(path: Path, values: NDArray[Any]) -> float:
    """Seconds of `np.save` and fsync."""
    remove_path(path)
    os.sync()

    def save() -> None:
        with path.open("wb") as file:
            np.save(file, values)
            file.flush()
            os.fsync(file.fileno())

    return seconds(save)


def drop_sums(opened: Cache) -> Cache:
    """The same cache, whose chunks all have the checksum 0."""
    records = opened.table.records.copy()
    records["crc32c"] = 0
    return replace(opened, table=divide_records(opened.manifest, records), _arrays={})


def no_sum(*_: object) -> int:
    """In the place of the checksum."""
    return 0


def find_library_rows(case: Case) -> Callable[[NDArray[np.int64]], object]:
    """Rows by the store's own library: `zarr.Array.oindex`, or h5py's indexing (sorted ids only)."""
    if case.store == "zarr":
        array: Any = zarr.open_group(case.target / "data.zarr", mode="r")["logits"]
        return lambda ids: array.oindex[0, ids]
    data: Any = h5py.File(case.target / "data.h5", "r")["logits"]
    return lambda ids: data[0, np.sort(ids)]


def draw_batches(case: Case, generator: np.random.Generator, times: int) -> list[NDArray[np.int64]]:
    """Batches of shuffled ids, none twice in a batch."""
    return [generator.choice(case.rows, IDS, replace=False, shuffle=True) for _ in range(times)]


def time_gather(rows: Callable[[NDArray[np.int64]], object], batches: list[NDArray[np.int64]]) -> float:
    """Seconds a gather, over many."""

    def every() -> None:
        for ids in batches:
            rows(ids)

    return seconds(every) / len(batches)


def compare(repeats: int, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Seconds of both sides, by repeat."""
    found = interleave({"ours": ours, "theirs": theirs}, repeats)
    return found["ours"], found["theirs"]


def time_npy(case: Case) -> float:
    """Seconds of `np.load`."""
    return seconds(lambda: np.load(case.npy), LOADS)


def measure_writes(case: Case, values: NDArray[Any], repeats: int) -> Iterator[Row]:
    """Row blocks against `np.save`, and the seal."""
    ours, theirs = compare(repeats, lambda: time_block_writes(case, values), lambda: time_save(case.npy, values))
    yield case.row("speed of block writes / `np.save` + fsync", ratios(theirs, ours), Goal(at_least=0.7))
    yield case.row("block writes, s", Spread.of(ours))
    ours, theirs = compare(max(1, repeats // 2), lambda: time_seal(case, values), lambda: time_save(case.npy, values))
    goal = Goal(at_most=2.5 if case.store == "zarr" else 3) if case.megabytes >= 400 else None
    yield case.row("seal and publish / `np.save` + fsync", ratios(ours, theirs), goal)
    yield case.row("seal and publish, s", Spread.of(ours))


def measure_opens(case: Case, repeats: int) -> Iterator[Row]:
    """Opening a copy for the first time, and again."""
    notes, first, later = Path(os.environ["XDG_CACHE_HOME"]) / "teachercache", [], []
    for _ in range(repeats):
        remove_path(notes)
        first.append(seconds(lambda: cache.open(case.target)))
        later.append(seconds(lambda: cache.open(case.target)))
    size = sum(path.stat().st_size for path in case.target.rglob("*") if path.is_file())
    yield case.row("first open (SHA-256), s", Spread.of(first))
    yield case.row("first open, GB/s", Spread.of(size / 1e9 / each for each in first))
    yield case.row("later open, s", Spread.of(later))
    goal = Goal(at_most=1.02) if case.megabytes >= 100 else None
    yield case.row("stored bytes / payload bytes", round(size / (2 * case.rows * case.classes), 4), goal)


def measure_loads(case: Case, opened: Cache, repeats: int) -> Iterator[Row]:
    """Bulk load, with and without the checksums."""
    plain = opened.load()[0]
    assert np.array_equal(plain[:: case.rows // 100], np.load(case.npy, mmap_mode="r")[:: case.rows // 100])
    del plain
    theirs = partial(time_npy, case)
    checked, plainly = compare(repeats, lambda: seconds(opened.load, LOADS), theirs)
    yield case.row("load, CRC-32C checked / `np.load`", ratios(checked, plainly), Goal(at_most=2))
    yield case.row("load, CRC-32C checked, s", Spread.of(checked))
    unsummed = drop_sums(opened)
    with mock.patch("pipeline.cache.folder.crc32c", no_sum):
        unchecked, plainly = compare(repeats, lambda: seconds(unsummed.load, LOADS), theirs)
    yield case.row("load, no checks / `np.load`", ratios(unchecked, plainly), Goal(at_most=1.2))


def measure_gathers(case: Case, opened: Cache, repeats: int) -> Iterator[Row]:
    """Rows of 128 ids, the checksums summed and all pages present before."""
    generator = np.random.default_rng(1)
    mapped = np.load(case.npy, mmap_mode="r")
    opened.rows(np.arange(case.rows))
    np.asarray(mapped).sum(dtype=np.float32)

    def gather(rows: Callable[[NDArray[np.int64]], object], draws: int) -> Callable[[], float]:
        return lambda: time_gather(rows, draw_batches(case, generator, draws))

    ours, theirs = compare(repeats, gather(opened.rows, DRAWS), gather(lambda ids: mapped[ids], DRAWS))
    yield case.row(f"{IDS} rows / `np.memmap`", ratios(ours, theirs), Goal(at_most=1.5))
    yield case.row(f"{IDS} rows, microseconds", Spread.of(1e6 * each for each in ours))
    ours, theirs = compare(repeats, gather(opened.rows, DRAWS), gather(find_library_rows(case), LIBRARY_DRAWS))
    name, goal = ("`zarr.Array.oindex`", Goal(at_least=200)) if case.store == "zarr" else ("h5py, sorted ids", None)
    yield case.row(f"{name} / {IDS} rows", ratios(theirs, ours), goal)


def measure_tensors(case: Case, opened: Cache, device: torch.device, repeats: int) -> Iterator[Row]:
    """Bulk load onto a device, against `np.load` and the same move."""

    def time_move(load: Callable[[], torch.Tensor]) -> float:
        def move() -> None:
            load().to(device)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return seconds(move, LOADS)

    ours, theirs = compare(
        repeats,
        lambda: time_move(lambda: opened.tensor(device=device)),
        lambda: time_move(lambda: torch.from_numpy(np.load(case.npy))),
    )
    labels = {"cache": str(case), "device": name_device(str(device))}
    yield Row(
        labels=labels, values={"`Cache.tensor` / `np.load` and `.to`": ratios(ours, theirs), "s": Spread.of(ours)}
    )


def measure_case(case: Case, device: torch.device, repeats: int) -> Iterator[tuple[str, Row]]:
    """All rows of one case, each with its table."""
    case.folder.mkdir()
    values = make_logits(case.rows, case.classes)
    if device.type == "cpu":
        yield from (("store", row) for row in measure_writes(case, values, repeats))
    else:
        np.save(case.npy, values)
        write(case, values)
    del values
    opened = cache.open(case.target)
    if device.type == "cpu":
        rows = chain(
            measure_opens(case, repeats), measure_loads(case, opened, repeats), measure_gathers(case, opened, repeats)
        )
        yield from (("store", row) for row in rows)
    yield from (("device", row) for row in measure_tensors(case, opened, device, repeats))
    remove_path(case.folder)


def measure(sizes: list[int], device: torch.device, repeats: int) -> Iterator[tuple[str, Row]]:
    """Every size in both stores, the least one with few classes too."""
    shapes = [(1000, size) for size in sizes] + [(10, min(sizes))]
    with tempfile.TemporaryDirectory(prefix="cache-io-") as base:
        os.environ["XDG_CACHE_HOME"] = str(Path(base) / "notes")
        for classes, size in shapes:
            for store in get_args(Format):
                case = Case(store, classes, size, Path(base) / f"{store}-{classes}-{size}")
                yield from measure_case(case, device, repeats)


def main() -> None:
    """Measure and record."""
    options = parser(__doc__, repeats=7)
    options.add_argument("--sizes", type=int, nargs="+", default=[100, 400], help="megabytes")
    given = options.parse_args()
    rows = measure(given.sizes, open_device(given.device), given.repeats)
    libraries = ["numpy", "torch", "zarr", "h5py", "numcodecs", "google-crc32c"]
    record("cache_io", rows, given, libraries, sizes=given.sizes)


if __name__ == "__main__":
    main()
