"""Read every byte of a cache once, and name the files and the chunks that are not as they were sealed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.base.checked_parts import CheckedParts
from pipeline.base.errors import InputError
from pipeline.base.files import READ_PIECE
from pipeline.base.progress import progress_bar
from pipeline.base.threads import map_ahead
from pipeline.cache.chunk_table import ChunkTable
from pipeline.cache.digests import count_threads
from pipeline.cache.folder import Folder
from pipeline.cache.manifest import FileInfo, Manifest

SEGMENT_BYTES = 16 << 20  # of a file that one thread checks at a time
PIECE_BYTES = 16 << 20  # that it holds of that


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
    """What a segment holds: chunks that have changed, and the bytes that lie in none.

    Attributes:
        error: why it cannot be read.
        skipped: its chunks were found sound before, and not read.
    """

    changed: list[int]
    outside: bytes
    error: str | None = None
    skipped: bool = False


class ChangedFile(NamedTuple):
    """A file that is not as it was sealed: its changed chunks by number in the whole table, and why."""

    file: str
    changed: list[int]
    error: str | None


def find_changed_files(
    folder: Folder, manifest: Manifest, table: ChunkTable, files: Collection[str], parts: CheckedParts | None = None
) -> Iterator[ChangedFile]:
    """The files with bytes of another SHA-256.

    Args:
        folder, manifest, table: of the cache.
        files: those to look at.
        parts: what an interrupted check found sound, and this one goes on to note; None: nothing is noted.
    """
    names = sorted(set(files) - parts.whole if parts else files)
    segments = [each for name in names for each in cut_segments(manifest, table.records, name)]
    whole = sum(manifest.files[name].bytes for name in set(files) - set(names))
    yield from check_segments(folder, table.records, segments, manifest.files, parts=parts, whole=whole)


def check_segments(
    folder: Folder,
    records: NDArray[Any],
    segments: Sequence[Segment],
    files: Mapping[str, FileInfo],
    *,
    parts: CheckedParts | None = None,
    whole: int = 0,
) -> Iterator[ChangedFile]:
    """The files with another chunk in these segments, or with other bytes outside of their chunks.

    Args:
        folder: of the cache.
        records: of its chunk table.
        segments: file by file, each file's in order; the last one ends where the file ends.
        files: their sizes, and the SHA-256 of those bytes in segments that lie in no chunk.
        parts: see `find_changed_files`.
        whole: bytes of files that were found whole before, for the bar.
    """
    before = whole + sum(each.end - each.start for each in segments if _is_known(parts, each))
    total = whole + sum(each.end - each.start for each in segments)
    with (
        progress_bar(f"check {folder.name}", total, done=before, in_bytes=True) as bar,
        ThreadPoolExecutor(count_threads()) as threads,
    ):
        check = partial(_check_segment, folder, records, parts)
        try:
            checks = zip(segments, map_ahead(threads, check, segments, ahead=2 * count_threads()), strict=True)
            yield from _judge_files(files, checks, parts, lambda more: bar(before + more))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            if parts:
                parts.save()
            raise


def _judge_files(
    files: Mapping[str, FileInfo],
    checks: Iterable[tuple[Segment, CheckedSegment]],
    parts: CheckedParts | None,
    advance: Callable[[int], None],
) -> Iterator[ChangedFile]:
    """The changed files, from all their segments in order."""
    changed: list[int] = []
    error, digest, read = None, hashlib.sha256(), 0
    for segment, checked in checks:
        changed += checked.changed
        error = error or checked.error
        digest.update(checked.outside)
        if not checked.skipped:
            read += segment.end - segment.start
            advance(read)
            if parts and not checked.changed and not checked.error:
                parts.add(segment.file, segment.start, segment.end)
        listed = files[segment.file]
        if segment.end < listed.bytes:
            continue
        if changed or error or digest.hexdigest() != listed.sha256:
            yield ChangedFile(segment.file, changed, error)
        elif parts:
            parts.whole.add(segment.file)
        changed, error, digest = [], None, hashlib.sha256()


def find_changed_chunks(folder: Folder, manifest: Manifest, table: ChunkTable, file: str) -> list[int]:
    """The numbers in the whole table of one file's chunks whose bytes are not there as they were sealed."""
    records = table.records
    checks = (_check_segment(folder, records, None, segment) for segment in cut_segments(manifest, records, file))
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


def _check_segment(
    folder: Folder, records: NDArray[Any], parts: CheckedParts | None, segment: Segment
) -> CheckedSegment:
    """Hash a segment's chunks, piece by piece: one chunk may be larger than memory likes."""
    skipped = _is_known(parts, segment)
    reader, changed, outside = PieceReader(folder, segment), list[int](), list[bytes]()
    chunks = records[segment.numbers]
    places = zip(segment.numbers.tolist(), chunks["offset"].tolist(), chunks["bytes"].tolist(), strict=True)
    try:
        for (number, offset, size), expected in zip(places, chunks["sha256"], strict=True):
            outside += [bytes(piece) for piece in reader.read_until(offset)]
            if skipped:
                reader.at = offset + size
                continue
            digest = hashlib.sha256()
            for piece in reader.read_until(offset + size):
                digest.update(piece)
            if digest.digest() != expected.tobytes():
                changed.append(number)
        outside += [bytes(piece) for piece in reader.read_until(segment.end)]
    except InputError as error:  # NotNowError, of a network, is told of too
        return CheckedSegment(segment.numbers.tolist(), b"", str(error))
    return CheckedSegment(changed, b"".join(outside), skipped=skipped)


def _is_known(parts: CheckedParts | None, segment: Segment) -> bool:
    """Whether its chunks were found sound before. What lies in no chunk is read again: a digest cannot be taken up."""
    return parts is not None and len(segment.numbers) > 0 and parts.holds(segment.file, segment.start, segment.end)


class PieceReader:
    """Reads a segment from its start to its end, at most `PIECE_BYTES` ahead.

    Attributes:
        at: where it stands in the file.
    """

    def __init__(self, folder: Folder, segment: Segment) -> None:
        self._folder, self._segment, self.at = folder, segment, segment.start
        self._held, self._first = memoryview(b""), segment.start

    def read_until(self, end: int) -> Iterator[memoryview]:
        """The bytes from here to `end`; fewer where the file ends before."""
        while self.at < end:
            if not self._first <= self.at < self._first + len(self._held):
                last = min(self.at + PIECE_BYTES, self._segment.end)
                data = self._folder.read_range(self._segment.file, self.at, last, "")
                self._held, self._first = memoryview(data), self.at
                if not len(data):
                    self.at = end
                    return
            piece = self._held[self.at - self._first : end - self._first]
            self.at += len(piece)
            yield piece
