"""Arrays in one HDF5 file: contiguous data sets at the top level."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.cache.blocks import Block, StorePlan

NAME = "data.h5"


def write(folder: Path, plan: StorePlan, read_block: Callable[[str, Block], NDArray[Any]]) -> None:
    """Assemble `data.h5` from the blocks."""
    with h5py.File(folder / NAME, "w", libver=("v110", "v110")) as file:
        for name, array in plan.arrays.items():
            # Allocated at once, so that the data lie in one piece that can be mapped; no time
            # stamps, so that the same values give the same bytes.
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_layout(h5py.h5d.CONTIGUOUS)
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            layout.set_obj_track_times(False)
            dtype = h5py.h5t.py_create(np.dtype(array.dtype).newbyteorder("<"))
            space = h5py.h5s.create_simple(plan.shape(name))
            target = h5py.Dataset(h5py.h5d.create(file.id, name.encode(), dtype, space, layout))
            for block in plan.blocks():
                target[block.view, block.start : block.stop] = read_block(name, block)


def read(folder: Path, name: str) -> NDArray[Any]:
    """One whole array."""
    with h5py.File(folder / NAME, "r") as file:
        values: NDArray[Any] = file[name][...]
    return values
