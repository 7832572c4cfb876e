"""Write a cache block by block; publish it whole, or not at all.

Unfinished work lies in a folder of its own (`block_files`). A later run of the same dump goes on
from the blocks that are there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.files import (
    explain_disk_full,
    flush_file,
    hash_json,
    hold_lock,
    publish_output,
    recover_output,
    remove_path,
    write_bytes,
)
from pipeline.base.progress import track
from pipeline.base.provenance import hash_code
from pipeline.cache import paths
from pipeline.cache.array_order import sort_arrays
from pipeline.cache.block_files import BlockFiles, BlockFunction, write_blocks
from pipeline.cache.blocks import Block, StorePlan
from pipeline.cache.card import render_card
from pipeline.cache.codecs import Format
from pipeline.cache.digests import hash_files, hash_ranges
from pipeline.cache.manifest import Manifest, seal_manifest
from pipeline.cache.manifest_entries import build_manifest_entries, to_plain_entries
from pipeline.cache.readability import check_sealed, refuse_unreadable
from pipeline.cache.stores import load_store


def write_cache(
    target: Path,
    work: Path,
    plan: StorePlan,
    compute: BlockFunction,
    *,
    store: Format,
    description: Mapping[str, Any],
    device: str = "cpu",
    accept: Callable[[Manifest], None] = lambda _: None,
) -> Manifest:
    """Compute every block that is not there yet, then seal the store and put it in its place.

    Args:
        compute: a block's values, (rows, ...) by array, in the plan's dtypes.
        accept: sees the sealed manifest before anything is published, and may refuse it.
        target, work, plan, store, description, device: see `open_unfinished`.

    Raises:
        InputError: no reader would take the cache, another process writes the same one, or `compute`
            refuses a value.
        OSError: the disk is full or not writable; finished blocks stay in `work`.
    """
    with open_unfinished(target, work, plan, store=store, description=description, device=device) as unfinished:
        pending = unfinished.pending_blocks()
        write_blocks(unfinished.blocks, track(pending, f"dump {target.name}", len(pending)), compute)
        return unfinished.publish(accept)


@contextmanager
def open_unfinished(
    target: Path,
    work: Path,
    plan: StorePlan,
    *,
    store: Format,
    description: Mapping[str, Any],
    device: str = "cpu",
) -> Iterator[UnfinishedCache]:
    """Hold a cache's lock while it is written.

    Args:
        target: the cache's folder; an old one is replaced when the new one is complete.
        work: a folder for unfinished work, on the same file system, kept until then.
        plan: arrays and blocks.
        store: "zarr" or "hdf5".
        description: the manifest's entries `field`, `teacher`, `dataset`, `views`, `batch`.
        device: the kind that computes; blocks of another kind differ in their last bits and are
            not taken up.

    Raises:
        InputError: no reader would take the cache, or another process writes the same one.
    """
    described = to_plain_entries(description)
    plan = replace(plan, arrays=sort_arrays(plan.arrays, described["field"]))
    refuse_unreadable(target, plan, store, described)
    needed = plan.bytes * (2 if store == "hdf5" else 1)  # the blocks, then the file that is made of them
    with hold_lock(work.with_suffix(".lock")), explain_disk_full(target, needed):
        recover_output(work / "sealed", target)
        blocks = BlockFiles(work / f"blocks-{_digest_plan(plan, store, description, device)[:16]}", plan, store)
        for stale in work.glob("blocks-*"):
            if stale != blocks.folder:
                remove_path(stale)
        yield UnfinishedCache(target, work, blocks, description)


@dataclass(frozen=True)
class UnfinishedCache:
    """A cache that is being written.

    Attributes:
        target: its folder, once it is published.
        work: its unfinished work.
        blocks: those that are finished.
        description: the manifest's entries that say what it is.
    """

    target: Path
    work: Path
    blocks: BlockFiles
    description: Mapping[str, Any]

    def pending_blocks(self) -> list[Block]:
        """The blocks that are not there yet, in order."""
        return self.blocks.missing_blocks()

    def open_row_files(self, plan: StorePlan) -> BlockFiles:
        """Room for rows that the blocks are made from, kept as long as they are."""
        return BlockFiles(self.blocks.folder / "rows", plan, "zarr")

    def publish(self, accept: Callable[[Manifest], None] = lambda _: None) -> Manifest:
        """Seal the store, all of whose blocks are there, read it back, and put it in its place."""
        manifest = _seal_store(self.work / "sealed", self.blocks, self.description)
        check_sealed(self.work / "sealed")
        accept(manifest)
        publish_output(self.work / "sealed", self.target)
        remove_path(self.work)
        return manifest


def _digest_plan(plan: StorePlan, store: Format, description: Mapping[str, Any], device: str) -> str:
    """Digest of everything that decides a block's bytes; blocks of another dump are not reused."""
    arrays = {name: [list(plan.shape(name)), array.dtype, array.codec] for name, array in plan.arrays.items()}
    return hash_json([hash_code(), device, store, plan.chunk_rows, arrays, to_plain_entries(description)])


def _seal_store(folder: Path, blocks: BlockFiles, description: Mapping[str, Any]) -> Manifest:
    plan, store = blocks.plan, blocks.store
    remove_path(folder)
    folder.mkdir(parents=True)
    plain = to_plain_entries(description)
    values, crcs = _hash_values(blocks, plan)
    places = load_store(store).write_store(folder, plan, blocks.path)
    (folder / paths.CARD_PATH).write_bytes(render_card(plain, plan, store).encode())  # the same line ends on any system
    ranges = {key: (file, offset, _count_payload_bytes(blocks, *key)) for key, (file, offset) in places.items()}
    block_digests = hash_ranges(folder, ranges)
    names = paths.list_metadata_paths(store, plan.arrays) | {file for file, _ in places.values()}
    for name in names:
        flush_file(folder / name)
    digests = hash_files(folder, names, f"seal {folder.parent.name}")

    manifest = seal_manifest(
        build_manifest_entries(
            plan,
            store,
            plain,
            blocks={
                key: {"file": file, "offset": at, "bytes": size, "crc32c": crcs[key], "sha256": block_digests[key]}
                for key, (file, at, size) in ranges.items()
            },
            files={name: {"bytes": (folder / name).stat().st_size, "sha256": digests[name]} for name in digests},
            values=values,
        )
    )
    write_bytes(folder / paths.MANIFEST_PATH, manifest.to_bytes())
    return manifest


def _count_payload_bytes(blocks: BlockFiles, name: str, block: Block) -> int:
    return blocks.path(name, block).stat().st_size - paths.CRC_BYTES


def _hash_values(blocks: BlockFiles, plan: StorePlan) -> tuple[str, dict[tuple[str, Block], int]]:
    """The digest of the values (of each array its header, then its rows), and each block's CRC."""
    digest, crcs = hashlib.sha256(), {}
    for name in sorted(plan.arrays):
        digest.update(format_values_header(name, plan.shape(name), plan.arrays[name].dtype))
        for block in plan.blocks():
            rows, crcs[name, block] = blocks.read(name, block)
            digest.update(np.ascontiguousarray(rows))
    return digest.hexdigest(), crcs


def format_values_header(name: str, shape: tuple[int, ...], dtype: str) -> bytes:
    """What goes before an array's C-ordered little-endian bytes in the digest of the values."""
    return f"{name} {list(shape)} {dtype}\n".encode()
