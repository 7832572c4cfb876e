"""Refuse a cache that no reader would take: before anything is computed, and again before it is published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.files import encode_json, hash_json
from pipeline.base.plain_text import is_unicode
from pipeline.cache import block_paths as paths
from pipeline.cache import damage
from pipeline.cache.blocks import Block, BlockKey, StorePlan
from pipeline.cache.card import render_card
from pipeline.cache.codecs import Format, is_padded, max_encoded_bytes
from pipeline.cache.folder import LocalFolder, read_manifest
from pipeline.cache.manifest import MAX_MANIFEST_BYTES, parse_manifest
from pipeline.cache.manifest_entries import build_manifest_entries
from pipeline.cache.stores import load_store

MIN_BLOCK_ENTRY_BYTES = 200  # bytes of a manifest that any block takes
MAX_CRC = (1 << 32) - 1
METADATA_ROOM = 1 << 16  # bytes of a store, for each array and for itself: more than it needs


def check_sealed(folder: Path) -> None:
    """Read a sealed cache by the reader's own rules.

    Raises:
        InputError: a reader would refuse it.
    """
    fix = "nothing was published; please report this"
    manifest = read_manifest(LocalFolder(folder), fix)
    damage.refuse_listing_damage(folder, manifest, fix)
    load_store(manifest.store).check_own_store(folder, manifest, fix)


def refuse_unreadable(target: Path, plan: StorePlan, store: Format, description: Mapping[str, Any]) -> None:
    """Raise InputError where no reader would take the cache that is about to be computed.

    Its manifest is made with the largest numbers that the blocks may have, and parsed as a reader does.

    Args:
        target: the cache's folder, for messages.
        plan, store: how its arrays will be kept.
        description: the manifest's entries that say what it is, as plain values.
    """
    for place, text in _iterate_texts(description):
        if not is_unicode(text):
            raise InputError(
                f"cache {target}: {place}",
                expected="text that UTF-8 can hold",
                found=ascii(text),
                fix="rename it, in UTF-8; nothing was computed",
            )
    blocks = plan.views * -(-plan.rows // plan.chunk_rows) * len(plan.arrays)
    if blocks > MAX_MANIFEST_BYTES // MIN_BLOCK_ENTRY_BYTES:
        raise _size_error(target, plan, blocks, f"more than {blocks * MIN_BLOCK_ENTRY_BYTES >> 20} MiB")
    try:
        data = encode_json(_draft_manifest(plan, store, description))
    except ValueError as error:  # NaN, or infinity
        raise InputError(f"cache {target}: manifest", expected="JSON values", found=str(error)) from None
    if len(data) > MAX_MANIFEST_BYTES:
        raise _size_error(target, plan, blocks, f"up to {len(data):,} bytes")
    parse_manifest(data, f"cache {target}: manifest", "no reader would take it; nothing was computed")


def _size_error(target: Path, plan: StorePlan, blocks: int, found: str) -> InputError:
    return InputError(
        f"cache {target}: manifest",
        expected=f"at most {MAX_MANIFEST_BYTES >> 20} MiB, as readers do",
        found=f"{found}: {blocks:,} blocks, of {plan.views:,} views or plans of {len(plan.arrays)} arrays",
        fix="dump fewer views, plans, taps or samples into one cache; nothing was computed",
    )


def _draft_manifest(plan: StorePlan, store: Format, description: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the most digits that this plan's blocks may have; its root digest is right."""
    blocks = dict(_draft_blocks(plan, store))
    sizes = dict.fromkeys(paths.list_metadata_paths(store, plan.arrays), METADATA_ROOM)
    sizes[paths.CARD_PATH] = len(render_card(description, plan, store).encode())
    for block in blocks.values():
        end = block["offset"] + block["bytes"] + paths.CRC_BYTES * (store == "zarr")
        sizes[block["file"]] = max(end, sizes.get(block["file"], 0))
    files = {name: {"bytes": size, "sha256": "f" * 64} for name, size in sizes.items()}
    entries = build_manifest_entries(plan, store, description, blocks=blocks, files=files, values="f" * 64)
    return {**entries, "root": hash_json(entries)}


def _draft_blocks(plan: StorePlan, store: Format) -> Iterator[tuple[BlockKey, dict[str, Any]]]:
    offset = 0
    for name, array in plan.arrays.items():
        offset += METADATA_ROOM * (store == "hdf5")
        for block in plan.blocks():
            rows = plan.chunk_rows if is_padded(store, array.codec) else block.stop - block.start
            size = max_encoded_bytes(rows * array.row_bytes, array.codec)
            place = _find_file(name, block, store, len(plan.shape(name)))
            yield (
                (name, block),
                {"file": place, "offset": offset, "bytes": size, "crc32c": MAX_CRC, "sha256": "f" * 64},
            )
            offset += size * (store == "hdf5")


def _find_file(name: str, block: Block, store: Format, axes: int) -> str:
    return paths.STORE_PATHS["hdf5"] if store == "hdf5" else paths.chunk_path(name, block.view, block.index, axes)


def _iterate_texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text in plain values, keys too, with its dotted place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            inner = f"{place}.{key}" if place else str(key)
            yield place, str(key)
            yield from _iterate_texts(item, inner)
