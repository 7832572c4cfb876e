"""Check a file's bytes as they pass by: each chunk, and in the end what lies between chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.cache.manifest import Manifest


class ChangedError(InputError):
    """Bytes are not those that were sealed; the text says which."""


class RestChangedError(ChangedError):
    """They lie in no chunk: which of the file's they are is not known."""


class FileCheck:
    """The digests of one file, taken as its bytes come, in order.

    Attributes:
        at: how many have come.
    """

    def __init__(self, manifest: Manifest, records: NDArray[Any] | None, file: str) -> None:
        """Begin with the first byte.

        Args:
            manifest: with the file's size, and the digest of those of its bytes that lie in no chunk.
            records: of the chunk table; None for the table itself.
            file: its name.
        """
        self._file, self._listed, self.at = file, manifest.files[file], 0
        mine = None if records is None else records[records["file"] == sorted(manifest.files).index(file)]
        self._stretches = _iterate_stretches(mine, self._listed.bytes)
        self._outside = hashlib.sha256()
        self._begin_stretch()
        if self._listed.bytes == 0:
            self._end_file()

    def take(self, piece: bytes | memoryview) -> None:
        """Take in the next bytes.

        Raises:
            ChangedError: a chunk that ends in them is another one, or the file's end shows that the rest is.
        """
        left = memoryview(piece)
        while left:
            part = left[: self._end - self.at]
            if not len(part):
                raise ChangedError(f"file {self._file}: more than {self._listed.bytes} bytes")
            (self._outside if self._expected is None else self._digest).update(part)
            self.at, left = self.at + len(part), left[len(part) :]
            if self.at == self._end:
                self._end_stretch()

    def go_back(self) -> int:
        """Forget the part of a chunk that has come, and return where the next bytes belong."""
        if self._expected is not None and self.at < self._end:
            self.at, self._digest = self._start, hashlib.sha256()
        return self.at

    def _begin_stretch(self) -> None:
        self._start, (self._end, self._expected) = self.at, next(self._stretches, (self.at, None))
        self._digest = hashlib.sha256()

    def _end_stretch(self) -> None:
        if self._expected is not None and self._digest.digest() != self._expected:
            raise ChangedError(f"file {self._file}, bytes {self._start} to {self._end}: another SHA-256")
        if self.at == self._listed.bytes:
            self._end_file()
        self._begin_stretch()

    def _end_file(self) -> None:
        if self._outside.hexdigest() != self._listed.sha256:
            raise RestChangedError(f"file {self._file}: another SHA-256 of what lies in no chunk")


def _iterate_stretches(records: NDArray[Any] | None, size: int) -> Iterator[tuple[int, bytes | None]]:
    """The ends of a file's chunks, each with its digest, and of the gaps between them, in order."""
    end = 0
    if records is not None:
        ordered = records[np.argsort(records["offset"], kind="stable")]
        for start, length, digest in zip(
            ordered["offset"].tolist(), ordered["bytes"].tolist(), ordered["sha256"], strict=True
        ):
            if start > end:
                yield start, None
            end = start + length
            yield end, digest.tobytes()
    if size > end:
        yield size, None
