"""Reading and writing a cache against plain numpy and the stores' own libraries, side by side.

    python benchmarks/cache_io.py [--repeats 7] [--sizes 100 400]

Uncompressed float16 logits of each size in MB, in both stores. Every ratio is taken within one
repeat, the two sides one behind the other; printed are the median, the spread and the count.
Files lie in the page cache: what is measured is the code, not the disk (but for the writes).
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline import cache
from pipeline.base.files import remove_path
from pipeline.cache import Cache, Format
from pipeline.cache.block_files import BlockFiles, write_blocks
from pipeline.cache.blocks import ArrayPlan, Block, StorePlan, plan_store
from pipeline.cache.manifest import Manifest
from pipeline.cache.writer import write_cache

IDS = 128  # a batch of a student
DRAWS = 200  # gathers a timing: one takes microseconds
LIBRARY_DRAWS = 2  # of a store's own library, which takes seconds
LOADS = 5  # a timing
BATCH = 512


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

    def description(self) -> dict[str, Any]:
        names = [str(label) for label in range(self.classes)]
        shape, digest = [1, 8, 8], "ab" * 32
        return {
            "field": {"name": "logits", "parameters": {"dtype": "float16"}},
            "teacher": {
                "name": "t", "architecture": {"name": "mlp"}, "seed": None, "weights_sha256": digest,
                "test_accuracy": None, "test_accuracy_per_class": [None] * self.classes,
            },
            "dataset": {
                "name": "d", "fingerprint": digest, "samples": self.rows, "shape": shape,
                "bounds": [self.rows, self.rows], "classes": names,
            },
            "views": {"policy": "none", "count": 1, "seed": 0, "parameters": {}},
            "batch": BATCH,
        }  # fmt: skip

    def __str__(self) -> str:
        return f"{self.store}, {self.megabytes} MB, {self.classes} classes"


class Accepted(Exception):  # noqa: N818 - no error: it stops a writer that has sealed
    """Raised before anything is published, so that the blocks stay."""


def seconds(action: Callable[[], object], calls: int = 1) -> float:
    """Wall-clock seconds of a call, the median of some: short ones suffer from whatever else runs."""
    found = []
    for _ in range(calls):
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def pairs(repeats: int, ours: Callable[[], float], theirs: Callable[[], float]) -> list[tuple[float, float]]:
    """Seconds of both sides, interleaved, the order swapped each time; the first pair warms up."""
    found = []
    for number in range(repeats + 1):
        if number % 2:
            mine, other = ours(), theirs()
        else:
            other, mine = theirs(), ours()
        found.append((mine, other))
    return found[1:]


def spread(values: Iterable[float], form: str = ".2f") -> str:
    """Median (min to max, n)."""
    ordered = sorted(values)
    ends = f"{ordered[0]:{form}} to {ordered[-1]:{form}}, n = {len(ordered)}"
    return f"{statistics.median(ordered):{form}} ({ends})"


def logits(rows: int, classes: int) -> NDArray[np.float16]:
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
        store=case.store, description=case.description(), accept=accept,
    )  # fmt: skip


def refuse(_: Manifest) -> None:
    """Stop a writer between sealing and publishing."""
    raise Accepted


def sealing(case: Case, values: NDArray[Any]) -> float:
    """Seconds to seal and publish when all blocks are there: assembly, digests, manifest, renames."""
    try:
        write(case, values, refuse)
    except Accepted:
        os.sync()
        return seconds(lambda: write(case, values))
    raise AssertionError


def write_all_blocks(case: Case, values: NDArray[Any]) -> float:
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


def save_and_sync(path: Path, values: NDArray[Any]) -> float:
    """Seconds of `np.save` and fsync."""
    remove_path(path)
    os.sync()

    def save() -> None:
        with path.open("wb") as file:
            np.save(file, values)
            file.flush()
            os.fsync(file.fileno())

    return seconds(save)


def without_sums(opened: Cache) -> Cache:
    """The same cache, whose blocks all have the checksum 0."""
    arrays = {
        name: array.model_copy(update={"blocks": [block.model_copy(update={"crc32c": 0}) for block in array.blocks]})
        for name, array in opened.manifest.arrays.items()
    }
    return replace(opened, manifest=opened.manifest.model_copy(update={"arrays": arrays}), _arrays={})


def no_sum(*_: object) -> int:
    """In the place of the checksum."""
    return 0


def library_rows(case: Case) -> Callable[[NDArray[np.int64]], object]:
    """Rows by the store's own library: `zarr.Array.oindex`, or h5py's indexing (sorted ids only)."""
    if case.store == "zarr":
        array: Any = zarr.open_group(case.target / "data.zarr", mode="r")["logits"]
        return lambda ids: array.oindex[0, ids]
    data: Any = h5py.File(case.target / "data.h5", "r")["logits"]
    return lambda ids: data[0, np.sort(ids)]


def drawn(case: Case, generator: np.random.Generator, times: int) -> list[NDArray[np.int64]]:
    """Batches of shuffled ids, none twice in a batch."""
    return [generator.choice(case.rows, IDS, replace=False, shuffle=True) for _ in range(times)]


def per_gather(rows: Callable[[NDArray[np.int64]], object], batches: list[NDArray[np.int64]]) -> float:
    """Seconds a gather, over many."""

    def every() -> None:
        for ids in batches:
            rows(ids)

    return seconds(every) / len(batches)


def loads(case: Case, opened: Cache, repeats: int) -> Iterator[tuple[str, str, str]]:
    """Bulk load, with and without the checksums."""
    plain = opened.load()[0]
    assert np.array_equal(plain[:: case.rows // 100], np.load(case.npy, mmap_mode="r")[:: case.rows // 100])
    del plain

    def theirs() -> float:
        return seconds(lambda: np.load(case.npy), LOADS)

    found = pairs(repeats, lambda: seconds(opened.load, LOADS), theirs)
    yield "load, CRC-32C checked / `np.load`", spread(mine / other for mine, other in found), "at most 2"
    yield "load, CRC-32C checked, s", spread((mine for mine, _ in found), ".3f"), ""
    unsummed = without_sums(opened)
    with mock.patch("pipeline.cache.folder.crc32c", no_sum):
        found = pairs(repeats, lambda: seconds(unsummed.load, LOADS), theirs)
    yield "load, no checks / `np.load`", spread(mine / other for mine, other in found), "at most 1.2"


def gathers(case: Case, opened: Cache, repeats: int) -> Iterator[tuple[str, str, str]]:
    """Rows of 128 ids, the checksums summed and all pages present before."""
    generator = np.random.default_rng(1)
    mapped = np.load(case.npy, mmap_mode="r")
    opened.rows(np.arange(case.rows))
    np.asarray(mapped).sum(dtype=np.float32)

    def ours() -> float:
        return per_gather(opened.rows, drawn(case, generator, DRAWS))

    found = pairs(repeats, ours, lambda: per_gather(lambda ids: mapped[ids], drawn(case, generator, DRAWS)))
    yield f"{IDS} rows / `np.memmap`", spread(mine / other for mine, other in found), "at most 1.5"
    microseconds = spread((1e6 * mine for mine, _ in found), ".0f")
    yield f"{IDS} rows, microseconds", microseconds, ""
    library = library_rows(case)
    found = pairs(repeats, ours, lambda: per_gather(library, drawn(case, generator, LIBRARY_DRAWS)))
    name, goal = ("`zarr.Array.oindex`", "at least 200") if case.store == "zarr" else ("h5py, sorted ids", "")
    yield f"{name} / {IDS} rows", spread((other / mine for mine, other in found), ".0f"), goal


def opens(case: Case, repeats: int) -> Iterator[tuple[str, str, str]]:
    """Opening a copy for the first time, and again."""
    notes, first, later = Path(os.environ["XDG_CACHE_HOME"]) / "teachercache", [], []
    for _ in range(repeats):
        remove_path(notes)
        first.append(seconds(lambda: cache.open(case.target)))
        later.append(seconds(lambda: cache.open(case.target)))
    size = sum(path.stat().st_size for path in case.target.rglob("*") if path.is_file())
    yield "first open (SHA-256), s", spread(first, ".3f"), ""
    yield "first open, GB/s", spread(size / 1e9 / each for each in first), ""
    yield "later open, s", spread(later, ".4f"), ""
    payload = 2 * case.rows * case.classes
    yield "stored bytes / payload bytes", f"{size / payload:.4f}", "at most 1.02 from 100 MB"


def writes(case: Case, values: NDArray[Any], repeats: int) -> Iterator[tuple[str, str, str]]:
    """Row blocks against `np.save`, and the seal."""
    found = pairs(repeats, lambda: write_all_blocks(case, values), lambda: save_and_sync(case.npy, values))
    yield (
        "speed of block writes / `np.save` + fsync",
        spread(other / mine for mine, other in found),
        "at least 0.7",
    )
    yield "block writes, s", spread(mine for mine, _ in found), ""
    yield "seal and publish, s", spread(sealing(case, values) for _ in range(max(1, repeats // 2))), ""


def measured(case: Case, repeats: int) -> Iterator[tuple[str, str, str]]:
    """What is measured of one case: name, numbers, goal."""
    values = logits(case.rows, case.classes)
    yield from writes(case, values, repeats)
    del values
    yield from opens(case, repeats)
    opened = cache.open(case.target)
    yield from loads(case, opened, repeats)
    yield from gathers(case, opened, repeats)


def machine() -> str:
    """What the numbers were taken on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    names = ("numpy", "zarr", "h5py", "numcodecs", "google-crc32c")
    libraries = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {libraries}"


def load_now() -> str:
    """The load averages: other work on the machine shows here."""
    return " ".join(f"{each:.2f}" for each in os.getloadavg())


def main() -> None:
    """Measure every case and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 400])
    options = parser.parse_args()
    shapes = [(1000, size) for size in options.sizes] + [(10, min(options.sizes))]
    base = Path(tempfile.mkdtemp(prefix="cache-io-"))
    os.environ["XDG_CACHE_HOME"] = str(base / "notes")
    print(f"{machine()}\n\nload before: {load_now()}\n")
    print("| cache | what | median (min to max, n) | goal |\n|---|---|---|---|")
    try:
        for classes, size in shapes:
            for store in ("zarr", "hdf5"):
                case = Case(store, classes, size, base / f"{store}-{classes}-{size}")
                case.folder.mkdir()
                for what, numbers, goal in measured(case, options.repeats):
                    print(f"| {case} | {what} | {numbers} | {goal} |", flush=True)
                remove_path(case.folder)
    finally:
        shutil.rmtree(base)
    print(f"\nload after: {load_now()}")


if __name__ == "__main__":
    main()
