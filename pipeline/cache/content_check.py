"""Read every byte of a cache once, and name the files and the chunks that are not as they were sealed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError, NotNowError
from pipeline.base.files import READ_PIECE
from pipeline.base.progress import track
from pipeline.base.threads import map_ahead
from pipeline.cache.chunk_table import ChunkTable
from pipeline.cache.digests import count_threads
from pipeline.cache.folder import Folder
from pipeline.cache.manifest import Manifest

SEGMENT_BYTES = 16 << 20  # of a file that one thread reads at a time


class Segment(NamedTuple):
    """A stretch of a file: the chunks that begin in it, and what lies between them.

    Attributes:
        file: its name.
        start, end: the range of its bytes.
        numbers: of the chunks in the whole table, in the order of their bytes.
    """

    file: str
    start: int
    end: int
    numbers: NDArray[np.int64]


class CheckedSegment(NamedTuple):
    """What a segment holds: chunks that have changed, and the bytes that lie in none; `error`: it cannot be read."""

    changed: list[int]
    outside: bytes
    error: str | None = None


class ChangedFile(NamedTuple):
    """A file that is not as it was sealed: its changed chunks by number in the whole table, and why."""

    file: str
    changed: list[int]
    error: str | None


def find_changed_files(
    folder: Folder, manifest: Manifest, table: ChunkTable, files: Collection[str]
) -> Iterator[ChangedFile]:
    """The files with bytes of another SHA-256.

    Args:
        folder, manifest, table: of the cache.
        files: those to look at.
    """
    records = table.records
    segments = [each for name in sorted(files) for each in cut_segments(manifest, records, name)]
    with ThreadPoolExecutor(count_threads()) as threads:
        checks = map_ahead(threads, partial(_check_segment, folder, records), segments, ahead=2 * count_threads())
        changed: list[int] = []
        error, digest = None, hashlib.sha256()
        for segment, checked in zip(segments, track(checks, f"check {folder.name}", len(segments)), strict=True):
            changed += checked.changed
            error = error or checked.error
            digest.update(checked.outside)
            listed = manifest.files[segment.file]
            if segment.end < listed.bytes:
                continue
            if changed or error or digest.hexdigest() != listed.sha256:
                yield ChangedFile(segment.file, changed, error)
            changed, error, digest = [], None, hashlib.sha256()


def find_changed_chunks(folder: Folder, manifest: Manifest, table: ChunkTable, file: str) -> list[int]:
    """The numbers in the whole table of one file's chunks whose bytes are not there as they were sealed."""
    records = table.records
    checks = (_check_segment(folder, records, segment) for segment in cut_segments(manifest, records, file))
    return [number for each in checks for number in each.changed]


def cut_segments(manifest: Manifest, records: NDArray[Any], file: str) -> list[Segment]:
    """A file in stretches of about `SEGMENT_BYTES` that cut no chunk."""
    size = manifest.files[file].bytes
    numbers = np.flatnonzero(records["file"] == sorted(manifest.files).index(file))
    numbers = numbers[np.argsort(records["offset"][numbers], kind="stable")]
    offsets = records["offset"][numbers].astype(np.int64)
    if not len(numbers):  # a file without chunks, or an empty one
        bounds = [*range(0, max(size, 1), READ_PIECE), size]
        return [Segment(file, start, end, numbers) for start, end in pairwise(bounds)]
    firsts = np.flatnonzero(np.diff(offsets // SEGMENT_BYTES)) + 1
    starts = [0, *offsets[firsts].tolist()]
    groups = np.split(numbers, firsts)
    return [Segment(file, *each) for each in zip(starts, [*starts[1:], size], groups, strict=True)]


def _check_segment(folder: Folder, records: NDArray[Any], segment: Segment) -> CheckedSegment:
    try:
        data = folder.read_range(segment.file, segment.start, segment.end, "")
    except (InputError, NotNowError) as error:
        return CheckedSegment(segment.numbers.tolist(), b"", str(error))
    changed, outside, at = [], [], 0
    for number in segment.numbers.tolist():
        offset, size = int(records["offset"][number]) - segment.start, int(records["bytes"][number])
        outside.append(data[at:offset].tobytes())
        at = offset + size
        if hashlib.sha256(data[offset:at]).digest() != records["sha256"][number].tobytes():
            changed.append(number)
    outside.append(data[at:].tobytes())
    return CheckedSegment(changed, b"".join(outside))
