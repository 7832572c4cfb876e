"""An array whose chunks must be decoded, or fetched: they are when asked for, and as many are held as fit a budget."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.blocks import Block
from pipeline.cache.chunk_table import ArrayChunks, StoredChunk
from pipeline.cache.codecs import Format, decode
from pipeline.cache.digests import count_threads
from pipeline.cache.dtypes import storage_dtype
from pipeline.cache.folder import Folder, LocalFolder, chunk_error
from pipeline.cache.mapped_array import MappedFiles

DECODED_BYTES = 1 << 30  # of decoded chunks that an array keeps, where nobody says otherwise


def read_rows(folder: Folder, chunks: ArrayChunks, block: Block, store: Format, fix: str) -> NDArray[Any]:
    """The rows (n, ...) of a block of whole chunks, checked and decoded.

    Raises:
        InputError: the bytes are not those that were sealed, or no whole rows.
    """
    found = [chunks.find(number) for number in chunks.grid.numbers(block)]
    parts = [_decode(folder, chunks, each, folder.read_chunk(each, fix), store=store, fix=fix) for each in found]
    rows: NDArray[Any] = np.concatenate(parts)[: block.stop - block.start]
    return rows


def _decode(
    folder: Folder, chunks: ArrayChunks, stored: StoredChunk, data: NDArray[np.uint8], *, store: Format, fix: str
) -> NDArray[Any]:
    """The rows of a chunk, its padding with them, from its checked bytes."""
    info = chunks.info
    try:
        rows: NDArray[Any] = decode(
            data,
            store=store,
            dtype=info.dtype,
            row_shape=info.row_shape,
            chunk_rows=info.chunk_rows,
            codec=info.codec,
        )
    except ValueError as error:
        raise chunk_error(folder.name, stored, str(error), fix) from None
    return rows


class DecodedArray:
    """An array whose chunks are fetched and decoded when asked for, in a pool of threads.

    Decoded chunks lie in slots of one array, so that one indexing picks rows from any of them; the least recently used
    make room for others.

    Args:
        folder, chunks, store, fix: see `open_array`.
        memory: bytes of decoded chunks that are kept.
    """

    def __init__(self, folder: Folder, chunks: ArrayChunks, store: Format, fix: str, memory: int) -> None:
        self.folder, self.chunks, self.store, self.fix, self.memory = folder, chunks, store, fix, memory
        info, grid = chunks.info, chunks.grid
        self.grid, self.lock, self.clock = grid, Lock(), 0
        count = max(1, min(grid.count, memory // (info.chunk_rows * info.row_bytes)))
        self.slot_of = np.full(grid.count, -1, np.int32)  # by chunk
        self.chunk_in = np.full(count, -1, np.int64)  # by slot
        self.used = np.zeros(count, np.int64)  # when, by slot
        self.slots: NDArray[Any] | None = None  # allocated when the first chunk is decoded
        self.pools: dict[int, ThreadPoolExecutor] = {}  # by process
        self.files = MappedFiles(folder, chunks, fix) if isinstance(folder, LocalFolder) else None
        self.read = folder.read_chunk if self.files is None else self.files.read

    def load(self) -> NDArray[Any]:
        values: NDArray[Any] = np.empty(self.chunks.info.shape, storage_dtype(self.chunks.info.dtype))

        def read(number: int) -> None:
            block = self.grid.chunk(number)
            rows = self._decode_chunk(number, self.folder.read_chunk)
            values[block.view, block.start : block.stop] = rows[: block.stop - block.start]

        with ThreadPoolExecutor(count_threads()) as pool:
            for _ in pool.map(read, range(self.grid.count)):
                pass
        return values

    def gather(self, views: NDArray[np.int64] | int, ids: NDArray[np.int64]) -> NDArray[Any]:
        wanted, within = self.grid.find_rows(views, ids)
        picked: NDArray[Any] = np.empty((len(ids), *self.chunks.info.row_shape), storage_dtype(self.chunks.info.dtype))
        numbers = np.unique(wanted)
        with self.lock:
            for first in range(0, len(numbers), len(self.used)):  # as many chunks at a time as there are slots
                some = numbers[first : first + len(self.used)]
                slots = self._hold_chunks(some)
                mine = slice(None) if len(some) == len(numbers) else np.isin(wanted, some)
                picked[mine] = slots[self.slot_of[wanted[mine]], within[mine]]
        return picked

    def release_pages(self) -> None:
        if self.files is not None:
            self.files.release_pages()

    def _hold_chunks(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The slots, with these chunks in them."""
        info = self.chunks.info
        if self.slots is None:
            self.slots = np.empty((len(self.used), info.chunk_rows, *info.row_shape), storage_dtype(info.dtype))
        self.clock += 1
        there = self.slot_of[numbers] >= 0
        self.used[self.slot_of[numbers[there]]] = self.clock
        missing = numbers[~there]
        if len(missing):
            self._decode_chunks(missing, self.slots)
        return self.slots

    def _decode_chunks(self, missing: NDArray[np.int64], slots: NDArray[Any]) -> None:
        oldest = np.argpartition(self.used, len(missing) - 1)[: len(missing)]
        given_up = self.chunk_in[oldest]
        self.slot_of[given_up[given_up >= 0]] = -1
        self.chunk_in[oldest] = -1

        def decode_into(number: int, slot: int) -> None:
            rows = self._decode_chunk(number, self.read)
            slots[slot, : len(rows)] = rows

        pool = self._find_pool()
        begun = [pool.submit(decode_into, *each) for each in zip(missing.tolist(), oldest.tolist(), strict=True)]
        wait(begun)  # all of them, also where one fails: the slots may then be given to other chunks
        for each in begun:
            each.result()  # raises the first error
        self.slot_of[missing], self.chunk_in[oldest], self.used[oldest] = oldest, missing, self.clock

    def _find_pool(self) -> ThreadPoolExecutor:
        """The threads of this process: those of its parent did not come along through a fork."""
        if os.getpid() not in self.pools:
            self.pools = {os.getpid(): ThreadPoolExecutor(count_threads())}
        return self.pools[os.getpid()]

    def _decode_chunk(self, number: int, read: Callable[[StoredChunk, str], NDArray[np.uint8]]) -> NDArray[Any]:
        stored = self.chunks.find(number)
        return _decode(self.folder, self.chunks, stored, read(stored, self.fix), store=self.store, fix=self.fix)

    def __getstate__(self) -> dict[str, Any]:
        """What is decoded stays behind, and so do threads: another process has its own."""
        return {key: getattr(self, key) for key in ("folder", "chunks", "store", "fix", "memory")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]
