"""How an array's rows are cut into chunks, and how those are packed into the shards that are files. Pure; no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.blocks import Block

CRC_BYTES = 4  # that follow each chunk in a shard, and end its index
SLOT = np.dtype([("offset", "<u8"), ("bytes", "<u8")])  # of a shard's index
# Of the chunk table, one for each chunk: where its bytes lie (`file`: its number in the sorted names of the manifest's
# files), and their digests.
RECORD = np.dtype([("offset", "<u8"), ("bytes", "<u8"), ("file", "<u4"), ("crc32c", "<u4"), ("sha256", "u1", 32)])
RECORD_BYTES = RECORD.itemsize
NO_CHUNK = (1 << 64) - 1  # in both numbers of a slot beyond the array's edge


@dataclass(frozen=True)
class ChunkGrid:
    """The chunks of an array (views, rows, ...): numbered view by view, in order.

    Attributes:
        views, rows: the array's leading axes.
        chunk_rows: rows of a chunk, all of one view; the last one of a view may be shorter.
        shard: views and rows of a shard, the rows a multiple of `chunk_rows`. Where all chunks lie in one file: all.
    """

    views: int
    rows: int
    chunk_rows: int
    shard: tuple[int, int]

    @property
    def per_view(self) -> int:
        """Chunks of a view."""
        return -(-self.rows // self.chunk_rows)

    @property
    def count(self) -> int:
        """Chunks of the array."""
        return self.views * self.per_view

    @property
    def shards(self) -> tuple[int, int]:
        """Shards along the views, and along the rows."""
        return -(-self.views // self.shard[0]), -(-self.rows // self.shard[1])

    @property
    def slots(self) -> tuple[int, int]:
        """Places for chunks in a shard: views, and chunks of each."""
        return self.shard[0], self.shard[1] // self.chunk_rows

    @property
    def index_bytes(self) -> int:
        """Bytes of a shard's index, with its checksum."""
        return math.prod(self.slots) * SLOT.itemsize + CRC_BYTES

    def chunk(self, number: int) -> Block:
        """The rows of a chunk."""
        view, index = divmod(number, self.per_view)
        start = index * self.chunk_rows
        return Block(view, index, start, min(start + self.chunk_rows, self.rows))

    def find_rows(
        self, views: NDArray[np.int64] | int, ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The chunk (n,) of each row, and its number there (n,).

        Args:
            views: one, or one for each id, (n,).
            ids: of rows (n,).
        """
        if self.chunk_rows == self.rows:
            return np.broadcast_to(np.asarray(views, np.int64), ids.shape), ids
        return ids // self.chunk_rows + views * self.per_view, ids % self.chunk_rows

    def numbers(self, block: Block) -> range:
        """The numbers of the chunks that hold a block's rows."""
        first = block.view * self.per_view
        return range(first + block.start // self.chunk_rows, first + -(-block.stop // self.chunk_rows))

    def locate_chunks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Shard (n,) of each chunk, counted along the rows first, and its slot there (n,), counted likewise."""
        view, index = np.divmod(np.arange(self.count), self.per_view)
        (shard_view, view), (shard_index, index) = np.divmod(view, self.slots[0]), np.divmod(index, self.slots[1])
        return shard_view * self.shards[1] + shard_index, view * self.slots[1] + index

    def place_chunks(self, sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the chunks' bytes begin in their shards (n,), and the bytes of each shard: one after the other in the
        order of their slots, each followed by its checksum, then the index.

        Args:
            sizes: bytes of each chunk, without the checksum.
        """
        shard, slot = self.locate_chunks()
        order = np.lexsort((slot, shard))
        stored = sizes[order] + CRC_BYTES
        ends = np.cumsum(stored)
        counts = np.bincount(shard, minlength=math.prod(self.shards))
        before = np.concatenate([[0], ends])[np.cumsum(counts) - counts]
        offsets = np.empty_like(ends)
        offsets[order] = ends - stored - before[shard[order]]
        totals = np.concatenate([[0], ends])[np.cumsum(counts)] - before
        return offsets, totals + self.index_bytes


def encode_index(slots: int, places: NDArray[np.int64], offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> bytes:
    """The bytes of a shard's index, without the checksum that ends it.

    Args:
        slots: their number.
        places: the slots (n,) that hold a chunk.
        offsets, sizes: where each of these begins, and its bytes without its checksum.
    """
    index = np.full(slots, NO_CHUNK, np.uint64).repeat(2).view(SLOT)
    index["offset"][places], index["bytes"][places] = offsets, sizes + CRC_BYTES
    return index.tobytes()
