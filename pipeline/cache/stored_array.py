"""One array of an opened cache: whole, or any rows of it, from checked chunks."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.chunk_table import ArrayChunks
from pipeline.cache.codecs import Format
from pipeline.cache.decoded_array import DECODED_BYTES, DecodedArray
from pipeline.cache.folder import Folder, LocalFolder
from pipeline.cache.mapped_array import MappedArray


class StoredArray(Protocol):
    """How an array is read."""

    def load(self) -> NDArray[Any]:
        """All of it, (views, rows, ...), as stored."""
        ...

    def gather(self, views: NDArray[np.int64] | int, ids: NDArray[np.int64]) -> NDArray[Any]:
        """Rows (n, ...) of ids (n,), each of its view; all of them are there."""
        ...

    def release_pages(self) -> None:
        """Give back pages of files that are mapped into this process's memory."""
        ...


def open_array(
    folder: Folder, chunks: ArrayChunks, store: Format, fix: str, *, memory: int = DECODED_BYTES
) -> StoredArray:
    """The fastest way to an array: mapped where its bytes lie as they are, else decoded and held."""
    if isinstance(folder, LocalFolder) and chunks.info.codec == "none":
        return MappedArray(folder, chunks, fix)
    return DecodedArray(folder, chunks, store, fix, memory)
