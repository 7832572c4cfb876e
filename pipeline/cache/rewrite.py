"""Write a cache again: in another form, or without its damage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.cache.block_files import BlockFunction
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.cache_paths import CARD_PATH, CHUNKS_PATH
from pipeline.cache.chunk_table import ChunkTable
from pipeline.cache.codecs import CODECS, Codec, Format
from pipeline.cache.decoded_array import read_rows
from pipeline.cache.dtypes import DType, round_to_dtype, widen_bfloat16
from pipeline.cache.folder import LocalFolder, read_table
from pipeline.cache.manifest import ArrayInfo, Manifest, SharingInfo
from pipeline.cache.reader import Cache
from pipeline.cache.store_plan import count_whole_rows, plan_store, replan_store
from pipeline.cache.verify import Verification
from pipeline.cache.writer import write_cache

# What a rewritten cache keeps of the old one's manifest.
KEPT_ENTRIES = ("field", "teacher", "dataset", "views", "batch", "axes", "computed", "sharing")
FIXED_DTYPE_ARRAYS = {"tail"}  # arrays that have one number format only


def convert_cache(
    cache: Cache,
    target: Path,
    work: Path,
    *,
    store: Format | None = None,
    dtype: str | None = None,
    codec: Codec | None = None,
    chunk_kib: int | None = None,
    sharing: SharingInfo | None = None,
) -> Manifest:
    """Write a cache again in another store, number format, compression or chunks, or with other terms of use.

    Args:
        cache: the source.
        target: a new folder.
        work: for unfinished work, on the target's file system.
        store: "zarr" or "hdf5"; None keeps it.
        dtype: of the field's numbers; None keeps every bit, and the digest of the values is
            checked to have stayed the same.
        codec: None keeps it where the store has it (HDF5 knows no zstd: gzip then).
        chunk_kib: KiB of a decoded chunk; None: by the codec.
        sharing: the terms of use; None keeps them.

    Raises:
        InputError: a number beyond the new format's range, or a field that has no choice of one.
    """
    manifest, store = cache.manifest, store or cache.manifest.store
    before = manifest.field.parameters.get("dtype")
    if dtype is not None and before is None:
        raise InputError(f"cache {cache.folder.name}: dtype", expected=f"nothing to choose for {manifest.field.name}")
    changed = dtype is not None and dtype != before
    arrays = _plan_arrays(manifest, store, dtype if changed else None, codec)
    plan = plan_store(
        arrays,
        views=next(iter(manifest.arrays.values())).shape[0],
        rows=manifest.rows,
        batch=manifest.batch if manifest.unit == "sample" else 1,
        chunk_bytes=chunk_kib and chunk_kib << 10,
    )

    def compute(block: Block) -> dict[str, NDArray[Any]]:
        ids = np.arange(block.start, block.stop)
        rows = {name: cache.rows(ids, block.view, name) for name in plan.arrays}
        return {
            name: _round_rows(plan.arrays[name].dtype, values, block, manifest.unit) for name, values in rows.items()
        }

    def accept(made: Manifest) -> None:
        if not changed and made.values != manifest.values:
            raise InputError(f"cache {target}", expected=f"values of digest {manifest.values}", found=made.values)

    description = {key: value for key, value in manifest.model_dump().items() if key in KEPT_ENTRIES}
    if sharing is not None:
        description["sharing"] = sharing
    if changed:
        description["field"] = {**description["field"], "parameters": _change_dtype(manifest, str(before), str(dtype))}
    place = work / manifest.root[:16]
    return write_cache(target, place, plan, compute, store=store, description=description, accept=accept)


def _plan_arrays(manifest: Manifest, store: Format, dtype: str | None, codec: Codec | None) -> dict[str, ArrayPlan]:
    """How the converted arrays are kept; `dtype`: of those that have the field's own now, None where it stays."""
    before = manifest.field.parameters.get("dtype")

    def plan_array(name: str, array: ArrayInfo) -> ArrayPlan:
        changes = dtype is not None and name not in FIXED_DTYPE_ARRAYS and array.dtype == before
        kept = codec or (array.codec if array.codec in CODECS[store] else "gzip")
        return ArrayPlan(array.row_shape, cast("DType", dtype) if changes else array.dtype, kept)

    return {name: plan_array(name, array) for name, array in manifest.arrays.items()}


def _change_dtype(manifest: Manifest, before: str, dtype: str) -> dict[str, Any]:
    """A field's parameters after a change of format.

    Rounding from float32 gives what a dump in that format would have held; any other change gives
    numbers that went `through` a coarser format, and says so: a reader that expects true ones
    refuses them.
    """
    parameters = {**manifest.field.parameters, "dtype": dtype}
    if before != "float32":
        parameters["through"] = [*manifest.field.parameters.get("through", []), before]
    return parameters


def _round_rows(dtype: DType, values: NDArray[Any], block: Block, unit: str) -> NDArray[Any]:
    if values.dtype.kind != "f":
        return values
    made = round_to_dtype(values, dtype)
    bad = np.flatnonzero(~np.isfinite(widen_bfloat16(made, dtype).reshape(len(made), -1)).all(axis=1))
    if len(bad):
        raise InputError(
            f"{unit} {block.start + bad[0]} in {'view' if unit == 'sample' else 'plan'} {block.view}",
            expected=f"finite {dtype} numbers",
            found=f"{np.abs(values[bad[0]]).max():.6g}, beyond its range",
            fix="choose a wider dtype",
        )
    return made


def repair_cache(
    folder: Path, manifest: Manifest, found: Verification, *, target: Path, work: Path, compute: BlockFunction
) -> Manifest:
    """Write a damaged cache again: sound blocks are copied, damaged ones computed.

    Args:
        folder, manifest: of the damaged cache.
        found: what is wrong with it.
        target: a new folder.
        work: for unfinished work, on the target's file system.
        compute: a block's rows, as the dump computed them; asked only for the fewest that hold the damaged chunks.

    Raises:
        InputError: the result is not the cache that was sealed, bit for bit: another teacher,
            other data, or another kind of machine.
    """
    arrays, local, fix = manifest.arrays, LocalFolder(folder), "run `teachercache cache verify` again"
    bad = [block for each in found.damage for _, block in each.blocks]
    lost = any(each.file == CHUNKS_PATH for each in found.damage)  # then no chunk can be found
    table = None if lost else read_table(local, manifest, fix)

    def compute_or_copy(block: Block) -> Mapping[str, NDArray[Any]]:
        if table is None:
            return compute(block)
        parts = block.split(whole) if any(block.overlaps(each) for each in bad) else [block]
        made = [compute(part) if any(part.overlaps(each) for each in bad) else copy(table, part) for part in parts]
        return {name: np.concatenate([part[name] for part in made]) for name in arrays}

    def copy(table: ChunkTable, block: Block) -> Mapping[str, NDArray[Any]]:
        return {name: read_rows(local, table.arrays[name], block, manifest.store, fix) for name in arrays}

    def accept(made: Manifest) -> None:
        if made.root != manifest.root:
            raise InputError(
                f"repair of {folder}",
                expected=f"the cache that was sealed (root {manifest.root[:12]})",
                found=f"other bytes (root {made.root[:12]}): another teacher, other data or another kind of machine",
                fix="dump it again",
            )

    plans = {name: ArrayPlan(array.row_shape, array.dtype, array.codec) for name, array in arrays.items()}
    batch = manifest.batch if manifest.unit == "sample" else 1
    grids = {name: array.grid for name, array in arrays.items()}
    plan, whole = replan_store(plans, grids, batch), count_whole_rows(grids, batch)
    description = {key: value for key, value in manifest.model_dump().items() if key in (*KEPT_ENTRIES, "package")}
    place = work / manifest.root[:16]
    return write_cache(
        target,
        place,
        plan,
        compute_or_copy,
        store=manifest.store,
        description=description,
        accept=accept,
        card_sha256=manifest.files[CARD_PATH].sha256,
    )
