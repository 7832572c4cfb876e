"""Rows of one view, and what an array's rows are. Pure; no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.cache.codecs import Codec
from pipeline.cache.dtypes import DType, storage_dtype


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
    """Rows [start, stop) of one view: of one chunk, or of the several that a dump computes and keeps together.

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

    def overlaps(self, other: Block) -> bool:
        """Whether some row is in both."""
        return self.view == other.view and self.start < other.stop and other.start < self.stop

    def split(self, rows: int) -> list[Block]:
        """The same rows in blocks of so many."""
        starts = range(self.start, self.stop, rows)
        return [Block(self.view, start // rows, start, min(start + rows, self.stop)) for start in starts]

    def __str__(self) -> str:
        return f"view {self.view}, rows {self.start} to {self.stop - 1}"


BlockKey = tuple[str, Block]  # an array's name, and some of its rows


def cut_blocks(views: int, rows: int, block_rows: int) -> Iterator[Block]:
    """All blocks of (views, rows), in order."""
    for view in range(views):
        for index, start in enumerate(range(0, rows, block_rows)):
            yield Block(view, index, start, min(start + block_rows, rows))
