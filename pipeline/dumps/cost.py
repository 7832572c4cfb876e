"""Predict what a dump costs, and when it pays, from a few measured batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pipeline.base.disk_speed import PAGE_BYTES, DiskSpeed
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


@dataclass(frozen=True)
class DumpCost:
    """The cost of one dump.

    Attributes:
        bytes: of the rows, padding, checksums and chunk table; exact where nothing is compressed. Metadata are a few KB
            more.
        table_bytes: of the chunk table alone.
        files: of the finished cache, the manifest apart.
        forward_seconds: of the teacher, once over all rows of one view.
        pass_seconds: of the teacher, over all views: what dumps that are made together spend once.
        dump_seconds: all views, encoding, writing and sealing.
        first_open_seconds: to check each byte of a copy once.
        live_seconds: what the teacher would cost one student that asks it in every epoch.
        read_seconds: what the cache costs one student instead.
        decoded_bytes: of all rows as a student's memory would hold them.
        epoch_bytes: that an epoch reads from the disk: of rows at random the pages that they lie on, each once where
            memory holds a view of the field; of compressed ones, in `order: blocks`, all chunks of a view.
        epoch_seconds: that the disk takes for these.
        live_epoch_seconds: that the teacher would take for an epoch.
        packed: some array is compressed.
    """

    bytes: int
    table_bytes: int
    files: int
    forward_seconds: float
    pass_seconds: float
    dump_seconds: float
    first_open_seconds: float
    live_seconds: float
    read_seconds: float
    decoded_bytes: int
    epoch_bytes: int
    epoch_seconds: float
    live_epoch_seconds: float
    packed: bool

    @property
    def pays_from(self) -> int | None:
        """The number of students from which the cache is cheaper; None if it never is."""
        saved = self.live_seconds - self.read_seconds
        return math.floor(self.dump_seconds / saved) + 1 if saved > 0 else None


def predict_cost(
    teacher: TeacherLike,
    field: Field,
    seen: Samples,
    *,
    store: Format,
    chunk_kib: int | None,
    epochs: int,
    disk: DiskSpeed,
    memory: int,
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
        memory: free bytes, that may hold what was read of a field.
    """
    plan = plan_field_store(field, seen, chunk_kib)
    forward, derived, once_for_all, shares = _measure_batches(teacher, field, seen, store)
    table = plan.chunks * RECORD_BYTES
    rows = {name: math.ceil(shares[name] * _count_stored_rows(plan, store, name)) for name in plan.arrays}
    stored = table + sum(
        rows[name] + (grid.count * CRC_BYTES + math.prod(grid.shards) * grid.index_bytes) * (store == "zarr")
        for name, grid in plan.grids.items()
    )
    once = forward * seen.rows
    passes = seen.views.count if isinstance(field, RowField) else 1
    epoch_bytes, epoch_seconds = _predict_epoch(field, plan, rows, disk, memory)
    live = once + derived * plan.rows
    return DumpCost(
        bytes=stored,
        table_bytes=table,
        files=len(paths.list_metadata_paths(store, plan.arrays)) + (plan.files if store == "zarr" else 1),
        forward_seconds=once,
        pass_seconds=once * passes,
        dump_seconds=once * passes + once_for_all + derived * plan.views * plan.rows + stored * disk.write,
        first_open_seconds=stored * max(disk.hash, disk.read),
        live_seconds=live * epochs,
        read_seconds=stored * disk.read,
        decoded_bytes=plan.bytes,
        epoch_bytes=epoch_bytes,
        epoch_seconds=epoch_seconds,
        live_epoch_seconds=live,
        packed=any(array.codec != "none" for array in plan.arrays.values()),
    )


def _predict_epoch(
    field: Field, plan: StorePlan, stored: Mapping[str, int], disk: DiskSpeed, memory: int
) -> tuple[int, float]:
    """Bytes of a field that an epoch, of one view, reads from the disk, and the seconds that takes.

    Args:
        field, plan: what is stored.
        stored: by array, bytes of its rows in all views.
        disk, memory: see `predict_cost`.
    """
    size, seconds = 0, 0.0
    for name, array in plan.arrays.items():
        view = stored[name] // plan.views
        if isinstance(field, RowField) and array.codec == "none":
            pages = -(-view // PAGE_BYTES)
            if view > memory:  # a page is gone when another of its rows is asked for; a row begins anywhere on one
                pages = round(plan.rows * (1 + (array.row_bytes - 1) / PAGE_BYTES))
            size, seconds = size + pages * PAGE_BYTES, seconds + pages * disk.read_page
        else:  # chunk by chunk, or batch by batch, in order
            size, seconds = size + view, seconds + view * disk.read
    return size, seconds


def _count_stored_rows(plan: StorePlan, store: Format, name: str) -> int:
    """Rows of an array with what fills up its last chunks, where that is not compressed away."""
    grid, codec = plan.grids[name], plan.arrays[name].codec
    return grid.count * grid.chunk_rows if codec == "none" and is_padded(store, codec) else plan.views * plan.rows


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


def _time_call(run: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and the result."""
    start = time.perf_counter()
    made = run()
    return time.perf_counter() - start, made
