"""Arrays in one HDF5 file: data sets at the top level, contiguous, or in chunks where compressed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.cache import block_paths as paths
from pipeline.cache import hdf5_check
from pipeline.cache.blocks import ArrayPlan, Block, BlockKey, StorePlan
from pipeline.cache.codecs import LEVELS
from pipeline.cache.crc import split_checksum
from pipeline.cache.dtypes import storage_dtype
from pipeline.cache.manifest import ArrayInfo, Manifest

NAME = paths.STORE_PATHS["hdf5"]
KEEPS_BLOCK_FILES = False  # blocks are copied into one file
WITHOUT_LOCKS = {"HDF5_USE_FILE_LOCKING": "FALSE"}  # the variable, where it is set, has the last word
MAX_SECONDS = 3600  # a compressed store is read whole
SUPERBLOCK = b"\x89HDF\r\n\x1a\n\x03"  # signature and version


def write_store(
    folder: Path, plan: StorePlan, block_file: Callable[[str, Block], Path]
) -> dict[BlockKey, tuple[str, int]]:
    """Assemble `data.h5` from the block files.

    Returns:
        File and offset of each block, by array and block.
    """
    places = {}
    # Without a lock of HDF5's own: the cache's stands beside the work, and not every file system has such.
    with h5py.File(folder / NAME, "w", libver=("v110", "v110"), locking=False) as file:
        for name, array in plan.arrays.items():
            target = _create_dataset(file, name, array, plan)
            for block in plan.blocks():
                payload = _read_payload(block_file(name, block))
                corner = (block.view, block.start, *[0] * len(array.row_shape))
                if array.codec == "none":
                    values = payload.view(storage_dtype(array.dtype)).reshape(-1, *array.row_shape)
                    target[block.view, block.start : block.stop] = values
                    row = block.view * plan.rows + block.start
                    places[name, block] = (NAME, target.id.get_offset() + row * array.row_bytes)
                else:
                    target.id.write_direct_chunk(corner, payload)
                    places[name, block] = (NAME, target.id.get_chunk_info_by_coord(corner).byte_offset)
    return places


def _read_payload(path: Path) -> NDArray[np.uint8]:
    """A block file's bytes without the checksum that ends it, which must still be theirs."""
    payload, _, is_sound = split_checksum(np.fromfile(path, np.uint8))
    if not is_sound:
        raise InputError(str(path), expected="the bytes that were written", found="others", fix="run again")
    return payload


def _create_dataset(file: h5py.File, name: str, array: ArrayPlan, plan: StorePlan) -> Any:
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
    dtype = h5py.h5t.py_create(storage_dtype(array.dtype))
    space = h5py.h5s.create_simple(plan.shape(name))
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), dtype, space, layout))


def check_store(folder: Path, manifest: Manifest, fix: str) -> None:
    """Raise InputError unless HDF5 itself finds each array where the manifest says, and nothing else.

    External files, links of any kind, virtual data sets and filters other than deflate are refused.
    The library looks at the file in a process of its own (`hdf5_check`): one made for it can crash it.

    Raises:
        OSError: the file cannot be read here, which says nothing of its bytes.
    """
    path = folder / NAME
    with path.open("rb") as file:
        superblock = file.read(9)
    if superblock != SUPERBLOCK:
        raise InputError(str(path), expected="an HDF5 file with a superblock of version 3", found="another", fix=fix)
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-P", str(Path(hdf5_check.__file__))],
            input=json.dumps({"path": str(path.resolve()), "arrays": _describe_arrays(manifest)}).encode(),
            capture_output=True, check=False, timeout=MAX_SECONDS, env={**os.environ, **WITHOUT_LOCKS},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        found = f"one that the HDF5 library does not get through in {MAX_SECONDS} s"
        raise InputError(str(path), expected="a sound HDF5 file", found=found, fix=fix) from None
    if done.returncode < 0:  # ended by a signal
        found = f"one that crashes the HDF5 library (signal {-done.returncode})"
        raise InputError(str(path), expected="a sound HDF5 file", found=found, fix=fix)
    if done.returncode:
        raise RuntimeError(f"the check of HDF5 files did not run: {done.stderr.decode(errors='replace')}")
    answer = json.loads(done.stdout)
    if answer["errno"]:
        raise OSError(answer["errno"], os.strerror(answer["errno"]), str(path))
    _refuse_problem(path, answer["problem"], fix)


def check_own_store(folder: Path, manifest: Manifest, fix: str) -> None:
    """The same of a file that this process has just written, which is no danger to it."""
    path = folder / NAME
    _refuse_problem(path, hdf5_check.find_problem(str(path), _describe_arrays(manifest)), fix)


def _refuse_problem(path: Path, problem: str | None, fix: str) -> None:
    if problem:
        raise InputError(str(path), expected="just what the manifest says", found=problem, fix=fix)


def _describe_arrays(manifest: Manifest) -> dict[str, Any]:
    """The arrays as `hdf5_check` is told of them."""
    return {name: _describe_array(array) for name, array in manifest.arrays.items()}


def _describe_array(array: ArrayInfo) -> dict[str, Any]:
    blocks = [(block.view, block.start, block.stop, info.offset, info.bytes) for block, info in array.located_blocks()]
    dtype = storage_dtype(array.dtype).str
    return {
        "shape": array.shape,
        "dtype": dtype,
        "codec": array.codec,
        "chunk_rows": array.chunk_rows,
        "blocks": blocks,
    }
