"""Where a cache lies: a folder of this machine, or a URL that fsspec reads."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError, NotNowError
from pipeline.cache import cache_paths as paths
from pipeline.cache.chunk_grid import RECORD
from pipeline.cache.chunk_table import ChunkTable, StoredChunk, divide_records, find_misplaced_chunk
from pipeline.cache.crc import CRC_PIECE_BYTES, crc32c
from pipeline.cache.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from pipeline.cache.remote_errors import find_cause, persist
from pipeline.cache.symlinks import explain_link, resolve_links
from pipeline.cache.url_systems import HELD_PROTOCOLS, connect_url, hide_password

T = TypeVar("T")
READING = "to read it"  # what was expected of a file far away
# Windows lacks the first two; without the third it would take some bytes for ends of lines.
REGULAR_FILE_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))


class Folder(Protocol):
    """A cache's files, read only."""

    @property
    def name(self) -> str:
        """As messages name it."""
        ...

    def read_manifest_bytes(self, fix: str) -> bytes:
        """The bytes of `manifest.json`."""
        ...

    def read_chunk(self, info: StoredChunk, fix: str) -> NDArray[np.uint8]:
        """A chunk's stored bytes, checked against their digest.

        Raises:
            InputError: they are missing, short, or others than were sealed.
        """
        ...

    def read_range(self, file: str, start: int, end: int, fix: str) -> NDArray[np.uint8]:
        """Bytes of a listed file, unchecked; fewer where it ends before.

        Raises:
            InputError: it cannot be read.
        """
        ...

    def read_records(self, manifest: Manifest, fix: str) -> NDArray[Any]:
        """The chunk table's records, as many as the manifest's arrays have chunks, checked against their digest.

        Raises:
            InputError: they are missing, short, or others than were sealed.
        """
        ...


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine; its chunks are checked by CRC-32C, its files once by SHA-256."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def read_manifest_bytes(self, fix: str) -> bytes:
        path = self.path / paths.MANIFEST_PATH
        try:
            with open_regular_file(path) as file:
                return refuse_large_manifest(file.read(MAX_MANIFEST_BYTES + 1), str(path), fix)
        except (FileNotFoundError, NotADirectoryError):
            found = "a folder without it: not a finished cache" if self.path.is_dir() else "nothing"
            raise InputError(str(path), expected="a cache's manifest", found=found, fix=fix) from None
        except IsADirectoryError:
            found, fix = explain_link(path, fix) if path.is_symlink() else ("no regular file", fix)
            raise InputError(str(path), expected="a cache's manifest", found=found, fix=fix) from None

    def read_chunk(self, info: StoredChunk, fix: str) -> NDArray[np.uint8]:
        data = np.empty(info.bytes, np.uint8)
        self.read_chunks_into([(info, data)], fix)
        return data

    def read_chunks_into(self, chunks: Sequence[tuple[StoredChunk, NDArray[np.uint8]]], fix: str) -> None:
        """Read the first bytes of chunks of one file, as many as fit the array of each, and check all of them."""
        first = chunks[0][0]
        try:
            with open_regular_file(self.path / first.file) as file:
                for info, out in chunks:
                    self._fill(file, info, out, fix)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise chunk_error(self.name, first, "no such file", fix) from None

    def _fill(self, file: BinaryIO, info: StoredChunk, out: NDArray[np.uint8], fix: str) -> None:
        crc, tail = 0, np.empty(min(CRC_PIECE_BYTES, info.bytes) if info.bytes > len(out) else 0, np.uint8)
        file.seek(info.offset)
        for start in range(0, info.bytes, CRC_PIECE_BYTES):
            # Summed while it is still in the core's cache. What lies beyond `out` is padding.
            size = min(CRC_PIECE_BYTES, info.bytes - start)
            piece = out[start : start + size] if start + size <= len(out) else tail[:size]
            if file.readinto(piece) != size:  # type: ignore[attr-defined]
                raise chunk_error(self.name, info, "fewer bytes", fix)
            if start < len(out) < start + size:
                out[start:] = piece[: len(out) - start]
            crc = crc32c(piece, crc)
        if crc != info.crc32c:
            raise chunk_error(self.name, info, "another CRC-32C", fix)

    def read_range(self, file: str, start: int, end: int, fix: str) -> NDArray[np.uint8]:
        data = np.empty(end - start, np.uint8)
        try:
            with open_regular_file(self.path / file) as opened:
                opened.seek(start)
                filled = 0
                while filled < len(data) and (more := opened.readinto(data[filled:])):
                    filled += more
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise _missing_error(self.name, file, fix) from None
        return data[:filled]

    def read_records(self, manifest: Manifest, fix: str) -> NDArray[Any]:
        try:
            mapped = map_file(self.path / paths.CHUNKS_PATH)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):  # ValueError: it is empty
            raise _missing_error(self.name, paths.CHUNKS_PATH, fix) from None
        return _check_records(self.name, mapped, manifest, fix)


@dataclass(frozen=True)
class RemoteFolder:
    """A URL; each chunk is checked by SHA-256 as it arrives, and nothing unlisted is ever read."""

    url: str
    options: Mapping[str, Any]
    root: str
    systems: dict[int, Any]  # by process: a file system's connections do not survive a fork

    @property
    def name(self) -> str:
        return hide_password(self.url)

    @property
    def system(self) -> Any:
        """The file system of this process."""
        if os.getpid() not in self.systems:
            self.systems[os.getpid()], _ = connect_url(self.url, {**self.options, "skip_instance_cache": True})
        return self.systems[os.getpid()]

    def reconnect(self) -> None:
        """Forget this process's connection, where the file system holds one; the next call makes another."""
        if self.url.partition("://")[0] in HELD_PROTOCOLS:
            self.systems.pop(os.getpid(), None)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "systems": {}}

    def read_manifest_bytes(self, fix: str) -> bytes:
        path, most = f"{self.root}/{paths.MANIFEST_PATH}", MAX_MANIFEST_BYTES + 1
        data = self.attempt(lambda: self._read_first_bytes(path, most), paths.MANIFEST_PATH, fix)
        return refuse_large_manifest(data, f"{self.name}/{paths.MANIFEST_PATH}", fix)

    def read_beside(self, suffix: str, most: int) -> bytes:
        """The bytes of the file beside this folder that has its name and a suffix; the first `most` of them.

        Raises:
            InputError: it is not there.
            NotNowError: it cannot be read.
        """
        path = f"{self.root}{suffix}"
        return self.attempt(lambda: self._read_first_bytes(path, most), f"its {suffix}", "")

    def _read_first_bytes(self, path: str, most: int) -> bytes:
        data = b""
        with self.system.open(path, "rb") as file:
            while len(data) < most and (piece := file.read(most - len(data))):
                data += piece
        return data

    def read_chunk(self, info: StoredChunk, fix: str) -> NDArray[np.uint8]:
        data = self.read_range(info.file, info.offset, info.offset + info.bytes, fix)
        if hashlib.sha256(data).hexdigest() != info.sha256:
            raise chunk_error(self.name, info, f"{len(data)} bytes of another SHA-256", fix)
        return data

    def read_range(self, file: str, start: int, end: int, fix: str) -> NDArray[np.uint8]:
        path = f"{self.root}/{file}"
        data = self.attempt(lambda: self.system.cat_file(path, start=start, end=end), file, fix)
        # A server that knows no ranges sends the whole file.
        return np.frombuffer(data if len(data) <= end - start else data[start:end], np.uint8)

    def read_records(self, manifest: Manifest, fix: str) -> NDArray[Any]:
        listed = manifest.files[paths.CHUNKS_PATH]
        return _check_records(self.name, self.read_range(paths.CHUNKS_PATH, 0, listed.bytes, fix), manifest, fix)

    def refuse_incomplete(self, manifest: Manifest, fix: str) -> None:
        """Raise InputError where a listed file is not there, or is of another size."""
        for name, listed in manifest.files.items():
            path = f"{self.root}/{name}"
            size = self.attempt(lambda path=path: self.system.info(path).get("size"), name, fix)  # type: ignore[misc]
            if size is not None and size != listed.bytes:  # None where a server does not tell
                raise InputError(
                    f"cache {self.name}: file {name}",
                    expected=f"{listed.bytes} bytes",
                    found=str(size),
                    fix=fix,
                )

    def attempt(self, action: Callable[[], T], name: str, fix: str, *, expected: str = READING) -> T:
        """Do something with one of its files, again where the connection or the server fails for a while.

        Raises:
            InputError: the file is not there.
            NotNowError: anything else goes wrong, and goes on to.
        """
        try:
            return persist(action, self.reconnect)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - every protocol raises errors of its own
            raise self.explain_failure(error, name, fix, expected=expected) from None

    def explain_failure(self, error: Exception, name: str, fix: str, *, expected: str = READING) -> InputError:
        """What an error of its file system means for one of its files; NotNowError unless one to read is not there."""
        where, reason = f"{self.name}: {name}", find_cause(error)
        if reason is None and expected == READING:
            return InputError(where, expected="a file of a cache", found="nothing", fix=fix)
        found = f"{type(reason or error).__name__}: {reason or error}"
        return NotNowError(where, expected=expected, found=found, fix="check the address, your rights and the network")


def locate_folder(path: Path | str, options: Mapping[str, Any] | None = None) -> LocalFolder | RemoteFolder:
    """A path (perhaps of links to a cache), or a URL (`memory://`, `https://`, `s3://`, `dvc://`, ...) and its options.

    Raises:
        InputError: a protocol that fsspec does not know, or whose package is not installed.
    """
    text = str(path)
    if "://" not in text:
        return LocalFolder(resolve_links(Path(path)))
    system, root = connect_url(text, options or {})
    return RemoteFolder(text.rstrip("/"), dict(options or {}), root, {os.getpid(): system})


def read_manifest(folder: Folder, fix: str) -> Manifest:
    """The folder's manifest; see `manifest.parse_manifest`."""
    return parse_manifest(folder.read_manifest_bytes(fix), f"{folder.name}/{paths.MANIFEST_PATH}", fix)


def read_table(folder: Folder, manifest: Manifest, fix: str) -> ChunkTable:
    """The folder's chunk table, as it was sealed."""
    return divide_records(manifest, folder.read_records(manifest, fix))


def _check_records(name: str, data: NDArray[np.uint8], manifest: Manifest, fix: str) -> NDArray[Any]:
    """A chunk table's bytes as records, at every open: a million take 0.04 s."""
    listed = manifest.files[paths.CHUNKS_PATH]
    if len(data) != listed.bytes or hashlib.sha256(data).hexdigest() != listed.sha256:
        found = f"{len(data)} bytes of another SHA-256"
        where = f"cache {name}: file {paths.CHUNKS_PATH}"
        raise InputError(where, expected="the chunk table that was sealed", found=found, fix=fix)
    return data.view(RECORD)


def refuse_misplaced_chunks(name: str, manifest: Manifest, table: ChunkTable, fix: str) -> None:
    """Raise InputError unless each chunk has its place in its own file."""
    if found := find_misplaced_chunk(manifest, table):
        what = f"cache {name}: file {paths.CHUNKS_PATH}"
        raise InputError(what, expected="the place of each chunk", found=found, fix=fix)


def map_file(path: Path) -> NDArray[np.uint8]:
    """A regular file's bytes, mapped for reading.

    Raises:
        FileNotFoundError, NotADirectoryError, IsADirectoryError: see `open_regular_file`.
        ValueError: it is empty.
    """
    with open_regular_file(path) as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def open_regular_file(path: Path) -> Any:
    """Open a regular file for reading; never follow a link, never wait for a pipe.

    Raises:
        FileNotFoundError, NotADirectoryError: nothing is there.
        IsADirectoryError: something else than a regular file is.
    """
    if not hasattr(os, "O_NOFOLLOW") and (path.is_symlink() or path.is_dir()):
        raise IsADirectoryError(str(path))
    try:
        number = os.open(path, os.O_RDONLY | REGULAR_FILE_FLAGS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EMLINK):  # a link or a socket
            raise IsADirectoryError(str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise IsADirectoryError(str(path))
    return os.fdopen(number, "rb", buffering=0)


def refuse_large_manifest(data: bytes, where: str, fix: str) -> bytes:
    """The bytes, unless they are more than any manifest has."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise InputError(
            where, expected=f"a manifest of at most {MAX_MANIFEST_BYTES >> 20} MB", found="a larger file", fix=fix
        )
    return data


def chunk_error(name: str, info: StoredChunk, found: str, fix: str) -> InputError:
    """What a reader says of a chunk that is not the one that was sealed."""
    return InputError(
        f"cache {name}: file {info.file}, bytes {info.offset} to {info.offset + info.bytes}",
        expected="the chunk that was sealed",
        found=found,
        fix=fix,
    )


def _missing_error(name: str, file: str, fix: str) -> InputError:
    return InputError(
        f"cache {name}: file {file}", expected="the file that was sealed", found="none, or another", fix=fix
    )
