"""Predict what a dump costs, and when it pays, from a few measured batches."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipeline.base.files import hash_file, write_bytes
from pipeline.cache import cache_paths as paths
from pipeline.cache.blocks import Block
from pipeline.cache.chunk_grid import CRC_BYTES, RECORD_BYTES
from pipeline.cache.codecs import Format, encode, is_padded
from pipeline.cache.store_plan import StorePlan
from pipeline.dumps.dump_fields import plan_field_store
from pipeline.dumps.field import BatchField, Field, RowField
from pipeline.dumps.one_pass import make_block_function
from pipeline.teacher import Samples, TeacherLike

T = TypeVar("T")

BATCHES = 3  # measured, after one that warms up
PROBE_BYTES = 16 << 20  # written and read back, to know the disk


@dataclass(frozen=True)
class DumpCost:
    """The cost of one dump.

    Attributes:
        bytes: of the rows, padding, checksums and chunk table; exact where nothing is compressed. Metadata are a few KB
            more.
        files: of the finished cache, the manifest apart.
        forward_seconds: of the teacher, once over all rows of one view.
        dump_seconds: all views, encoding, writing and sealing.
        live_seconds: what the teacher would cost one student that asks it in every epoch.
        read_seconds: what the cache costs one student instead.
    """

    bytes: int
    files: int
    forward_seconds: float
    dump_seconds: float
    live_seconds: float
    read_seconds: float

    @property
    def pays_from(self) -> int | None:
        """The number of students from which the cache is cheaper; None if it never is."""
        saved = self.live_seconds - self.read_seconds
        return math.floor(self.dump_seconds / saved) + 1 if saved > 0 else None


@dataclass(frozen=True)
class DiskSpeed:
    """Seconds a byte: to write, flush and hash; and to read."""

    write: float
    read: float


def predict_cost(
    teacher: TeacherLike,
    field: Field,
    seen: Samples,
    *,
    store: Format,
    chunk_kib: int | None,
    epochs: int,
    disk: DiskSpeed,
) -> DumpCost:
    """Measure a few batches and scale them to the whole dump.

    Args:
        teacher: of the right architecture; its weights may be any.
        field: ready to be computed.
        seen: what the dump is of.
        store: "zarr" or "hdf5".
        chunk_kib: of a decoded chunk; None: by the codec.
        epochs: of the students that would ask a live teacher.
        disk: as `measure_disk_speed` found it.
    """
    plan = plan_field_store(field, seen, chunk_kib)
    forward, derived, once_for_all, shares = _measure_batches(teacher, field, seen, store)
    stored = plan.chunks * RECORD_BYTES + sum(
        math.ceil(shares[name] * _count_padded_rows(plan, store, name))
        + (grid.count * CRC_BYTES + math.prod(grid.shards) * grid.index_bytes) * (store == "zarr")
        for name, grid in plan.grids.items()
    )
    files = len(paths.list_metadata_paths(store, plan.arrays)) + (plan.files if store == "zarr" else 1)
    once = forward * seen.rows
    passes = seen.views.count if isinstance(field, RowField) else 1
    return DumpCost(
        bytes=stored,
        files=files,
        forward_seconds=once,
        dump_seconds=once * passes + once_for_all + derived * plan.views * plan.rows + stored * disk.write,
        live_seconds=(once + derived * plan.rows) * epochs,
        read_seconds=stored * disk.read,
    )


def _count_padded_rows(plan: StorePlan, store: Format, name: str) -> int:
    if not is_padded(store, plan.arrays[name].codec):
        return plan.views * plan.rows
    return plan.grids[name].count * plan.grids[name].chunk_rows


def _measure_batches(
    teacher: TeacherLike, field: Field, seen: Samples, store: Format
) -> tuple[float, float, float, dict[str, float]]:
    """Seconds a sample of the pass, a batch of what is made from it, and before the first of these; and stored
    bytes a row of each array.
    """
    rows = field if isinstance(field, RowField) else field.source
    compute = make_block_function(teacher, seen, rows)
    compute(Block(0, 0, 0, min(seen.batch, seen.rows)))
    few = Block(0, 0, 0, min(BATCHES * seen.batch, seen.rows))
    seconds, values = _time_call(lambda: compute(few))
    forward, derived, once, count = seconds / few.stop, 0.0, 0.0, few.stop
    if isinstance(field, BatchField):
        (samples,) = values.values()
        once, batches = _time_call(lambda: field.prepare(lambda ids: samples[ids % len(samples)]))
        count = min(BATCHES, field.batches)
        batches(Block(0, 0, 0, 1))
        seconds, values = _time_call(lambda: batches(Block(0, 0, 0, count)))
        derived = seconds / count
    shares = {
        name: len(encode(values[name], chunk_rows=count, codec=array.codec, store=store)) / count
        for name, array in field.arrays.items()
    }
    return forward, derived, once, shares


def measure_disk_speed(folder: Path) -> DiskSpeed:
    """Write, flush and hash a file in a folder, and read it again; nothing stays."""
    data = np.random.default_rng(0).bytes(PROBE_BYTES)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".plan-") as place:
        probe = Path(place) / "probe"
        write = _time_call(lambda: write_bytes(probe, data))[0] + _time_call(lambda: hash_file(probe))[0]
        read = _time_call(probe.read_bytes)[0]
    return DiskSpeed(write / PROBE_BYTES, read / PROBE_BYTES)


def _time_call(run: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and the result."""
    start = time.perf_counter()
    made = run()
    return time.perf_counter() - start, made
