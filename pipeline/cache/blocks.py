"""Plans of arrays and of the row blocks they are written in. Pure; no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.base.errors import InputError
from pipeline.cache.codecs import Codec
from pipeline.cache.dtypes import DType, storage_dtype

TARGET_BYTES = 8 << 20  # of a chunk, where the number of files allows
MAX_TARGET_BYTES = 64 << 20
MAX_CHUNK_BYTES = 1 << 30  # of a decoded chunk: the most that one read allocates unasked
MAX_FILES = 190  # of 200 an output may have; the rest are metadata


@dataclass(frozen=True)
class ArrayForm:
    """What a reader expects of an array: the shape of a row (None: any), its number format on disk."""

    row_shape: tuple[int, ...] | None
    dtype: DType


@dataclass(frozen=True)
class ArrayPlan(ArrayForm):
    """One array to be written: the shape of a row, its number format on disk, its compression."""

    row_shape: tuple[int, ...]
    codec: Codec = "none"

    @property
    def row_bytes(self) -> int:
        return math.prod(self.row_shape) * storage_dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Block:
    """Rows [start, stop) of one view: the unit of work, of resuming and of chunks.

    Attributes:
        index: its number within the view.
    """

    view: int
    index: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.view}-{self.index}"

    def __str__(self) -> str:
        return f"view {self.view}, rows {self.start} to {self.stop - 1}"


BlockKey = tuple[str, Block]  # an array's name, and one of its blocks


def cut_blocks(views: int, rows: int, chunk_rows: int) -> Iterator[Block]:
    """All blocks of (views, rows), in order."""
    for view in range(views):
        for index, start in enumerate(range(0, rows, chunk_rows)):
            yield Block(view, index, start, min(start + chunk_rows, rows))


@dataclass(frozen=True)
class StorePlan:
    """The arrays of one dump, all (views, rows, ...), and how their rows are cut.

    Attributes:
        arrays: by name.
        views, rows: the two leading axes.
        chunk_rows: rows of a block, a multiple of `batch` unless one block holds them all.
    """

    arrays: Mapping[str, ArrayPlan]
    views: int
    rows: int
    chunk_rows: int

    def blocks(self) -> Iterator[Block]:
        """All blocks, in order."""
        return cut_blocks(self.views, self.rows, self.chunk_rows)

    @property
    def bytes(self) -> int:
        """Of all rows, before any compression."""
        return sum(
            math.prod(self.shape(name)) * storage_dtype(array.dtype).itemsize for name, array in self.arrays.items()
        )

    def shape(self, array: str) -> tuple[int, ...]:
        """The whole array's shape."""
        return (self.views, self.rows, *self.arrays[array].row_shape)


def plan_store(arrays: Mapping[str, ArrayPlan], *, views: int, rows: int, batch: int) -> StorePlan:
    """Cut the rows evenly into blocks of whole batches.

    Chunks are about 8 MB, larger (up to 64 MB) where there would be too many files. Of the sizes
    that do, the one that divides the rows most evenly, since a store writes its last chunk full.

    Raises:
        InputError: a single batch of rows is beyond any chunk.
    """
    widest = max(array.row_bytes for array in arrays.values())
    if widest * min(batch, rows) > MAX_CHUNK_BYTES:
        raise InputError(
            "batch" if batch > 1 else "a row",
            expected=f"at most {MAX_CHUNK_BYTES // widest} rows of {widest:,} bytes, 1 GiB a chunk",
            found=str(batch),
            fix="lower the dump's batch" if batch > 1 else "use smaller batches",
        )
    total = widest * rows
    files = MAX_FILES // (views * len(arrays)) or 1
    chunks = min(math.ceil(total / TARGET_BYTES), max(files, math.ceil(total / MAX_TARGET_BYTES)))
    batches = math.ceil(rows / batch)
    least = math.ceil(batches / max(1, min(chunks, batches)))
    most = max(least, min(2 * least, MAX_TARGET_BYTES // (widest * batch)))
    per_chunk = min(range(least, most + 1), key=lambda size: (math.ceil(batches / size) * size, size))
    return StorePlan(arrays, views, rows, min(per_chunk * batch, rows))
