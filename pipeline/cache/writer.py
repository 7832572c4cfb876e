"""Write a cache block by block; publish it whole, or not at all.

Unfinished work lies in a folder of its own (`block_files`). A later run of the same dump goes on
from the blocks that are there.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.files import (
    explain_disk_full,
    hash_json,
    hold_lock,
    publish_output,
    recover_output,
    remove_path,
    write_bytes,
)
from pipeline.base.progress import track
from pipeline.base.provenance import hash_code
from pipeline.base.ranks import ALONE, Ranks
from pipeline.cache.array_order import sort_arrays
from pipeline.cache.block_files import BlockFiles, BlockFunction, write_blocks
from pipeline.cache.blocks import Block
from pipeline.cache.codecs import Format
from pipeline.cache.manifest import Manifest
from pipeline.cache.manifest_entries import to_plain_entries
from pipeline.cache.reader_limits import check_sealed, refuse_unreadable
from pipeline.cache.seal import seal_store
from pipeline.cache.store_plan import StorePlan

TRIES, DELAY = 20, 0.5  # looks for a file that another machine has made, and seconds between them


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
    card_sha256: str | None = None,
) -> Manifest:
    """Compute every block that is not there yet, then seal the store and put it in its place.

    Args:
        compute: a block's values, (rows, ...) by array, in the plan's dtypes.
        accept: sees the sealed manifest before anything is published, and may refuse it.
        card_sha256: of the card that is wanted, where an earlier version may have written it; see `seal_store`.
        target, work, plan, store, description, device: see `open_unfinished`.

    Raises:
        InputError: no reader would take the cache, another process writes the same one, or `compute`
            refuses a value.
        OSError: the disk is full or not writable; finished blocks stay in `work`.
    """
    with open_unfinished(target, work, plan, store=store, description=description, device=device) as unfinished:
        pending = unfinished.pending_blocks()
        write_blocks(unfinished.blocks, track(pending, f"dump {target.name}", len(pending)), compute)
        return unfinished.publish(accept, card_sha256)


@contextmanager
def open_unfinished(
    target: Path,
    work: Path,
    plan: StorePlan,
    *,
    store: Format,
    description: Mapping[str, Any],
    device: str = "cpu",
    ranks: Ranks = ALONE,
) -> Iterator[UnfinishedCache]:
    """Hold a cache's lock while it is written.

    Args:
        target: the cache's folder; an old one is replaced when the new one is complete.
        work: a folder for unfinished work, on the same file system, kept until then.
        plan: arrays and blocks.
        store: "zarr" or "hdf5".
        description: the manifest's entries `field`, `teacher`, `dataset`, `views`, `batch`.
        device: the kind that computes; blocks of another kind differ in their last bits: they are
            not taken up, and kept, for a run on that kind.
        ranks: the processes that write it, of which the first holds the lock for all.

    Raises:
        InputError: no reader would take the cache, or another process writes the same one.
    """
    described = to_plain_entries(description)
    plan = replace(plan, arrays=sort_arrays(plan.arrays, described["field"]))
    refuse_unreadable(target, plan, store, described)
    # The blocks; and where they are not the store's own files, those that are made of them.
    needed = plan.bytes * (1 if store == "zarr" and plan.files == plan.block_files else 2)
    digest = _digest_plan(plan, store, description, device)[:16]
    blocks = BlockFiles(work / f"blocks-{device}-{digest}", plan, store)
    with ExitStack() as stack:
        stack.enter_context(explain_disk_full(target, needed))
        if ranks.is_first:
            stack.enter_context(hold_lock(work.with_suffix(".lock")))
            recover_output(work / "sealed", target)
            for stale in work.glob(f"blocks-{device}-*"):
                if stale != blocks.folder:
                    remove_path(stale)
        if ranks.are_several:
            _require_one_folder(blocks.folder, ranks)
        yield UnfinishedCache(target, work, blocks, description)


def _require_one_folder(folder: Path, ranks: Ranks) -> None:
    """Raise InputError where the processes do not see one and the same folder."""
    mark = folder / ranks.agree(lambda: f"mark-{uuid.uuid4()}")
    if ranks.is_first:
        write_bytes(mark, b"")
    ranks.wait()
    for _ in range(TRIES):
        if mark.exists():
            break
        time.sleep(DELAY)  # a network's file system may show it late
    else:
        raise InputError(
            f"{folder.parent}, process {ranks.number}",
            expected="a folder that all processes share",
            found="one of this machine alone",
            fix="put the study on a disk that all machines see",
        )
    ranks.wait()
    if ranks.is_first:
        mark.unlink()


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

    def publish(self, accept: Callable[[Manifest], None] = lambda _: None, card_sha256: str | None = None) -> Manifest:
        """Seal the store, all of whose blocks are there, read it back, and put it in its place."""
        manifest = seal_store(self.work / "sealed", self.blocks, self.description, card_sha256)
        check_sealed(self.work / "sealed")
        accept(manifest)
        publish_output(self.work / "sealed", self.target)
        remove_path(self.work)
        return manifest


def _digest_plan(plan: StorePlan, store: Format, description: Mapping[str, Any], device: str) -> str:
    """Digest of everything that decides a block's bytes: all but the terms of use. Others are not taken up."""
    arrays = {
        name: [list(plan.shape(name)), array.dtype, array.codec, plan.grids[name].chunk_rows]
        for name, array in plan.arrays.items()
    }
    decisive = {key: value for key, value in to_plain_entries(description).items() if key != "sharing"}
    return hash_json([hash_code(), device, store, plan.block_rows, arrays, decisive])
