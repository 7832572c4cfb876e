"""Seal finished blocks: assemble the store, digest all its bytes, write the manifest last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import flush_file, remove_path, write_bytes
from pipeline.base.progress import track
from pipeline.base.threads import map_ahead
from pipeline.cache import cache_paths as paths
from pipeline.cache import earlier_card
from pipeline.cache.block_files import BlockFiles, FinishedChunk, Put
from pipeline.cache.blocks import BlockKey
from pipeline.cache.card import render_card
from pipeline.cache.chunk_grid import RECORD
from pipeline.cache.chunk_table import number_files, order_records
from pipeline.cache.digests import count_threads, hash_outside
from pipeline.cache.manifest import Manifest, seal_manifest
from pipeline.cache.manifest_entries import build_manifest_entries, to_plain_entries
from pipeline.cache.store_plan import StorePlan
from pipeline.cache.stores import load_store

AHEAD = 3  # blocks in memory: one that is used, and those that are read meanwhile


class ReadBlock(NamedTuple):
    """A finished block: its chunks, the rows of each, and a record for each, without its place."""

    chunks: list[FinishedChunk]
    rows: list[NDArray[Any]]
    records: NDArray[Any]


def seal_store(
    folder: Path, blocks: BlockFiles, description: Mapping[str, Any], card_sha256: str | None = None
) -> Manifest:
    """Make a whole cache, in a new folder, of blocks that are all there.

    Args:
        folder: the new one.
        blocks: all there.
        description: the manifest's entries that say what it is.
        card_sha256: of the card that is wanted: a cache sealed by an earlier version is mended with the card of that
            time. None, or one that no version has written: today's.

    Raises:
        InputError: a block has changed since it was written.
    """
    plan, store, title = blocks.plan, load_store(blocks.store), f"seal {folder.parent.name}"
    remove_path(folder)
    folder.mkdir(parents=True)
    plain = to_plain_entries(description)
    records = {name: np.zeros(grid.count, RECORD) for name, grid in plan.grids.items()}
    with store.assemble_store(folder, blocks, records) as put:
        values = _hash_blocks(blocks, records, put, title)
    stored = {name: int(its["bytes"].sum()) for name, its in records.items()}
    page = render_card(plain, plan, blocks.store, values, stored).encode()  # the same line ends on any system
    earlier = earlier_card.render_card(plain, plan, blocks.store).encode()
    is_earlier = hashlib.sha256(earlier).hexdigest() == card_sha256
    (folder / paths.CARD_PATH).write_bytes(earlier if is_earlier else page)

    data = {
        name: paths.list_data_paths(blocks.store, name, grid.shards, len(plan.shape(name)))
        for name, grid in plan.grids.items()
    }
    beside = paths.list_metadata_paths(blocks.store, plan.arrays)
    names = sorted(beside.union(*data.values()))
    for name, grid in plan.grids.items():
        records[name]["file"] = number_files(grid, data[name], names)
    table = order_records(records)
    (folder / paths.CHUNKS_PATH).write_bytes(memoryview(table).cast("B"))
    for name in names:
        flush_file(folder / name)
    entries = build_manifest_entries(
        plan, blocks.store, plain, files=_describe_files(folder, names, table, title), values=values
    )
    manifest = seal_manifest(entries)
    write_bytes(folder / paths.MANIFEST_PATH, manifest.to_bytes())
    return manifest


def _describe_files(folder: Path, names: list[str], table: NDArray[Any], title: str) -> dict[str, dict[str, Any]]:
    """Size of each file, and digest of those of its bytes that lie in no chunk, which have digests of their own."""
    sizes = {name: (folder / name).stat().st_size for name in names}
    digests = hash_outside(folder, {name: table[table["file"] == number] for number, name in enumerate(names)}, title)
    return {name: {"bytes": sizes[name], "sha256": digests[name]} for name in names}


def _hash_blocks(blocks: BlockFiles, records: Mapping[str, NDArray[Any]], put: Put, title: str) -> str:
    """Hand each block to the store, in one reading; the digest of the values: of each array its header, then its rows.

    Args:
        blocks: all there.
        records: by array, of its chunks; all but their places is written.
        put: of the store.
        title: of the progress bar.
    """
    digest, plan = hashlib.sha256(), blocks.plan
    keys = [(name, block) for name in sorted(plan.arrays) for block in plan.blocks()]
    with ThreadPoolExecutor(count_threads()) as threads:  # blocks are read while another is used
        read = track(map_ahead(threads, partial(_read_block, blocks), keys, ahead=AHEAD), title, len(keys))
        for (name, block), found in zip(keys, read, strict=True):
            if (block.view, block.index) == (0, 0):
                digest.update(_format_values_header(name, plan))
            for rows in found.rows:
                digest.update(np.ascontiguousarray(rows))
            numbers = plan.grids[name].numbers(block)
            records[name][numbers.start : numbers.stop] = found.records
            put(name, block, found.chunks)
    return digest.hexdigest()


def _read_block(blocks: BlockFiles, key: BlockKey) -> ReadBlock:
    chunks = blocks.read(*key)
    records = np.zeros(len(chunks), RECORD)
    records["bytes"], records["crc32c"] = [len(each.payload) for each in chunks], [each.crc32c for each in chunks]
    records["sha256"] = [np.frombuffer(hashlib.sha256(each.payload).digest(), np.uint8) for each in chunks]
    return ReadBlock(chunks, [blocks.decode(*key, number, each.payload) for number, each in enumerate(chunks)], records)


def _format_values_header(name: str, plan: StorePlan) -> bytes:
    """What goes before an array's C-ordered little-endian bytes in the digest of the values."""
    return f"{name} {list(plan.shape(name))} {plan.arrays[name].dtype}\n".encode()
