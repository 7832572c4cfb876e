"""Arrays in one HDF5 file: data sets at the top level, contiguous, or in chunks where compressed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.cache import cache_paths as paths
from pipeline.cache import hdf5_check
from pipeline.cache.block_files import BlockFiles, FinishedChunk, Put
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.chunk_grid import RECORD, ChunkGrid
from pipeline.cache.chunk_table import ChunkTable
from pipeline.cache.codecs import LEVELS
from pipeline.cache.dtypes import storage_dtype
from pipeline.cache.store_plan import StorePlan

NAME = paths.STORE_PATHS["hdf5"]
WITHOUT_LOCKS = {"HDF5_USE_FILE_LOCKING": "FALSE"}  # the variable, where it is set, has the last word
MIN_SECONDS = 3600  # that the HDF5 library is given to look at a file, and
SLOWEST_SPEED = 4 << 20  # bytes a second beyond: a compressed store is read whole
SUPERBLOCK = b"\x89HDF\r\n\x1a\n\x03"  # signature and version


@contextmanager
def assemble_store(folder: Path, blocks: BlockFiles, records: Mapping[str, NDArray[Any]]) -> Iterator[Put]:
    """Make `data.h5` of the blocks that are put into it while the context is open.

    Args:
        folder: of the cache.
        blocks: where the blocks come from.
        records: by array, of its chunks; their `offset` is written.
    """
    plan = blocks.plan
    # Without a lock of HDF5's own: the cache's stands beside the work, and not every file system has such.
    _refuse_full_disk(folder / NAME, blocks)
    with h5py.File(folder / NAME, "w", libver=("v110", "v110"), locking=False) as file:
        targets = {name: _create_dataset(file, name, array, plan) for name, array in plan.arrays.items()}

        def put(name: str, block: Block, chunks: list[FinishedChunk]) -> None:
            write = _write_plain if plan.arrays[name].codec == "none" else _write_packed
            write(targets[name], blocks, name, block, chunks)

        yield put
        for name, grid in plan.grids.items():
            find = _place_plain_chunks if plan.arrays[name].codec == "none" else _find_packed_chunks
            records[name]["offset"] = find(targets[name], grid)


def _refuse_full_disk(path: Path, blocks: BlockFiles) -> None:
    """Raise OSError where the disk has no room for the file: HDF5 cannot close one whose bytes it could not write, and
    may crash then.
    """
    plan = blocks.plan
    needed = sum(blocks.path(name, block).stat().st_size for name in plan.arrays for block in plan.blocks())
    if shutil.disk_usage(path.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _write_plain(
    target: h5py.Dataset, blocks: BlockFiles, name: str, block: Block, chunks: list[FinishedChunk]
) -> None:
    """Write a block's rows into a contiguous data set, all at once: each call costs as much as some 100 KB."""
    payload = chunks[0].payload if len(chunks) == 1 else np.concatenate([each.payload for each in chunks])
    array = blocks.plan.arrays[name]
    rows = payload.view(storage_dtype(array.dtype)).reshape(-1, *array.row_shape)  # no padding in this store
    target[block.view, block.start : block.stop] = rows


def _place_plain_chunks(target: h5py.Dataset, grid: ChunkGrid) -> NDArray[np.int64]:
    """Where the chunks (n,) of a contiguous data set lie."""
    view, index = np.divmod(np.arange(grid.count), grid.per_view)
    row_bytes = target.nbytes // (grid.views * grid.rows)
    return np.asarray(target.id.get_offset() + (view * grid.rows + index * grid.chunk_rows) * row_bytes)


def _write_packed(
    target: h5py.Dataset, blocks: BlockFiles, name: str, block: Block, chunks: list[FinishedChunk]
) -> None:
    """Write a block's chunks into a chunked data set as they are."""
    for number, chunk in enumerate(chunks):
        start = block.start + number * blocks.plan.grids[name].chunk_rows
        target.id.write_direct_chunk((block.view, start, *[0] * (target.ndim - 2)), chunk.payload)


def _find_packed_chunks(target: h5py.Dataset, grid: ChunkGrid) -> NDArray[np.int64]:
    """Where the chunks (n,) of a chunked data set lie."""
    places, _, _ = hdf5_check.list_chunks(target, grid.chunk_rows, grid.count)
    assert not (places < 0).any()
    return places


def _create_dataset(file: h5py.File, name: str, array: ArrayPlan, plan: StorePlan) -> Any:
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if array.codec == "none":
        # Allocated at once, so that the data lie in one piece that can be mapped.
        layout.set_layout(h5py.h5d.CONTIGUOUS)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    else:
        layout.set_chunk((1, plan.grids[name].chunk_rows, *array.row_shape))
        layout.set_deflate(LEVELS["gzip"])
    layout.set_obj_track_times(False)  # no time stamps: the same values give the same bytes
    dtype = h5py.h5t.py_create(storage_dtype(array.dtype))
    space = h5py.h5s.create_simple(plan.shape(name))
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), dtype, space, layout))


def check_store(folder: Path, table: ChunkTable, fix: str) -> None:
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
    seconds = MIN_SECONDS + path.stat().st_size // SLOWEST_SPEED
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-P", str(Path(hdf5_check.__file__))],
            input=json.dumps(_describe_file(path, table)).encode(),
            capture_output=True, check=False, timeout=seconds, env={**os.environ, **WITHOUT_LOCKS},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        found = f"one that the HDF5 library does not get through in {seconds} s"
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


def check_own_store(folder: Path, table: ChunkTable, fix: str) -> None:
    """The same of a file that this process has just written, which is no danger to it."""
    path = folder / NAME
    _refuse_problem(path, hdf5_check.find_problem(_describe_file(path, table)), fix)


def _refuse_problem(path: Path, problem: str | None, fix: str) -> None:
    if problem:
        raise InputError(str(path), expected="just what the manifest says", found=problem, fix=fix)


def _describe_file(path: Path, table: ChunkTable) -> dict[str, Any]:
    """A store as `hdf5_check` is told of it."""
    first, arrays = 0, {}
    for name, chunks in sorted(table.arrays.items()):
        info = chunks.info
        arrays[name] = {
            "shape": info.shape,
            "dtype": storage_dtype(info.dtype).str,
            "codec": info.codec,
            "chunk_rows": info.chunk_rows,
            "records": [first, first + info.grid.count],
        }
        first += info.grid.count
    return {
        "path": str(path.resolve()),
        "table": str((path.parent / paths.CHUNKS_PATH).resolve()),
        "record": RECORD.descr,
        "arrays": arrays,
    }
