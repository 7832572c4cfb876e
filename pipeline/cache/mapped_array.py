"""An uncompressed array of this machine: its files are mapped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.mapped_pages import PageWatch, expect_random_rows, release_pages
from pipeline.cache.chunk_table import ArrayChunks, StoredChunk
from pipeline.cache.crc import crc32c
from pipeline.cache.digests import count_threads
from pipeline.cache.dtypes import storage_dtype
from pipeline.cache.folder import LocalFolder, chunk_error, map_file

RUN_BYTES = 8 << 20  # of chunks that one thread reads from one opening of their file


def _allocate_aligned(size: int) -> NDArray[np.uint8]:
    """Uninitialised bytes at a multiple of 64: the kernel copies a file's pages there a quarter faster
    than to where numpy's large arrays begin, 16 bytes into a page (measured).
    """
    buffer = np.empty(size + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + size]


class MappedFiles:
    """The files of an array, each mapped when first asked for."""

    def __init__(self, folder: LocalFolder, chunks: ArrayChunks, fix: str) -> None:
        self.folder, self.chunks, self.fix = folder, chunks, fix
        self.maps: dict[str, NDArray[np.uint8]] = {}

    def read(self, stored: StoredChunk, fix: str) -> NDArray[np.uint8]:
        """A chunk's bytes where they lie, checked."""
        whole = self.map(stored)
        data = whole[stored.offset : stored.offset + stored.bytes]
        if crc32c(data) != stored.crc32c:
            raise chunk_error(self.folder.name, stored, "another CRC-32C", fix)
        return data

    def release_pages(self) -> None:
        """Give back their pages."""
        for mapped in list(self.maps.values()):
            release_pages(mapped)

    def map(self, stored: StoredChunk) -> NDArray[np.uint8]:
        """The file that a chunk lies in; it lies there whole."""
        mapped = self.maps.get(stored.file)
        if mapped is None:
            try:
                mapped = self.maps[stored.file] = map_file(self.folder.path / stored.file)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):  # ValueError: it is empty
                raise chunk_error(self.folder.name, stored, "no such file", self.fix) from None
        if stored.offset + stored.bytes > len(mapped):
            raise chunk_error(self.folder.name, stored, "fewer bytes", self.fix)
        return mapped


@dataclass(frozen=True)
class _AddressSpace:
    """Address space that the interpreter sees as one array of rows, one starting at every byte."""

    address: int
    span: int
    row_bytes: int

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {
            "data": (self.address, True),
            "shape": (self.span - self.row_bytes + 1,),
            "strides": (1,),
            "typestr": f"|V{self.row_bytes}",
            "version": 3,
        }


class MappedArray:
    """An uncompressed array of this machine: read in one go, or its rows gathered from the page cache.

    Rows lie in several files (Zarr's shards), a numpy call for each of which costs more than the
    rows. So all files are mapped, and one indexing by byte address picks rows from any of them:
    as fast as from one `np.memmap`.
    """

    def __init__(self, folder: LocalFolder, chunks: ArrayChunks, fix: str) -> None:
        self.folder, self.chunks, self.fix = folder, chunks, fix
        self.grid, self.row_bytes = chunks.grid, chunks.info.row_bytes
        self.files = MappedFiles(folder, chunks, fix)
        self.unchecked: NDArray[np.bool_] | None = np.ones(self.grid.count, bool)
        self.rows: NDArray[Any] | None = None  # one void item a byte address; set when all else is
        self.mapping = Lock()

    def load(self) -> NDArray[Any]:
        info = self.chunks.info
        flat = _allocate_aligned(info.bytes)
        values: NDArray[Any] = flat.view(storage_dtype(info.dtype)).reshape(info.shape)

        def place(number: int) -> NDArray[np.uint8]:
            block = self.grid.chunk(number)
            first = (block.view * self.grid.rows + block.start) * self.row_bytes
            return flat[first : first + (block.stop - block.start) * self.row_bytes]

        def read(numbers: NDArray[np.int64]) -> None:
            run = [(self.chunks.find(number), place(number)) for number in numbers.tolist()]
            self.folder.read_chunks_into(run, self.fix)

        with ThreadPoolExecutor(count_threads()) as pool:
            for _ in pool.map(read, self._cut_runs()):
                pass
        return values

    def _cut_runs(self) -> list[NDArray[np.int64]]:
        """The numbers of chunks of one file, about `RUN_BYTES` at a time."""
        records = self.chunks.records
        run = np.cumsum(records["bytes"]) // RUN_BYTES
        ends = np.flatnonzero((np.diff(run) > 0) | (np.diff(records["file"].astype(np.int64)) != 0)) + 1
        return np.split(np.arange(len(records)), ends)

    def gather(self, views: NDArray[np.int64] | int, ids: NDArray[np.int64]) -> NDArray[Any]:
        if self.rows is None:
            with self.mapping:
                self._map_files()
        assert self.rows is not None
        chunk, within = self.grid.find_rows(views, ids)
        unchecked = self.unchecked
        if unchecked is not None:
            self._check_chunks(unchecked, np.unique(chunk))
        picked: NDArray[Any] = self.rows[self.starts[chunk] + within * self.row_bytes]
        info = self.chunks.info
        rows: NDArray[Any] = picked.view(storage_dtype(info.dtype)).reshape(len(ids), *info.row_shape)
        return rows

    def release_pages(self) -> None:
        self.files.release_pages()

    def _map_files(self) -> None:
        if self.rows is not None:  # another thread was first
            return
        records = self.chunks.records
        numbers, last = np.unique(records["file"], return_inverse=True)
        addresses = np.empty(len(numbers), np.int64)
        ends = records["offset"].astype(np.int64) + records["bytes"].astype(np.int64)
        for place in range(len(numbers)):
            mine = np.flatnonzero(last == place)
            furthest = int(mine[ends[mine].argmax()])
            addresses[place] = self.files.map(self.chunks.find(furthest)).ctypes.data
        starts = addresses[last] + records["offset"].astype(np.int64)
        base = int(starts.min())
        self.starts = starts - base
        span = int((starts + records["bytes"].astype(np.int64)).max()) - base
        self.rows = np.asarray(_AddressSpace(base, span, self.row_bytes))

    def _check_chunks(self, unchecked: NDArray[np.bool_], numbers: NDArray[np.int64]) -> None:
        """Sum each chunk once, when its first row is asked for."""
        watch = PageWatch(self.release_pages)  # the rows of one batch may lie in chunks of many gigabytes
        for number in numbers[unchecked[numbers]].tolist():
            self.files.read(self.chunks.find(number), self.fix)
            unchecked[number] = False
            watch.check()
        if not unchecked.any():
            self.unchecked = None
            for mapped in self.files.maps.values():  # not before: whole chunks were read
                expect_random_rows(mapped, self.row_bytes)

    def __getstate__(self) -> dict[str, Any]:
        """Maps stay behind: another process makes its own."""
        return {"folder": self.folder, "chunks": self.chunks, "fix": self.fix}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]
