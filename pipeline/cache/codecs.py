"""From rows to the bytes of a block, and back: padding and compression."""

from __future__ import annotations

import math
import zlib
from typing import Any, Literal

import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray

from pipeline.cache.dtypes import storage_dtype

Codec = Literal["none", "zstd", "gzip"]
Format = Literal["zarr", "hdf5"]

# What each format's own readers decode without a plug-in.
CODECS: dict[Format, tuple[Codec, ...]] = {"zarr": ("none", "zstd", "gzip"), "hdf5": ("none", "gzip")}
LEVELS = {"zstd": 3, "gzip": 5}
_WINDOW = {"zarr": 31, "hdf5": 15}  # zlib's window bits: a gzip or a zlib frame


def is_padded(store: Format, codec: Codec) -> bool:
    """Whether a last, shorter block is filled up with zeros: chunks are, contiguous rows are not."""
    return store == "zarr" or codec != "none"


def max_encoded_bytes(size: int, codec: Codec) -> int:
    """The most bytes that a block of `size` bytes may take in a store."""
    return size if codec == "none" else size + size // 128 + 1024


def encode(rows: NDArray[Any], *, chunk_rows: int, codec: Codec, store: Format) -> memoryview:
    """The bytes that stand for a block's rows in a store.

    Args:
        rows: (n, ...) with n <= chunk_rows, little-endian.
        chunk_rows: rows of a whole block.
        codec, store: of `CODECS`.
    """
    values = np.ascontiguousarray(rows)
    if is_padded(store, codec) and len(values) < chunk_rows:
        filled = np.zeros((chunk_rows, *values.shape[1:]), values.dtype)
        filled[: len(values)] = values
        values = filled
    raw = memoryview(values.reshape(-1)).cast("B")
    if codec == "zstd":
        return memoryview(zstd.compress(raw, LEVELS[codec]))
    if codec == "gzip":
        packer = zlib.compressobj(LEVELS[codec], wbits=_WINDOW[store])
        return memoryview(packer.compress(raw) + packer.flush())
    return raw


def decode(
    data: NDArray[np.uint8], *, dtype: str, row_shape: tuple[int, ...], chunk_rows: int, codec: Codec, store: Format
) -> Any:
    """The rows (n, ...) of a block; padding, where there is any, at their end.

    Raises:
        ValueError: the bytes decode to anything but whole rows, or to more than `chunk_rows`.
    """
    row_bytes = math.prod(row_shape) * storage_dtype(dtype).itemsize
    raw = data if codec == "none" else _decompress(data, row_bytes * chunk_rows, codec, store)
    if len(raw) % row_bytes or len(raw) > row_bytes * chunk_rows:
        raise ValueError(f"a block of {len(raw)} bytes for rows of {row_bytes}")
    return raw.view(storage_dtype(dtype)).reshape(-1, *row_shape)


def _decompress(data: NDArray[np.uint8], size: int, codec: Codec, store: Format) -> NDArray[np.uint8]:
    """Exactly `size` bytes, never more memory than that."""
    out = np.empty(size, np.uint8)
    if codec == "zstd":
        stated = _read_zstd_content_size(bytes(data[:18]))
        if stated != size:
            raise ValueError(f"zstd: a frame of {stated} bytes where a block has {size}")
        try:
            zstd.decompress(data, out)
        except RuntimeError as error:
            raise ValueError(f"zstd: {error}") from None
        return out
    unpacker = zlib.decompressobj(wbits=_WINDOW[store])
    try:
        raw = unpacker.decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(f"gzip: {error}") from None
    if len(raw) != size or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"gzip: a stream that does not end after {size} bytes")
    return np.frombuffer(raw, np.uint8)


def _read_zstd_content_size(head: bytes) -> int | None:
    """The decoded size that a zstd frame states (RFC 8878, 3.1.1.1), or None. Checked because the library
    decodes a frame that is shorter than the buffer without an error.
    """
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return None
    descriptor = head[4]
    single = descriptor >> 5 & 1
    width = (single, 2, 4, 8)[descriptor >> 6]
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    field = head[at : at + width]
    return int.from_bytes(field, "little") + 256 * (width == 2) if width and len(field) == width else None
