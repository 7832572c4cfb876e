"""Look at some chunks of a cache, and at all that lies beside the chunks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import READ_PIECE
from pipeline.cache import cache_paths as paths
from pipeline.cache import zarr_store
from pipeline.cache.chunk_grid import CRC_BYTES
from pipeline.cache.chunk_table import ChunkTable, iterate_gaps
from pipeline.cache.content_check import ChangedFile, Segment, check_segments, cut_segments
from pipeline.cache.folder import Folder
from pipeline.cache.manifest import FileInfo, Manifest

NO_CHUNKS = np.empty(0, np.int64)


@dataclass(frozen=True)
class Sample:
    """What of a cache was looked at.

    Attributes:
        seed: that its chunks were drawn with.
        chunks, all_chunks: their number, and the cache's.
        bytes, all_bytes: likewise, of all files but the manifest.
    """

    seed: int
    chunks: int
    all_chunks: int
    bytes: int
    all_bytes: int

    @property
    def is_all(self) -> bool:
        """Nothing was left out."""
        return self.bytes == self.all_bytes


def draw_chunks(records: NDArray[Any], share: float, seed: int) -> NDArray[np.bool_]:
    """Which chunks (n,) of a table to look at: this share of each file's, at least one."""
    generator, chosen = np.random.default_rng(seed), np.zeros(len(records), np.bool_)
    for file in np.unique(records["file"]):
        numbers = np.flatnonzero(records["file"] == file)
        count = max(1, round(share * len(numbers)))
        chosen[generator.choice(numbers, count, replace=False, shuffle=False)] = True
    return chosen


def cut_sample(
    manifest: Manifest, table: ChunkTable, files: Collection[str], chosen: NDArray[np.bool_]
) -> list[Segment]:
    """The stretches of some files that hold the chosen chunks (n,), and all that lies beside chunks.

    In a Zarr shard of the checksums that follow chunks only those of the chosen ones.
    """
    beside = paths.list_metadata_paths(manifest.store, manifest.arrays)
    cut = _cut_shard if manifest.store == "zarr" else _cut_hdf5_file
    return [
        segment
        for file in sorted(files)
        for segment in (
            cut_segments(manifest, table.records, file) if file in beside else cut(manifest, table, file, chosen)
        )
    ]


def _cut_shard(manifest: Manifest, table: ChunkTable, file: str, chosen: NDArray[np.bool_]) -> list[Segment]:
    records = table.records
    numbers = np.flatnonzero(records["file"] == sorted(manifest.files).index(file))
    end = int((records["offset"] + records["bytes"])[numbers].max()) + CRC_BYTES
    numbers = numbers[chosen[numbers]]
    segments = list(_cut_chunks(records, file, numbers, CRC_BYTES))
    return [*segments, Segment(file, end, manifest.files[file].bytes, NO_CHUNKS)]


def _cut_hdf5_file(manifest: Manifest, table: ChunkTable, file: str, chosen: NDArray[np.bool_]) -> list[Segment]:
    size = manifest.files[file].bytes
    gaps = [
        Segment(file, piece, min(piece + READ_PIECE, end), NO_CHUNKS)
        for start, end in iterate_gaps(table.records, size)
        for piece in range(start, end, READ_PIECE)
    ]
    chunks = _cut_chunks(table.records, file, np.flatnonzero(chosen), 0)
    segments = sorted([*gaps, *chunks], key=lambda each: each.start)
    return segments if segments[-1].end == size else [*segments, Segment(file, size, size, NO_CHUNKS)]


def _cut_chunks(records: NDArray[Any], file: str, numbers: NDArray[np.int64], beyond: int) -> Iterator[Segment]:
    """Each of these chunks, with so many bytes behind it, in the order of their places."""
    numbers = numbers[np.argsort(records["offset"][numbers])]
    starts = records["offset"][numbers].astype(np.int64)
    ends = starts + records["bytes"][numbers].astype(np.int64) + beyond
    for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        yield Segment(file, start, end, numbers[number : number + 1])


def expect_beside(manifest: Manifest, table: ChunkTable, chosen: NDArray[np.bool_]) -> dict[str, FileInfo]:
    """The manifest's files, with the SHA-256 of those bytes outside of chunks that `cut_sample` reads."""
    expected = dict(manifest.files)
    if manifest.store == "zarr":
        for name, mine in table.divide(chosen).items():
            for file, digest in zarr_store.hash_shard_ends(table.arrays[name], mine):
                expected[file] = FileInfo(bytes=expected[file].bytes, sha256=digest)
    return expected


def find_changes_in_sample(
    folder: Folder, manifest: Manifest, table: ChunkTable, files: Collection[str], *, share: float, seed: int
) -> tuple[list[ChangedFile], Sample]:
    """The files in which something is not as it was sealed, of what is looked at.

    Args:
        folder, manifest, table: of the cache; each chunk has its place.
        files: those to look at.
        share: of the chunks of each file, in (0, 1].
        seed: that they are drawn with.
    """
    chosen = draw_chunks(table.records, share, seed)
    segments = cut_sample(manifest, table, files, chosen)
    changed = list(check_segments(folder, table.records, segments, expect_beside(manifest, table, chosen)))
    return changed, Sample(
        seed=seed,
        chunks=sum(len(each.numbers) for each in segments),
        all_chunks=len(table.records),
        bytes=sum(each.end - each.start for each in segments),
        all_bytes=sum(info.bytes for info in manifest.files.values()),
    )
