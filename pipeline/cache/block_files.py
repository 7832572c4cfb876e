"""The finished blocks of an unfinished store: one raw file each, whatever the format."""

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
from pipeline.cache.blocks import Block, StorePlan
from pipeline.cache.codecs import Format, decode, encode
from pipeline.cache.crc import crc32c, crc_to_bytes, split_checksum
from pipeline.cache.dtypes import storage_dtype

BlockFunction = Callable[[Block], Mapping[str, NDArray[Any]]]


class FinishedBlock(NamedTuple):
    """A block as it was read back: its rows (n, ...), and the bytes that stand for them with their checksum."""

    rows: NDArray[Any]
    payload: NDArray[np.uint8]
    crc32c: int


@dataclass(frozen=True)
class BlockFiles:
    """One file a block and array: its bytes, then their CRC-32C. Whole, or not there."""

    folder: Path
    plan: StorePlan
    store: Format

    def path(self, name: str, block: Block) -> Path:
        return self.folder / f"{name}-{block.name}.raw"

    def has(self, block: Block) -> bool:
        """Whether a block's files are all there and whole."""
        return all(self.path(name, block).exists() and self._is_sound(name, block) for name in self.plan.arrays)

    def missing_blocks(self) -> list[Block]:
        """The plan's blocks that are not there, in order."""
        return [block for block in self.plan.blocks() if not self.has(block)]

    def _is_sound(self, name: str, block: Block) -> bool:
        try:
            self.read(name, block)
        except (InputError, ValueError):
            return False
        return True

    def write(self, name: str, block: Block, values: NDArray[Any]) -> None:
        """Write a block, whole or not at all."""
        array = self.plan.arrays[name]
        expected = (block.stop - block.start, *array.row_shape)
        if values.shape != expected or values.dtype != storage_dtype(array.dtype):
            raise ValueError(f"array {name!r}: {values.dtype} {values.shape} for {array.dtype} {expected}")
        rows = values.astype(storage_dtype(array.dtype), copy=False)
        payload = encode(rows, chunk_rows=self.plan.chunk_rows, codec=array.codec, store=self.store)
        # Not flushed here: waiting for the disk at every block is most of the time. What a power cut
        # spoils is seen by its CRC when the dump goes on, and made again.
        write_bytes(
            self.path(name, block), payload, crc_to_bytes(crc32c(np.frombuffer(payload, np.uint8))), flush=False
        )

    def read(self, name: str, block: Block) -> FinishedBlock:
        """Read a finished block.

        Raises:
            InputError: the file has changed since it was written; it is deleted, to be made again.
        """
        array, path = self.plan.arrays[name], self.path(name, block)
        payload, crc, is_sound = split_checksum(np.fromfile(path, np.uint8))
        if not is_sound:
            path.unlink()
            raise InputError(str(path), expected="a block as it was written", found="other bytes", fix="run it again")
        rows = decode(
            payload,
            dtype=array.dtype,
            row_shape=array.row_shape,
            chunk_rows=self.plan.chunk_rows,
            codec=array.codec,
            store=self.store,
        )
        return FinishedBlock(rows[: block.stop - block.start], payload, crc)

    def map_block(self, name: str, block: Block) -> NDArray[Any]:
        """A finished block's rows (n, ...) where they lie; only of arrays that are not compressed."""
        array = self.plan.arrays[name]
        assert array.codec == "none"
        shape = (block.stop - block.start, *array.row_shape)
        return np.memmap(self.path(name, block), storage_dtype(array.dtype), "r", shape=shape)


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
