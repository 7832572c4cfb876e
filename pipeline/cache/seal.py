"""Seal finished blocks: assemble the store, digest all its bytes, write the manifest last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import flush_file, remove_path, write_bytes
from pipeline.base.progress import track
from pipeline.base.threads import map_ahead
from pipeline.cache import block_paths as paths
from pipeline.cache.block_files import BlockFiles
from pipeline.cache.blocks import BlockKey, StorePlan
from pipeline.cache.card import render_card
from pipeline.cache.crc import crc_to_bytes
from pipeline.cache.digests import hash_files
from pipeline.cache.manifest import Manifest, seal_manifest
from pipeline.cache.manifest_entries import build_manifest_entries, to_plain_entries
from pipeline.cache.stores import load_store


@dataclass(frozen=True)
class BlockDigests:
    """What a manifest says of one block's bytes.

    Attributes:
        bytes: their number.
        crc32c: their CRC-32C.
        sha256: of the bytes.
        file_sha256: of the bytes and their CRC-32C, as the block's own file has them.
    """

    bytes: int
    crc32c: int
    sha256: str
    file_sha256: str


def seal_store(folder: Path, blocks: BlockFiles, description: Mapping[str, Any]) -> Manifest:
    """Make a whole cache, in a new folder, of blocks that are all there.

    Raises:
        InputError: a block has changed since it was written.
    """
    plan, store, title = blocks.plan, load_store(blocks.store), f"seal {folder.parent.name}"
    remove_path(folder)
    folder.mkdir(parents=True)
    plain = to_plain_entries(description)
    values, found = _hash_blocks(blocks, title)
    places = store.write_store(folder, plan, blocks.path)
    page = render_card(plain, plan, blocks.store)
    (folder / paths.CARD_PATH).write_bytes(page.encode())  # the same line ends on any system

    names = paths.list_metadata_paths(blocks.store, plan.arrays) | {file for file, _ in places.values()}
    for name in names:
        flush_file(folder / name)
    digests = {file: found[key].file_sha256 for key, (file, _) in places.items()} if store.KEEPS_BLOCK_FILES else {}
    digests |= hash_files(folder, names - digests.keys(), title)
    manifest = seal_manifest(
        build_manifest_entries(
            plan,
            blocks.store,
            plain,
            blocks={key: _block_entries(file, offset, found[key]) for key, (file, offset) in places.items()},
            files={name: {"bytes": (folder / name).stat().st_size, "sha256": digests[name]} for name in digests},
            values=values,
        )
    )
    write_bytes(folder / paths.MANIFEST_PATH, manifest.to_bytes())
    return manifest


def _block_entries(file: str, offset: int, found: BlockDigests) -> dict[str, Any]:
    place = {"file": file, "offset": offset, "bytes": found.bytes}
    return {**place, "crc32c": found.crc32c, "sha256": found.sha256}


def _hash_blocks(blocks: BlockFiles, title: str) -> tuple[str, dict[BlockKey, BlockDigests]]:
    """The digest of the values (of each array its header, then its rows), and those of each block, in one reading."""
    digest, found, plan = hashlib.sha256(), {}, blocks.plan
    keys = [(name, block) for name in sorted(plan.arrays) for block in plan.blocks()]
    with ThreadPoolExecutor(1) as thread:  # one block is read while another is used
        read = track(map_ahead(thread, partial(_read_block, blocks), keys, ahead=2), title, len(keys))
        for (name, block), (rows, digests) in zip(keys, read, strict=True):
            if (block.view, block.index) == (0, 0):
                digest.update(_format_values_header(name, plan))
            digest.update(np.ascontiguousarray(rows))
            found[name, block] = digests
    return digest.hexdigest(), found


def _read_block(blocks: BlockFiles, key: BlockKey) -> tuple[NDArray[Any], BlockDigests]:
    block = blocks.read(*key)
    digest = hashlib.sha256(block.payload)
    sha256 = digest.hexdigest()
    digest.update(crc_to_bytes(block.crc32c))
    return block.rows, BlockDigests(len(block.payload), block.crc32c, sha256, digest.hexdigest())


def _format_values_header(name: str, plan: StorePlan) -> bytes:
    """What goes before an array's C-ordered little-endian bytes in the digest of the values."""
    return f"{name} {list(plan.shape(name))} {plan.arrays[name].dtype}\n".encode()
