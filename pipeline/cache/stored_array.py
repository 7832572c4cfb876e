"""One array of an opened cache: whole, or any rows of it, from checked blocks."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.blocks import Block
from pipeline.cache.codecs import Format, decode
from pipeline.cache.crc import crc32c
from pipeline.cache.digests import count_threads
from pipeline.cache.dtypes import storage_dtype
from pipeline.cache.folder import Folder, LocalFolder, block_error, open_regular_file
from pipeline.cache.manifest import ArrayInfo, BlockInfo

HELD_BYTES = 1 << 30  # of decoded blocks that an array keeps
MAX_MAPS = 256  # files of one array that are mapped: each holds a descriptor


class StoredArray(Protocol):
    """How an array is read."""

    def load(self) -> NDArray[Any]:
        """All of it, (views, rows, ...), as stored."""
        ...

    def gather(self, views: NDArray[np.int64] | int, ids: NDArray[np.int64]) -> NDArray[Any]:
        """Rows (n, ...) of ids (n,), each of its view; all of them are there."""
        ...


def open_array(folder: Folder, info: ArrayInfo, store: Format, fix: str) -> StoredArray:
    """The fastest way to an array: mapped where its bytes lie as they are, else decoded and held."""
    files = len({block.file for block in info.blocks})
    if isinstance(folder, LocalFolder) and info.codec == "none" and files <= MAX_MAPS:
        return MappedArray(folder, info, fix)
    return HeldArray(folder, info, store, fix)


def read_rows(
    folder: Folder, array: ArrayInfo, block: Block, info: BlockInfo, *, store: Format, fix: str
) -> NDArray[Any]:
    """The rows (n, ...) of one block, checked and decoded.

    Raises:
        InputError: its bytes are not those that were sealed, or no whole rows.
    """
    data = folder.read_block(info, fix)
    try:
        rows: NDArray[Any] = decode(
            data,
            store=store,
            dtype=array.dtype,
            row_shape=array.row_shape,
            chunk_rows=array.chunk_rows,
            codec=array.codec,
        )
    except ValueError as error:
        raise block_error(folder.name, info, str(error), fix) from None
    return rows[: block.stop - block.start]


class HeldArray:
    """An array whose blocks are fetched and decoded when asked for; as many as fit `HELD_BYTES` are kept."""

    def __init__(self, folder: Folder, info: ArrayInfo, store: Format, fix: str) -> None:
        self.folder, self.info, self.store, self.fix = folder, info, store, fix
        self.blocks = list(info.located_blocks())
        self.per_view = -(-info.shape[1] // info.chunk_rows)
        self.kept = max(1, HELD_BYTES // (info.chunk_rows * info.row_bytes))
        self.held: dict[int, NDArray[Any]] = {}  # by number, the one held longest first

    def load(self) -> NDArray[Any]:
        values: NDArray[Any] = np.empty(self.info.shape, storage_dtype(self.info.dtype))

        def read(number: int) -> None:
            block = self.blocks[number][0]
            values[block.view, block.start : block.stop] = self._decode_block(number)

        with ThreadPoolExecutor(count_threads()) as pool:
            list(pool.map(read, range(len(self.blocks))))
        return values

    def gather(self, views: NDArray[np.int64] | int, ids: NDArray[np.int64]) -> NDArray[Any]:
        wanted, within = np.divmod(ids, self.info.chunk_rows)
        wanted = wanted + views * self.per_view
        picked: NDArray[Any] = np.empty((len(ids), *self.info.row_shape), storage_dtype(self.info.dtype))
        numbers = np.unique(wanted).tolist()
        with ThreadPoolExecutor(count_threads()) as pool:
            for number, rows in zip(numbers, pool.map(self._hold_block, numbers), strict=True):
                mine = wanted == number
                picked[mine] = rows[within[mine]]
        return picked

    def _hold_block(self, number: int) -> NDArray[Any]:
        rows = self.held.get(number)
        if rows is None:
            rows = self._decode_block(number)
            self.held[number] = rows
            while len(self.held) > self.kept:
                self.held.pop(next(iter(self.held), number), None)
        return rows

    def _decode_block(self, number: int) -> NDArray[Any]:
        block, info = self.blocks[number]
        return read_rows(self.folder, self.info, block, info, store=self.store, fix=self.fix)


def _allocate_aligned(size: int) -> NDArray[np.uint8]:
    """Uninitialised bytes at a multiple of 64: the kernel copies a file's pages there a quarter faster
    than to where numpy's large arrays begin, 16 bytes into a page (measured).
    """
    buffer = np.empty(size + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + size]


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

    Rows lie in many files (Zarr's chunks), a numpy call for each of which costs more than the
    rows. So all files are mapped, and one indexing by byte address picks rows from any of them:
    as fast as from one `np.memmap`.
    """

    def __init__(self, folder: LocalFolder, info: ArrayInfo, fix: str) -> None:
        self.folder, self.info, self.fix = folder, info, fix
        self.blocks = list(info.located_blocks())
        self.per_view = -(-info.shape[1] // info.chunk_rows)
        self.maps: dict[str, NDArray[np.uint8]] = {}
        self.unchecked: NDArray[np.bool_] | None = np.ones(len(self.blocks), bool)
        self.rows: NDArray[Any] | None = None  # one void item a byte address; set when all else is
        self.mapping = Lock()

    def load(self) -> NDArray[Any]:
        flat = _allocate_aligned(self.info.bytes)
        values: NDArray[Any] = flat.view(storage_dtype(self.info.dtype)).reshape(self.info.shape)

        def read(item: tuple[Block, BlockInfo]) -> None:
            block, info = item
            first = (block.view * self.info.shape[1] + block.start) * self.info.row_bytes
            out = flat[first : first + (block.stop - block.start) * self.info.row_bytes]
            self.folder.read_block_into(info, out, self.fix)

        with ThreadPoolExecutor(count_threads()) as pool:
            list(pool.map(read, self.blocks))
        return values

    def gather(self, views: NDArray[np.int64] | int, ids: NDArray[np.int64]) -> NDArray[Any]:
        if self.rows is None:
            with self.mapping:
                self._map_files()
        assert self.rows is not None
        block, within = np.divmod(ids, self.info.chunk_rows)
        block += views * self.per_view if not isinstance(views, int) or views else 0
        unchecked = self.unchecked
        if unchecked is not None:
            self._check_blocks(unchecked, np.unique(block))
        picked: NDArray[Any] = self.rows[self.starts[block] + within * self.info.row_bytes]
        rows: NDArray[Any] = picked.view(storage_dtype(self.info.dtype)).reshape(len(ids), *self.info.row_shape)
        return rows

    def _map_files(self) -> None:
        if self.rows is not None:  # another thread was first
            return
        addresses = []
        for _, info in self.blocks:
            if info.file not in self.maps:
                self.maps[info.file] = self._map_file(info)
            if info.offset + info.bytes > len(self.maps[info.file]):
                raise block_error(self.folder.name, info, "fewer bytes", self.fix)
            addresses.append(self.maps[info.file].ctypes.data + info.offset)
        ends = [address + info.bytes for address, (_, info) in zip(addresses, self.blocks, strict=True)]
        base = min(addresses)
        self.starts = np.array(addresses, np.int64) - base
        self.rows = np.asarray(_AddressSpace(base, max(ends) - base, self.info.row_bytes))

    def _map_file(self, info: BlockInfo) -> NDArray[np.uint8]:
        try:
            with open_regular_file(self.folder.path / info.file) as file:
                return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):  # ValueError: it is empty
            raise block_error(self.folder.name, info, "no such file", self.fix) from None

    def _check_blocks(self, unchecked: NDArray[np.bool_], blocks: NDArray[np.int64]) -> None:
        """Sum each block once, when its first row is asked for."""
        for number in blocks[unchecked[blocks]].tolist():
            info = self.blocks[number][1]
            if crc32c(self.maps[info.file][info.offset : info.offset + info.bytes]) != info.crc32c:
                raise block_error(self.folder.name, info, "another CRC-32C", self.fix)
            unchecked[number] = False
        if not unchecked.any():
            self.unchecked = None

    def __getstate__(self) -> dict[str, Any]:
        """Maps stay behind: another process makes its own."""
        return {"folder": self.folder, "info": self.info, "fix": self.fix}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]
