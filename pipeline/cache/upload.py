"""Send a cache to a URL: its manifest last, so that nobody opens a part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.base.errors import InputError, NotNowError
from pipeline.base.files import READ_PIECE
from pipeline.base.progress import progress_bar
from pipeline.cache import cache_paths as paths
from pipeline.cache.folder import LocalFolder, RemoteFolder, open_regular_file
from pipeline.cache.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from pipeline.cache.push_record import (
    BEGUN_PATH,
    MAX_RECORD_BYTES,
    NOTHING,
    PROGRESS_PATH,
    PushRecord,
    find_stale_files,
    join_records,
    parse_record,
)
from pipeline.cache.reader import Cache
from pipeline.cache.remote_files import find_remote_size, read_small_file, remove_remote_file, write_remote_file
from pipeline.cache.remote_stream import stream_file
from pipeline.cache.stream_check import ChangedError, FileCheck

AGAIN = "run it again: what has been sent is kept"


@dataclass
class Upload:
    """A cache of this machine on its way to a URL.

    Attributes:
        cache: opened, and so verified; from a folder.
        remote: where it is to lie.
        exchange: whether another cache, or a part of one, that lies there may make room.
        read_back: whether all bytes there are read and hashed; else their number decides.
        record: what is there.
    """

    cache: Cache
    remote: RemoteFolder
    exchange: bool = False
    read_back: bool = False
    record: PushRecord = NOTHING

    @property
    def manifest(self) -> Manifest:
        """Of the cache."""
        return self.cache.manifest

    def send(self) -> list[str]:
        """Send what is missing there; the names of the files that travelled.

        Raises:
            InputError: another cache lies there; this one was changed while it was read.
            NotNowError: the URL cannot be written; what has been sent is not sent again.
        """
        is_sealed = self._take_up()
        missing = sorted(self.manifest.files.keys() - self.record.finished)
        if missing or not is_sealed:
            self._begin()
            self._send_files(missing)
            self._seal()
        for name in (PROGRESS_PATH, BEGUN_PATH):
            remove_remote_file(self.remote, name)
        return missing

    def _take_up(self) -> bool:
        """Learn what is there; whether it is this very cache, sealed."""
        data = read_small_file(self.remote, paths.MANIFEST_PATH, MAX_MANIFEST_BYTES)
        record = join_records(self._read_record(BEGUN_PATH), self._read_record(PROGRESS_PATH))
        there = None if data is None else _parse_other(data)
        is_sealed = there is not None and there.root == self.manifest.root
        is_begun = there is None and record.root == self.manifest.root
        if not (self.exchange or is_sealed or is_begun):
            self._refuse_other(data, there, record)
        trusted = self.manifest.files.keys() & (
            self.manifest.files if is_sealed else record.finished if is_begun else ()
        )
        finished = frozenset(name for name in sorted(trusted) if self._is_there(name))
        self.record = PushRecord(self.manifest.root, finished, find_stale_files(self.manifest, there, record))
        return is_sealed

    def _refuse_other(self, data: bytes | None, there: Manifest | None, record: PushRecord) -> None:
        """Raise InputError where something lies there; it is no part of this cache."""
        found = ""
        if data is not None:
            found = f"another one (root {there.root[:12]})" if there else "a manifest that is none"
        elif record.root:
            found = f"an unfinished push of another one (root {record.root[:12]})"
        if found:
            expected = f"nothing, or this cache (root {self.manifest.root[:12]})"
            fix = "choose another URL, or exchange it with --replace"
            raise InputError(f"cache {self.remote.name}", expected=expected, found=found, fix=fix)

    def _begin(self) -> None:
        """Note what is begun, and take away the manifest there: nobody opens it from now on."""
        begun = self._read_record(BEGUN_PATH)
        if begun.root != self.record.root or begun.stale != self.record.stale:
            write_remote_file(self.remote, BEGUN_PATH, lambda: [self.record.to_bytes()])
        remove_remote_file(self.remote, paths.MANIFEST_PATH)

    def _send_files(self, names: Sequence[str]) -> None:
        files = self.manifest.files
        done = sum(files[name].bytes for name in self.record.finished)
        total = sum(each.bytes for each in files.values())
        with progress_bar(f"send to {self.remote.name}", total, done=done, in_bytes=True) as bar:
            for name in names:
                self._send_file(name, lambda at, done=done: bar(done + at))  # type: ignore[misc]
                if not self._is_there(name):
                    expected, where = f"the {files[name].bytes} bytes that were sent", f"{self.remote.name}: {name}"
                    raise NotNowError(where, expected=expected, found="others", fix=AGAIN)
                done += files[name].bytes
                self._refuse_other_push()
                self.record = replace(self.record, finished=self.record.finished | {name})
                write_remote_file(self.remote, PROGRESS_PATH, lambda: [self.record.to_bytes()])

    def _send_file(self, name: str, advance: Callable[[int], None]) -> None:
        """Send a file, hashed once more on its way."""
        try:
            write_remote_file(self.remote, name, lambda: self._read_checked(name, advance))
        except ChangedError as change:
            where = f"cache {self.cache.folder.name}: {change}"
            raise InputError(where, expected="the bytes that were sealed", fix=self.cache.fix) from None

    def _read_checked(self, name: str, advance: Callable[[int], None]) -> Iterator[bytes]:
        check = self._begin_check(name)
        with open_regular_file(_local_folder(self.cache).path / name) as file:
            while piece := file.read(READ_PIECE):
                check.take(piece)
                yield piece
                advance(check.at)
        if check.at < self.manifest.files[name].bytes:
            raise ChangedError(f"file {name}: only {check.at} bytes")

    def _is_there(self, name: str) -> bool:
        """Whether a file has its size there and, where it is read back or no size is told, its bytes."""
        size, listed = find_remote_size(self.remote, name), self.manifest.files[name].bytes
        if size != listed or not self.read_back:
            return size == listed
        check = self._begin_check(name)
        try:
            for piece in stream_file(self.remote, name, 0, listed):
                check.take(piece)
        except ChangedError:
            return False
        return check.at == listed

    def _begin_check(self, name: str) -> FileCheck:
        return FileCheck(self.manifest, None if name == paths.CHUNKS_PATH else self.cache.table.records, name)

    def _seal(self) -> None:
        """All files are there: take away those of the cache before, and write the manifest."""
        for name in sorted(self.record.stale):
            remove_remote_file(self.remote, name)
        self._refuse_other_push()
        data = self.manifest.to_bytes()
        write_remote_file(self.remote, paths.MANIFEST_PATH, lambda: [data])
        if read_small_file(self.remote, paths.MANIFEST_PATH, len(data) + 1) != data:
            where = f"{self.remote.name}: {paths.MANIFEST_PATH}"
            raise NotNowError(where, expected="the manifest that was sent", found="another one", fix=AGAIN)

    def _read_record(self, name: str) -> PushRecord:
        return parse_record(read_small_file(self.remote, name, MAX_RECORD_BYTES))

    def _refuse_other_push(self) -> None:
        """Raise NotNowError where another process has begun to send another cache to the same place."""
        root = self._read_record(BEGUN_PATH).root
        if root not in ("", self.manifest.root):
            where, found = f"cache {self.remote.name}", f"one of root {root[:12]}"
            raise NotNowError(where, expected="no other push", found=found, fix="let one of them end")


def _parse_other(data: bytes) -> Manifest | None:
    """A manifest that lies at the URL; None where it is none that this version knows."""
    try:
        return parse_manifest(data, "", "")
    except InputError:
        return None


def _local_folder(cache: Cache) -> LocalFolder:
    assert isinstance(cache.folder, LocalFolder)
    return cache.folder
