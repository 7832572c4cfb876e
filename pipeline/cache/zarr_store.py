"""Arrays in a Zarr v3 group: uncompressed chunks with a CRC-32C each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.storage import LocalStore

from pipeline.cache.blocks import Block, StorePlan

NAME = "data.zarr"


def write(folder: Path, plan: StorePlan, read_block: Callable[[str, Block], NDArray[Any]]) -> None:
    """Assemble `data.zarr` from the blocks: one chunk each."""
    group = zarr.create_group(LocalStore(folder / NAME), zarr_format=3)
    for name, array in plan.arrays.items():
        target = group.create_array(
            name,
            shape=plan.shape(name),
            chunks=(1, plan.chunk_rows, *array.row_shape),
            dtype=np.dtype(array.dtype),
            filters=None,
            serializer=BytesCodec(endian="little"),
            compressors=Crc32cCodec(),
            fill_value=0,
            # A chunk of zeros is written like any other, so that a missing one is always an error.
            config={"write_empty_chunks": True},
        )
        for block in plan.blocks():
            target[block.view, block.start : block.stop] = read_block(name, block)


def read(folder: Path, name: str) -> NDArray[Any]:
    """One whole array."""
    group = zarr.open_group(LocalStore(folder / NAME, read_only=True), mode="r", zarr_format=3)
    values: NDArray[Any] = np.asarray(group[name][...])  # type: ignore[index]
    return values
