"""The end of a shard, and of a block's file: where its chunks lie. Pure; no I/O."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.chunk_grid import CRC_BYTES, encode_index
from pipeline.cache.crc import crc32c, crc_to_bytes


def encode_shard_index(slots: int, places: NDArray[np.int64], sizes: NDArray[np.int64]) -> bytes:
    """The index of chunks that lie one after the other, each followed by its checksum; and the index's own checksum.

    Args:
        slots: places for chunks.
        places: the slots (n,) that hold one, in the order of the chunks' bytes.
        sizes: their bytes (n,), without checksums.
    """
    offsets = np.cumsum(sizes + CRC_BYTES) - sizes - CRC_BYTES
    index = encode_index(slots, places, offsets, sizes)
    return index + crc_to_bytes(crc32c(np.frombuffer(index, np.uint8)))
