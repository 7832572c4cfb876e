"""Files of a cache far away, one by one: their sizes, small ones read, any written and removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from pipeline.base.errors import InputError, NotNowError
from pipeline.cache.folder import RemoteFolder
from pipeline.cache.remote_errors import find_cause
from pipeline.cache.remote_stream import stream_file
from pipeline.cache.url_systems import list_protocols

# Where folders are but beginnings of names. (s3fs, asked to make one, makes a bucket.)
FLAT_PROTOCOLS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "memory"}
WRITING = "to write it"


def find_remote_size(remote: RemoteFolder, name: str) -> int | None:
    """The bytes of a file; None where it is not there, or the store does not say."""

    def find_size() -> int | None:
        try:
            found = remote.system.info(f"{remote.root}/{name}")
        except Exception as error:
            if find_cause(error) is None:
                return None
            raise
        return found.get("size") if found.get("type") != "directory" else None

    return remote.attempt(find_size, name, "")


def read_small_file(remote: RemoteFolder, name: str, most: int) -> bytes | None:
    """A file of at most so many bytes; of a longer one these, of one that is not there None."""
    size = find_remote_size(remote, name)
    try:
        return None if size is None else b"".join(stream_file(remote, name, 0, min(size, most)))
    except NotNowError:
        raise
    except InputError:
        return None


def write_remote_file(remote: RemoteFolder, name: str, pieces: Callable[[], Iterable[bytes]]) -> None:
    """Write a file, from the first byte on each time that the connection is cut.

    Args:
        remote: whose file it is.
        name: of the file.
        pieces: makes its bytes.

    Raises:
        NotNowError: it cannot be written.
    """

    def write() -> None:
        path = f"{remote.root}/{name}"
        if not FLAT_PROTOCOLS & list_protocols(remote.system):
            remote.system.makedirs(path.rpartition("/")[0], exist_ok=True)
        file = remote.system.open(path, "wb")
        try:
            for piece in pieces():
                file.write(piece)
        except BaseException:
            _abandon(file)
            raise
        file.close()

    remote.attempt(write, name, "", expected=WRITING)


def remove_remote_file(remote: RemoteFolder, name: str) -> None:
    """Delete a file, if it is there."""

    def remove() -> None:
        try:
            remote.system.rm_file(f"{remote.root}/{name}")
        except Exception as error:
            if find_cause(error) is not None:
                raise

    if find_remote_size(remote, name) is not None:
        remote.attempt(remove, name, "", expected="to delete it")


def _abandon(file: Any) -> None:
    """Give up a half-written file: some stores never see it, others keep a short one."""
    for give_up in ("discard", "close"):
        with suppress(Exception):
            getattr(file, give_up)()
