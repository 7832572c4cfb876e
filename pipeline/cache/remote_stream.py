"""The bytes of a file far away, from any place on, piece by piece: never more of them than were asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.files import READ_PIECE
from pipeline.cache import remote_errors
from pipeline.cache.folder import RemoteFolder
from pipeline.cache.url_systems import list_protocols

FIX = "push it again"  # where a listed file is not there


def stream_file(folder: RemoteFolder, name: str, start: int, end: int) -> Iterator[bytes]:
    """The bytes of a listed file from `start` to `end`, unchecked, in pieces.

    A connection that is cut is taken up at the byte where it was.

    Raises:
        InputError: the file is not there.
        NotNowError: it ends before `end`, or cannot be read for longer than `remote_errors.PAUSES`.
    """
    at, failures, failed_at = start, 0, start
    while at < end:
        try:
            with _open_at(folder, name, at, end) as file:
                while at < end and (piece := file.read(min(READ_PIECE, end - at))):
                    at += len(piece)
                    yield piece
            _refuse_early_end(at, end)
        except InputError:  # it cannot be reached, and was tried for long enough
            raise
        except Exception as error:  # noqa: BLE001 - every protocol raises errors of its own
            # A server that breaks off at every byte would be tried for ever.
            failures = 1 if at - failed_at >= READ_PIECE else failures + 1
            failed_at = at
            if failures > len(remote_errors.PAUSES) or not remote_errors.is_transient(error):
                raise folder.explain_failure(error, name, FIX) from None
            time.sleep(remote_errors.PAUSES[failures - 1])
            folder.reconnect()


def _refuse_early_end(at: int, end: int) -> None:
    """Raise ConnectionError: a server may have closed a connection without a word."""
    if at < end:
        raise ConnectionError(f"it ends after {at} of {end} bytes")


@contextmanager
def _open_at(folder: RemoteFolder, name: str, start: int, end: int) -> Iterator[Any]:
    """An opened file that stands at a byte."""
    system, path = folder.system, f"{folder.root}/{name}"
    if "http" not in list_protocols(system):
        with system.open(path, "rb") as file:
            file.seek(start)
            yield file
        return
    # As a stream: fsspec's other way holds whole answers in memory, however long a server makes them.
    headers = {**system.kwargs.get("headers", {}), "Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
    with system.open(path, "rb", block_size=0, size=end, headers=headers) as file:
        _skip(file, start if file.r.status == 200 else 0)  # a server that knows no ranges begins at the first byte
        yield file


def _skip(file: Any, count: int) -> None:
    while count and (piece := file.read(min(READ_PIECE, count))):
        count -= len(piece)
