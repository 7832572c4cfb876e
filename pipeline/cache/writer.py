"""Write a cache block by block; publish it whole, or not at all.

Unfinished work lies in a folder of its own, one raw file a block, whatever the format: a file
that a killed process left is either whole (it was renamed into place) or ignored. A later run
of the same dump goes on from the blocks that are there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.cache.blocks import Block, StorePlan
from pipeline.cache.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    ArrayInfo,
    Format,
    Manifest,
    describe_files,
    sealed,
)
from pipeline.cache.stores import store_of
from pipeline.files import digest_of, locked, publish, recover, remove, write_bytes
from pipeline.progress import track
from pipeline.provenance import code_digest

Compute = Callable[[Block], Mapping[str, NDArray[Any]]]


def write_cache(
    target: Path,
    work: Path,
    plan: StorePlan,
    compute: Compute,
    *,
    store: Format,
    description: Mapping[str, Any],
    device: str = "cpu",
) -> Manifest:
    """Compute every block that is not there yet, then seal the store and put it in its place.

    Args:
        target: the cache's folder; an old one is replaced when the new one is complete.
        work: a folder for unfinished work, on the same file system, kept until then.
        plan: arrays and blocks.
        compute: a block's values, (rows, ...) by array, in the plan's dtypes.
        store: "zarr" or "hdf5".
        description: the manifest's entries `field`, `teacher`, `dataset`, `views`, `batch`.
        device: the kind that computes; blocks of another kind differ in their last bits and are
            not taken up.

    Raises:
        InputError: another process writes the same cache, or `compute` refuses a value.
        OSError: the disk is full or not writable; finished blocks stay in `work`.
    """
    with locked(work.with_suffix(".lock")):
        recover(work / "sealed", target)
        blocks = work / f"blocks-{_identity(plan, store, description, device)[:16]}"
        for stale in work.glob("blocks-*"):
            if stale != blocks:
                remove(stale)
        pending = [
            block for block in plan.blocks() if not all((blocks / _file(n, block)).exists() for n in plan.arrays)
        ]
        for block in track(pending, f"dump {target.name}", len(pending)):
            for name, values in compute(block).items():
                _write_block(blocks / _file(name, block), values, plan, name)
        manifest = _seal(work / "sealed", blocks, plan, store, description)
        publish(work / "sealed", target)
        remove(work)
    return manifest


def _identity(plan: StorePlan, store: Format, description: Mapping[str, Any], device: str) -> str:
    """Digest of everything that decides a block's bytes; blocks of another dump are not reused."""
    arrays = {name: [list(plan.shape(name)), array.dtype] for name, array in plan.arrays.items()}
    return digest_of([code_digest(), device, store, plan.chunk_rows, arrays, _plain(description)])


def _plain(description: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.model_dump() if hasattr(value, "model_dump") else value for key, value in description.items()}


def _file(array: str, block: Block) -> str:
    return f"{array}-{block.name}.raw"


def _write_block(path: Path, values: NDArray[Any], plan: StorePlan, name: str) -> None:
    little = np.ascontiguousarray(values, np.dtype(plan.arrays[name].dtype).newbyteorder("<"))
    write_bytes(path, memoryview(little).cast("B"))


def _seal(
    sealed_folder: Path, blocks: Path, plan: StorePlan, store: Format, description: Mapping[str, Any]
) -> Manifest:
    def read_block(name: str, block: Block) -> NDArray[Any]:
        array = plan.arrays[name]
        values = np.fromfile(blocks / _file(name, block), np.dtype(array.dtype).newbyteorder("<"))
        return values.reshape(block.stop - block.start, *array.row_shape)

    remove(sealed_folder)
    sealed_folder.mkdir(parents=True)
    store_of(store).write(sealed_folder, plan, read_block)
    plain = _plain(description)
    (sealed_folder / "card.md").write_text(card(plain, plan, store), encoding="utf-8")
    arrays = {
        name: ArrayInfo(shape=list(plan.shape(name)), dtype=array.dtype, codec="none", chunk_rows=plan.chunk_rows)  # type: ignore[arg-type]
        for name, array in plan.arrays.items()
    }
    manifest = sealed(
        {
            "format": "teachercache",
            "version": FORMAT_VERSION,
            "store": store,
            "package": __version__,
            "rows": plan.rows,
            "arrays": {name: info.model_dump() for name, info in arrays.items()},
            "files": {name: info.model_dump() for name, info in describe_files(sealed_folder).items()},
            "values": values_digest(plan, read_block),
            **plain,
        }
    )
    write_bytes(sealed_folder / MANIFEST, manifest.to_bytes())
    return manifest


def values_digest(plan: StorePlan, read_block: Callable[[str, Block], NDArray[Any]]) -> str:
    """SHA-256 over name, shape, dtype and C-ordered little-endian bytes of each array, by name."""
    digest = hashlib.sha256()
    for name in sorted(plan.arrays):
        digest.update(f"{name} {list(plan.shape(name))} {plan.arrays[name].dtype}\n".encode())
        for block in plan.blocks():
            digest.update(read_block(name, block))
    return digest.hexdigest()


def card(description: Mapping[str, Any], plan: StorePlan, store: Format) -> str:
    """A page for people who find the folder: what it is, whose, and how to read it."""
    teacher, dataset = description["teacher"], description["dataset"]
    arrays = "\n".join(f"| `{name}` | {plan.shape(name)} | {array.dtype} |" for name, array in plan.arrays.items())
    return f"""# {description["field"]["name"]} of {teacher["name"]} on {dataset["name"]}

A teacher's precomputed outputs, written by teachercache {__version__} ({store}).

- teacher: {teacher["name"]} ({teacher["architecture"]["name"]}), test accuracy {teacher["test_accuracy"]:.4f},
  weights SHA-256 `{teacher["weights_sha256"]}`
- data set: {dataset["name"]}, {dataset["samples"]} samples, {len(dataset["classes"])} classes,
  fingerprint `{dataset["fingerprint"]}`
- rows: sample ids 0 to {plan.rows - 1}

| array | shape (views, rows, ...) | dtype |
|---|---|---|
{arrays}

Read it with `pipeline.cache.open`, which checks every file against `manifest.json`.
"""
