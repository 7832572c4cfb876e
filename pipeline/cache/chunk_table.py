"""The chunk table: where the bytes of every chunk lie, and their digests; fixed records, mapped and not parsed.

The records of the arrays follow each other by sorted name, those of an array view by view, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.cache import cache_paths as paths
from pipeline.cache.blocks import BlockKey
from pipeline.cache.chunk_grid import ChunkGrid
from pipeline.cache.codecs import is_padded, max_encoded_bytes
from pipeline.cache.manifest import ArrayInfo, FileInfo, Manifest

METADATA_BYTES = 1 << 20  # of an HDF5 file, for each array, and
CHUNK_METADATA_BYTES = 256  # for each chunk: more than the library writes beside the rows


class StoredChunk(NamedTuple):
    """The stored bytes of one chunk: where they lie, and their digests."""

    file: str
    offset: int
    bytes: int
    crc32c: int
    sha256: str


@dataclass(frozen=True)
class ArrayChunks:
    """The chunks of one array.

    Attributes:
        name, info: of the array.
        records: (chunks,) of `chunk_grid.RECORD`.
        files: what a record's `file` counts.
    """

    name: str
    info: ArrayInfo
    records: NDArray[Any]
    files: tuple[str, ...]

    @property
    def grid(self) -> ChunkGrid:
        """How the array is cut."""
        return self.info.grid

    def find(self, number: int) -> StoredChunk:
        """Where a chunk's bytes lie."""
        offset, size, file, crc, sha256 = self.records[number]
        return StoredChunk(self.files[file], int(offset), int(size), int(crc), sha256.tobytes().hex())

    def __getstate__(self) -> dict[str, Any]:
        """Another process gets the records themselves: the file may have changed by then."""
        return {**vars(self), "records": np.array(self.records)}


@dataclass(frozen=True)
class ChunkTable:
    """The chunks of all arrays.

    Attributes:
        files: that the manifest lists.
        records: all of them.
        arrays: by name, each with its own.
    """

    files: Mapping[str, FileInfo]
    records: NDArray[Any]
    arrays: Mapping[str, ArrayChunks]

    def keys_of(self, numbers: Sequence[int]) -> tuple[BlockKey, ...]:
        """The array and the rows of chunks by their numbers in the whole table."""
        names, firsts = self._find_firsts()
        places = np.searchsorted(firsts, numbers, side="right") - 1
        return tuple(
            (names[place], self.arrays[names[place]].grid.chunk(number - int(firsts[place])))
            for number, place in zip(numbers, places.tolist(), strict=True)
        )

    def divide(self, values: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
        """By array, the values (n,) of its chunks, from those of all."""
        names, firsts = self._find_firsts()
        return dict(zip(names, np.split(values, firsts[1:-1]), strict=True))

    def _find_firsts(self) -> tuple[list[str], NDArray[np.int64]]:
        """The arrays as the records follow each other, and where those of each begin; the last number is their end."""
        names = sorted(self.arrays)
        return names, np.cumsum([0, *(len(self.arrays[name].records) for name in names)])


def divide_records(manifest: Manifest, records: NDArray[Any]) -> ChunkTable:
    """The table of a manifest's arrays, from all its records."""
    files, first, arrays = tuple(sorted(manifest.files)), 0, {}
    for name, info in sorted(manifest.arrays.items()):
        arrays[name] = ArrayChunks(name, info, records[first : first + info.grid.count], files)
        first += info.grid.count
    return ChunkTable(manifest.files, records, {name: arrays[name] for name in manifest.arrays})


def find_misplaced_chunk(manifest: Manifest, table: ChunkTable) -> str | None:
    """The first chunk that does not lie where its rows are, with just the bytes that they need; None: all do.

    So none lies outside of its file, over another one, or in another array's file.
    """
    for chunks in table.arrays.values():
        sound = _mark_fitting_sizes(manifest, chunks)
        if sound.all():
            sound = _mark_placed_chunks(manifest, chunks)
        if not sound.all():
            number = int(np.flatnonzero(~sound)[0])
            offset, size, file = (int(chunks.records[key][number]) for key in ("offset", "bytes", "file"))
            where = repr(chunks.files[file]) if file < len(chunks.files) else f"a file {file} that is not listed"
            block = chunks.grid.chunk(number)
            return f"array {chunks.name!r}, {block}: bytes {offset} to {offset + size} of {where} are not its place"
    return _find_overlap(manifest, table) if manifest.store == "hdf5" else None


def _mark_fitting_sizes(manifest: Manifest, chunks: ArrayChunks) -> NDArray[np.bool_]:
    """Which chunks (n,) have a number of bytes that their rows can have."""
    info, sizes = chunks.info, chunks.records["bytes"]
    whole = info.chunk_rows * info.row_bytes
    if info.codec != "none":
        fitting: NDArray[np.bool_] = (sizes >= 1) & (sizes <= max_encoded_bytes(whole, info.codec))
        return fitting
    expected = np.full(len(sizes), whole, np.uint64).reshape(-1, chunks.grid.per_view)
    if not is_padded(manifest.store, info.codec):
        expected[:, -1] -= np.uint64((-chunks.grid.rows % info.chunk_rows) * info.row_bytes)
    return np.asarray(sizes == expected.reshape(-1))


def _mark_placed_chunks(manifest: Manifest, chunks: ArrayChunks) -> NDArray[np.bool_]:
    """Which chunks (n,), all of fitting sizes, lie where they must: in Zarr at the one place that the format has."""
    records, grid = chunks.records, chunks.grid
    names = paths.list_data_paths(manifest.store, chunks.name, grid.shards, len(chunks.info.shape))
    placed: NDArray[np.bool_] = records["file"] == number_files(grid, names, chunks.files)
    if manifest.store == "hdf5":
        end = np.uint64(manifest.files[names[0]].bytes)
        return np.asarray(placed & (records["offset"] <= end) & (records["offset"] + records["bytes"] <= end))
    offsets, totals = grid.place_chunks(records["bytes"].astype(np.int64))
    lengths = np.array([manifest.files[name].bytes for name in names])
    return np.asarray(placed & (records["offset"] == offsets) & (totals == lengths)[grid.locate_chunks()[0]])


def _find_overlap(manifest: Manifest, table: ChunkTable) -> str | None:
    """Chunks of the one HDF5 file that share bytes, or far more bytes than chunks and metadata take."""
    records = table.records
    order = np.argsort(records["offset"], kind="stable")
    ends = (records["offset"] + records["bytes"])[order]
    if bool((records["offset"][order][1:] < ends[:-1]).any()):
        return "chunks that share bytes"
    name = paths.STORE_PATHS["hdf5"]
    beside = manifest.files[name].bytes - int(records["bytes"].sum())
    if beside > METADATA_BYTES * (1 + len(table.arrays)) + CHUNK_METADATA_BYTES * len(records):
        return f"{beside} bytes of {name!r} that hold no rows"
    return None


def number_files(grid: ChunkGrid, data: Sequence[str], files: Sequence[str]) -> NDArray[np.int64]:
    """The records' `file` (chunks,) of an array.

    Args:
        grid: of the array.
        data: its files, by shard.
        files: all the cache's, sorted.
    """
    shards = grid.locate_chunks()[0] if len(data) > 1 else np.zeros(grid.count, np.int64)
    numbers: NDArray[np.int64] = np.searchsorted(files, data)[shards]
    return numbers


def order_records(records: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The whole table, from the records of each array."""
    return np.concatenate([records[name] for name in sorted(records)])


def iterate_gaps(records: NDArray[Any], size: int) -> Iterator[tuple[int, int]]:
    """The ranges of a file of so many bytes that lie in none of its chunks, in order."""
    ordered = records[np.argsort(records["offset"], kind="stable")]
    starts = ordered["offset"].astype(np.int64)
    ends = starts + ordered["bytes"].astype(np.int64)
    for start, end in zip([0, *ends.tolist()], [*starts.tolist(), size], strict=True):
        if end > start:
            yield start, end
