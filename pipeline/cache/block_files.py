"""The finished blocks of an unfinished store: one file each, whatever the format, laid out as a Zarr shard is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.base.files import flush_file, write_bytes
from pipeline.cache.blocks import Block
from pipeline.cache.chunk_grid import CRC_BYTES, NO_CHUNK, SLOT
from pipeline.cache.codecs import Format, decode, encode
from pipeline.cache.crc import crc32c, crc_to_bytes
from pipeline.cache.dtypes import storage_dtype
from pipeline.cache.shard_index import encode_shard_index
from pipeline.cache.store_plan import StorePlan

BlockFunction = Callable[[Block], Mapping[str, NDArray[Any]]]


class FinishedChunk(NamedTuple):
    """A chunk as it was read back: the bytes that stand for its rows, and their checksum."""

    payload: NDArray[np.uint8]
    crc32c: int


# Hands an array's block to a store that is being assembled; blocks come in order, one array after the other.
Put = Callable[[str, Block, list[FinishedChunk]], None]


@dataclass(frozen=True)
class BlockFiles:
    """One file a block and array: its chunks, each followed by its CRC-32C, and their index. Whole, or not there."""

    folder: Path
    plan: StorePlan
    store: Format

    def path(self, name: str, block: Block) -> Path:
        return self.folder / f"{name}-{block.name}.raw"

    def has(self, block: Block) -> bool:
        """Whether a block's files are all there and whole."""
        return all(self.path(name, block).exists() and self._is_sound(name, block) for name in self.plan.arrays)

    def missing_blocks(self) -> list[Block]:
        """The blocks that are still to be written, in order."""
        return [block for block in self.plan.blocks() if not self.has(block)]

    def _is_sound(self, name: str, block: Block) -> bool:
        try:
            self.read(name, block)
        except (InputError, ValueError):
            return False
        return True

    def count_slots(self, name: str) -> int:
        """Places for chunks in a block's file: as many as a block may have."""
        grid = self.plan.grids[name]
        return min(-(-self.plan.block_rows // grid.chunk_rows), grid.per_view)

    def write(self, name: str, block: Block, values: NDArray[Any]) -> None:
        """Write a block, whole or not at all."""
        array, rows = self.plan.arrays[name], self.plan.grids[name].chunk_rows
        expected = (block.stop - block.start, *array.row_shape)
        if values.shape != expected or values.dtype != storage_dtype(array.dtype):
            raise ValueError(f"array {name!r}: {values.dtype} {values.shape} for {array.dtype} {expected}")
        values = values.astype(storage_dtype(array.dtype), copy=False)
        payloads = [
            encode(values[start : start + rows], chunk_rows=rows, codec=array.codec, store=self.store)
            for start in range(0, len(values), rows)
        ]
        parts: list[bytes | memoryview] = []
        for payload in payloads:
            parts += [payload, crc_to_bytes(crc32c(np.frombuffer(payload, np.uint8)))]
        sizes = np.array([len(payload) for payload in payloads])
        end = encode_shard_index(self.count_slots(name), np.arange(len(sizes)), sizes)
        # Not flushed here: waiting for the disk at every block is most of the time. What a power cut
        # spoils is seen by its CRC when the dump goes on, and made again.
        write_bytes(self.path(name, block), *parts, end, flush=False)

    def read(self, name: str, block: Block) -> list[FinishedChunk]:
        """Read a finished block's chunks.

        Raises:
            InputError: the file has changed since it was written; it is deleted, to be made again.
        """
        path = self.path(name, block)
        chunks = _split_chunks(np.fromfile(path, np.uint8), self.count_slots(name))
        if len(chunks) != len(self.plan.grids[name].numbers(block)):
            path.unlink()
            raise InputError(str(path), expected="a block as it was written", found="other bytes", fix="run it again")
        return chunks

    def decode(self, name: str, block: Block, chunk: int, payload: NDArray[np.uint8]) -> NDArray[Any]:
        """The rows (n, ...) of one of a block's chunks, from what stands for them."""
        array, size = self.plan.arrays[name], self.plan.grids[name].chunk_rows
        rows: NDArray[Any] = decode(
            payload, dtype=array.dtype, row_shape=array.row_shape, chunk_rows=size, codec=array.codec, store=self.store
        )
        return rows[: block.stop - block.start - chunk * size]

    def map_block(self, name: str, block: Block) -> NDArray[Any]:
        """A finished block's rows (n, ...) where they lie; only of arrays that are not compressed, in one chunk."""
        array = self.plan.arrays[name]
        assert array.codec == "none"
        assert self.count_slots(name) == 1
        shape = (block.stop - block.start, *array.row_shape)
        return np.memmap(self.path(name, block), storage_dtype(array.dtype), "r", shape=shape)


def _split_chunks(data: NDArray[np.uint8], slots: int) -> list[FinishedChunk]:
    """The chunks of a block's file; none where it is not whole."""
    end = len(data) - CRC_BYTES
    begin = end - slots * SLOT.itemsize
    if begin < 0 or data[end:].tobytes() != crc_to_bytes(crc32c(data[begin:end])):
        return []
    chunks = []
    for offset, size in data[begin:end].view(SLOT).tolist():
        if offset == NO_CHUNK:
            continue
        payload = data[offset : offset + size - CRC_BYTES]
        crc = crc32c(payload)
        if data[offset + size - CRC_BYTES : offset + size].tobytes() != crc_to_bytes(crc):
            return []
        chunks.append(FinishedChunk(payload, crc))
    return chunks


def write_blocks(blocks: BlockFiles, pending: Iterable[Block], compute: BlockFunction) -> None:
    """Compute and write blocks; the disk takes one in while the next is computed."""
    with ThreadPoolExecutor(1) as flusher:
        flushed = []
        for block in pending:
            for name, values in compute(block).items():
                blocks.write(name, block, values)
                flushed.append(flusher.submit(flush_file, blocks.path(name, block)))
        for each in flushed:
            each.result()  # raises the disk's error, if there was one
