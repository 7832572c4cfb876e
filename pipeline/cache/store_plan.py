"""Plans of stores: how a dump's arrays are cut into chunks, and what it computes and keeps at a time. Pure; no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from pipeline.base.errors import InputError
from pipeline.cache.blocks import ArrayPlan, Block, cut_blocks
from pipeline.cache.chunk_grid import ChunkGrid

PLAIN_CHUNK_BYTES = 1 << 20  # of a chunk that is mapped: its checksum is one look
PACKED_CHUNK_BYTES = 128 << 10  # decoded, of a compressed chunk: what a random row costs
BLOCK_BYTES = 8 << 20  # that a dump computes and keeps at a time, where that makes no more than `MAX_FILES`
MAX_BLOCK_BYTES = 64 << 20
SMALLEST_SHARE = 16  # a chunk has at least 1/16 of the rows that it may have
MAX_PADDING = 0.03  # of a view's rows, that the last chunk is filled up with
MAX_CHUNK_BYTES = 1 << 30  # of a decoded chunk: the most that one read allocates unasked
MAX_FILES = 64  # of an array
MAX_STORE_FILES = 96  # shards of all arrays: each takes 170 bytes of a manifest, which stays below 64 KiB


@dataclass(frozen=True)
class StorePlan:
    """The arrays of one dump, all (views, rows, ...), and how their rows are cut.

    Attributes:
        arrays: by name.
        views, rows: the two leading axes.
        block_rows: rows of a block, the unit of a dump's work: whole batches, and whole chunks of each array.
        grids: by array, its chunks and shards.
    """

    arrays: Mapping[str, ArrayPlan]
    views: int
    rows: int
    block_rows: int
    grids: Mapping[str, ChunkGrid]

    def blocks(self) -> Iterator[Block]:
        """All blocks, in order."""
        return cut_blocks(self.views, self.rows, self.block_rows)

    @property
    def bytes(self) -> int:
        """Of all rows, before any compression."""
        return sum(self.views * self.rows * array.row_bytes for array in self.arrays.values())

    @property
    def chunks(self) -> int:
        """Of all arrays."""
        return sum(grid.count for grid in self.grids.values())

    @property
    def files(self) -> int:
        """Shards of all arrays."""
        return sum(math.prod(grid.shards) for grid in self.grids.values())

    @property
    def block_files(self) -> int:
        """Blocks of all arrays."""
        return self.views * -(-self.rows // self.block_rows) * len(self.arrays)

    def shape(self, array: str) -> tuple[int, ...]:
        """The whole array's shape."""
        return (self.views, self.rows, *self.arrays[array].row_shape)


def plan_store(
    arrays: Mapping[str, ArrayPlan], *, views: int, rows: int, batch: int, chunk_bytes: int | None = None
) -> StorePlan:
    """Cut the rows into chunks, blocks of whole batches, and shards.

    Args:
        arrays: by name.
        views, rows: their leading axes.
        batch: rows of a forward pass.
        chunk_bytes: of a decoded chunk; None: by the codec.

    Raises:
        InputError: a single batch of rows is beyond any chunk.
    """
    widest = max(array.row_bytes for array in arrays.values())
    if widest * min(batch, rows) > MAX_CHUNK_BYTES:
        raise InputError(
            "batch" if batch > 1 else "a row",
            expected=f"at most {MAX_CHUNK_BYTES // widest} rows of {widest:,} bytes, 1 GiB a batch",
            found=str(batch),
            fix="lower the dump's batch" if batch > 1 else "use smaller batches",
        )
    files = max(1, min(MAX_FILES, MAX_STORE_FILES // len(arrays)))
    block_rows = _choose_block_rows(widest, views, rows, batch, files, least=chunk_bytes or 0)
    chunk_rows = {
        name: _choose_chunk_rows(
            rows, block_rows, max(1, _target_bytes(array, chunk_bytes) // array.row_bytes), padded=array.codec == "none"
        )
        for name, array in arrays.items()
    }
    grids = {name: ChunkGrid(views, rows, each, (1, block_rows)) for name, each in chunk_rows.items()}
    return StorePlan(arrays, views, rows, block_rows, {name: _pack(grid, files) for name, grid in grids.items()})


def plan_whole_blocks(
    arrays: Mapping[str, ArrayPlan], *, views: int, rows: int, batch: int, block_rows: int | None = None
) -> StorePlan:
    """Arrays whose blocks are each one chunk, as it is in memory: for rows that are kept for a while, and mapped.

    Args:
        arrays, views, rows, batch: see `plan_store`; no codec is kept.
        block_rows: rows of a block; None: as of a dump.
    """
    widest = max(array.row_bytes for array in arrays.values())
    block = block_rows or _choose_block_rows(widest, views, rows, batch, MAX_FILES)
    chunk = min(block, rows)
    plain = {name: replace(array, codec="none") for name, array in arrays.items()}
    return StorePlan(plain, views, rows, block, dict.fromkeys(plain, ChunkGrid(views, rows, chunk, (1, chunk))))


def replan_store(arrays: Mapping[str, ArrayPlan], grids: Mapping[str, ChunkGrid], batch: int) -> StorePlan:
    """The plan of a store that is to have just these chunks and shards.

    Raises:
        InputError: shards that begin within a batch, or within a chunk of another array.
    """
    first = next(iter(grids.values()))
    whole = count_whole_rows(grids, batch)
    most = max(1, BLOCK_BYTES // (whole * max(array.row_bytes for array in arrays.values())))
    cut = [grid.shard[1] for grid in grids.values() if grid.shards[1] > 1]
    if any(rows % whole for rows in cut):
        expected, found = f"shards of whole batches and chunks, {whole} rows", f"of {min(cut)}"
        raise InputError("a cache's arrays", expected=expected, found=found, fix="dump it again")
    if cut:  # a shard is made of whole blocks
        most = max(each for each in _list_divisors(math.gcd(*cut) // whole) if each <= most)
    return StorePlan(arrays, first.views, first.rows, whole * most, grids)


def count_whole_rows(grids: Mapping[str, ChunkGrid], batch: int) -> int:
    """The fewest rows that are whole batches, and whole chunks of each array."""
    return math.lcm(batch, *(grid.chunk_rows for grid in grids.values() if grid.chunk_rows < grid.rows))


def _target_bytes(array: ArrayPlan, chunk_bytes: int | None) -> int:
    return chunk_bytes or (PLAIN_CHUNK_BYTES if array.codec == "none" else PACKED_CHUNK_BYTES)


def _choose_block_rows(widest: int, views: int, rows: int, batch: int, files: int, *, least: int = 0) -> int:
    """A batch, doubled until a block is large enough (at least so many bytes), or holds all rows: so that many numbers
    divide it.
    """
    enough = max(least, min(MAX_BLOCK_BYTES, max(BLOCK_BYTES, views * rows * widest // files)))
    block = batch
    while block < rows and block * widest < enough:
        block *= 2
    return block


def _choose_chunk_rows(rows: int, block_rows: int, most: int, *, padded: bool) -> int:
    """Rows of a chunk, at most so many: all, or a divisor of a block's.

    Where the last chunk of a view costs what it is filled up with (`padded`): the largest that wastes little.
    """
    if rows <= min(most, block_rows):
        return rows
    fitting = [size for size in _list_divisors(block_rows) if size <= most]
    if not padded:
        return fitting[-1]
    large = [size for size in fitting if SMALLEST_SHARE * size >= fitting[-1]]
    thrifty = [size for size in large if -rows % size <= MAX_PADDING * rows]
    return max(thrifty) if thrifty else min(large, key=lambda size: (-rows % size, -size))


def _list_divisors(number: int) -> list[int]:
    small = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return sorted({*small, *(number // each for each in small)})


def _pack(grid: ChunkGrid, files: int) -> ChunkGrid:
    """The same chunks in shards of whole blocks: a block each where that makes few enough files."""
    blocks = -(-grid.rows // grid.shard[1])
    if grid.views > files:
        views, per_shard = -(-grid.views // files), blocks
    else:
        views, per_shard = 1, -(-blocks // (files // grid.views))
    rows = min(per_shard * grid.shard[1], grid.per_view * grid.chunk_rows)
    return ChunkGrid(grid.views, grid.rows, grid.chunk_rows, (views, rows))
