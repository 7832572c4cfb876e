"""Arrays in one HDF5 file: data sets at the top level, contiguous, or in chunks where compressed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.cache import paths
from pipeline.cache.blocks import ArrayPlan, Block, StorePlan
from pipeline.cache.codecs import LEVELS
from pipeline.cache.dtypes import stored
from pipeline.cache.manifest import ArrayInfo, Manifest
from pipeline.errors import InputError

NAME = paths.STORE["hdf5"]


def write(
    folder: Path, plan: StorePlan, block_file: Callable[[str, Block], Path]
) -> dict[tuple[str, Block], tuple[str, int]]:
    """Assemble `data.h5` from the block files.

    Returns:
        File and offset of each block, by array and block.
    """
    places = {}
    with h5py.File(folder / NAME, "w", libver=("v110", "v110")) as file:
        for name, array in plan.arrays.items():
            target = _create(file, name, array, plan)
            for block in plan.blocks():
                path = block_file(name, block)
                payload = np.fromfile(path, np.uint8, path.stat().st_size - paths.CRC_BYTES)
                corner = (block.view, block.start, *[0] * len(array.row_shape))
                if array.codec == "none":
                    values = payload.view(stored(array.dtype)).reshape(-1, *array.row_shape)
                    target[block.view, block.start : block.stop] = values
                    row = block.view * plan.rows + block.start
                    places[name, block] = (NAME, target.id.get_offset() + row * array.row_bytes)
                else:
                    target.id.write_direct_chunk(corner, payload)
                    places[name, block] = (NAME, target.id.get_chunk_info_by_coord(corner).byte_offset)
    return places


def _create(file: h5py.File, name: str, array: ArrayPlan, plan: StorePlan) -> Any:
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if array.codec == "none":
        # Allocated at once, so that the data lie in one piece that can be mapped.
        layout.set_layout(h5py.h5d.CONTIGUOUS)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    else:
        layout.set_chunk((1, plan.chunk_rows, *array.row_shape))
        layout.set_deflate(LEVELS["gzip"])
    layout.set_obj_track_times(False)  # no time stamps: the same values give the same bytes
    dtype = h5py.h5t.py_create(stored(array.dtype))
    space = h5py.h5s.create_simple(plan.shape(name))
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), dtype, space, layout))


def check(folder: Path, manifest: Manifest, fix: str) -> None:
    """Raise InputError unless HDF5 itself finds each array where the manifest says, and nothing else.

    External files, links of any kind, virtual data sets and filters other than deflate are refused
    before a single value is read through the library.
    """
    where = str(folder / NAME)
    try:
        with h5py.File(folder / NAME, "r") as file:
            names = set(file)
            if names != manifest.arrays.keys():
                odd = min(names ^ manifest.arrays.keys())
                raise InputError(where, expected="exactly the manifest's arrays", found=f"{odd!r} besides", fix=fix)
            for name, array in manifest.arrays.items():
                problem = _problem(file, name, array)
                if problem:
                    raise InputError(
                        f"{where}: array {name!r}", expected="what the manifest says", found=problem, fix=fix
                    )
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(where, expected="an HDF5 file", found=str(error), fix=fix) from None


def _problem(file: h5py.File, name: str, array: ArrayInfo) -> str | None:
    """What of a data set differs from the manifest, or None."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return "a link"
    item = file.get(name)
    if not isinstance(item, h5py.Dataset):
        return "no data set"
    layout = item.id.get_create_plist()
    filters = [layout.get_filter(number)[0] for number in range(layout.get_nfilters())]
    kind = h5py.h5d.CONTIGUOUS if array.codec == "none" else h5py.h5d.CHUNKED
    chunk = (1, array.chunk_rows, *array.row_shape) if array.codec != "none" else None
    known = h5py.h5t.py_create(stored(array.dtype))
    facts = {
        "external storage": (layout.get_external_count(), 0),
        "layout": (layout.get_layout(), kind),
        "filters": (filters, [] if array.codec == "none" else [h5py.h5z.FILTER_DEFLATE]),
        "shape": (item.shape, tuple(array.shape)),
        "dtype": (item.id.get_type() == known, True),
        "chunks": (item.chunks, chunk),
    }
    for what, (found, expected) in facts.items():
        if found != expected:
            return f"another {what}" if what != "external storage" else what
    start = item.id.get_offset() if array.codec == "none" else None
    for block, info in zip(array.cut(), array.blocks, strict=True):
        corner = (block.view, block.start, *[0] * len(array.row_shape))
        if start is not None:
            place = start + (block.view * array.shape[1] + block.start) * array.row_bytes
        else:
            stored_chunk = item.id.get_chunk_info_by_coord(corner)
            place = stored_chunk.byte_offset if (stored_chunk.size, stored_chunk.filter_mask) == (info.bytes, 0) else -1
        if place != info.offset:
            return f"{block} at another place"
    return None
