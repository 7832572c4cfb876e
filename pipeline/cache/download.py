"""Bring a cache here from a URL: each byte checked as it arrives; what an interrupted run brought is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.base.files import READ_PIECE, flush_file, write_bytes
from pipeline.base.progress import progress_bar
from pipeline.cache import cache_paths as paths
from pipeline.cache.folder import LocalFolder, RemoteFolder, read_manifest, read_table, refuse_misplaced_chunks
from pipeline.cache.manifest import Manifest
from pipeline.cache.remote_stream import stream_file
from pipeline.cache.stores import load_store
from pipeline.cache.stream_check import ChangedError, FileCheck, RestChangedError


def fetch_cache(remote: RemoteFolder, manifest: Manifest, place: Path) -> int:
    """Bring a cache's files to a folder of unfinished work, the manifest last; return how many bytes travelled.

    Only listed files are asked for, and at most their listed bytes read. What lies in the folder is hashed again.

    Args:
        remote: where the cache lies.
        manifest: of it, read from there.
        place: the folder; this manifest's alone.

    Raises:
        InputError: the URL has other bytes than its manifest says, was exchanged, or cannot be read; or the store's own
            metadata say another thing than the manifest. What has arrived stays for the next run.
    """
    fix = "push it there again"
    remote.refuse_incomplete(manifest, fix)
    total, records, travelled, done = sum(each.bytes for each in manifest.files.values()), None, 0, 0
    with progress_bar(f"fetch {remote.name}", total, in_bytes=True) as bar:
        for name in sorted(manifest.files, key=lambda name: (name != paths.CHUNKS_PATH, name)):
            fetch = FileFetch(remote, manifest, records, name, place / name)
            travelled += _run_fetch(fetch, lambda at, done=done: bar(done + at))  # type: ignore[misc]
            done += manifest.files[name].bytes
            if name == paths.CHUNKS_PATH:
                table = read_table(LocalFolder(place), manifest, fix)
                refuse_misplaced_chunks(remote.name, manifest, table, fix)
                records = table.records
    write_bytes(place / paths.MANIFEST_PATH, manifest.to_bytes())
    load_store(manifest.store).check_store(place, table, fix)
    return travelled


class FileFetch:
    """One file on its way here.

    Attributes:
        check: what has come so far.
        travelled: how many bytes this run has fetched.
    """

    def __init__(
        self, remote: RemoteFolder, manifest: Manifest, records: NDArray[Any] | None, name: str, path: Path
    ) -> None:
        """Take up what lies there, as far as it is sound.

        Args:
            remote, manifest: of the cache.
            records: of its chunk table; None for the table itself.
            name: of the file.
            path: where it is to lie.
        """
        self.remote, self.manifest, self.records, self.name, self.path = remote, manifest, records, name, path
        self.check, self.travelled = FileCheck(manifest, records, name), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._take_up()
        except ChangedError:
            self._begin_anew()
        self._taken_up = self.check.at

    def run(self, advance: Callable[[int], None]) -> None:
        """Fetch what is missing.

        Args:
            advance: called with the bytes of the file that are here.

        Raises:
            ChangedError: bytes are not those that were sealed.
        """
        try:
            self._receive(advance)
        except RestChangedError:
            if not self._taken_up:
                raise
            self._begin_anew()  # what was taken up of these bytes was not checked before now
            self._receive(advance)
        flush_file(self.path)

    def _take_up(self) -> None:
        size = self.manifest.files[self.name].bytes
        with self.path.open("a+b") as file:
            file.seek(0)
            while self.check.at < size and (piece := file.read(min(READ_PIECE, size - self.check.at))):
                self.check.take(piece)
        os.truncate(self.path, self.check.go_back())

    def _begin_anew(self) -> None:
        self.path.unlink()
        self.check = FileCheck(self.manifest, self.records, self.name)

    def _receive(self, advance: Callable[[int], None]) -> None:
        advance(self.check.at)
        with self.path.open("ab") as file:
            for piece in stream_file(self.remote, self.name, self.check.at, self.manifest.files[self.name].bytes):
                self.travelled += len(piece)
                self.check.take(piece)
                file.write(piece)
                advance(self.check.at)


def _run_fetch(fetch: FileFetch, advance: Callable[[int], None]) -> int:
    """Fetch a file, where it is not whole; how many bytes travelled."""
    try:
        fetch.run(advance)
    except ChangedError as error:
        raise _explain_change(fetch, error) from None
    return fetch.travelled


def _explain_change(fetch: FileFetch, change: ChangedError) -> InputError:
    """Bytes that are not those that were sealed: damage there, or another cache by now."""
    where = f"cache {fetch.remote.name}"
    try:
        root = read_manifest(fetch.remote, "").root
    except InputError:
        root = ""
    if root == fetch.manifest.root:
        fix = "push it there again with --check, then pull"
        return InputError(f"{where}: {change}", expected="the bytes that were sealed", fix=fix)
    found = f"another one by now (root {root[:12]})" if root else "none by now"
    return InputError(where, expected=f"root {fetch.manifest.root[:12]}", found=found, fix="pull again")
