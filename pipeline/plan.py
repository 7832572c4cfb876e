"""What a dump will cost, and when it pays: predicted from a few measured batches."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.cache import paths
from pipeline.cache.blocks import Block, StorePlan, plan_store
from pipeline.cache.codecs import Format, encode, is_padded
from pipeline.dumps.field import Field
from pipeline.files import sha256_of, write_bytes

BATCHES = 3  # measured, after one that warms up
PROBE_BYTES = 16 << 20  # written and read back, to know the disk


@dataclass(frozen=True)
class Prediction:
    """The cost of one dump.

    Attributes:
        bytes: of the rows, padding and checksums; exact where nothing is compressed. Metadata are a few KB more.
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
class Disk:
    """Seconds a byte: to write, flush and hash; and to read."""

    write: float
    read: float


def predict(field: Field, *, views: int, batch: int, store: Format, epochs: int, disk: Disk) -> Prediction:
    """Measure a few batches and scale them to the whole dump.

    Args:
        field: ready to be computed; the teacher's weights may be any.
        views: of each sample.
        batch: rows a forward pass.
        store: "zarr" or "hdf5".
        epochs: of the students that would ask a live teacher.
        disk: as `measure_disk` found it.
    """
    plan = plan_store(field.arrays, views=views, rows=field.rows, batch=batch)
    forward, shares = _measure(field, plan, batch, store)
    blocks = len(list(plan.blocks()))
    stored = sum(
        math.ceil(shares[name] * _padded_rows(plan, store, name)) + blocks * paths.CRC_BYTES * (store == "zarr")
        for name in plan.arrays
    )
    files = len(paths.metadata(store, plan.arrays)) + (blocks * len(plan.arrays) if store == "zarr" else 1)
    once = forward * field.rows
    return Prediction(
        bytes=stored,
        files=files,
        forward_seconds=once,
        dump_seconds=once * views + stored * disk.write,
        live_seconds=once * epochs,
        read_seconds=stored * disk.read,
    )


def _padded_rows(plan: StorePlan, store: Format, name: str) -> int:
    if not is_padded(store, plan.arrays[name].codec):
        return plan.views * plan.rows
    return len(list(plan.blocks())) * plan.chunk_rows


def _measure(field: Field, plan: StorePlan, batch: int, store: Format) -> tuple[float, dict[str, float]]:
    """Seconds a row, and stored bytes a row of each array."""
    rows = min(batch, field.rows)
    field.compute(Block(0, 0, 0, rows))
    rows = min(BATCHES * batch, field.rows)
    seconds = _timed(lambda: field.compute(Block(0, 0, 0, rows)))
    values = field.compute(Block(0, 0, 0, rows))
    shares = {
        name: len(encode(values[name], chunk_rows=rows, codec=array.codec, store=store)) / rows
        for name, array in plan.arrays.items()
    }
    return seconds / rows, shares


def measure_disk(folder: Path) -> Disk:
    """Write, flush and hash a file in a folder, and read it again; nothing stays."""
    data = np.random.default_rng(0).bytes(PROBE_BYTES)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".plan-") as place:
        probe = Path(place) / "probe"
        write = _timed(lambda: write_bytes(probe, data)) + _timed(lambda: sha256_of(probe))
        read = _timed(probe.read_bytes)
    return Disk(write / PROBE_BYTES, read / PROBE_BYTES)


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
