"""Refuse a cache that no reader would take: before anything is computed, and again before it is published."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.files import encode_json, hash_json
from pipeline.base.plain_text import is_unicode
from pipeline.cache import cache_paths as paths
from pipeline.cache import damage
from pipeline.cache.card import render_card
from pipeline.cache.chunk_grid import CRC_BYTES, RECORD_BYTES
from pipeline.cache.codecs import Format, max_encoded_bytes
from pipeline.cache.folder import LocalFolder, read_manifest
from pipeline.cache.manifest import MAX_CHUNKS, MAX_MANIFEST_BYTES, parse_manifest
from pipeline.cache.manifest_entries import build_manifest_entries
from pipeline.cache.store_plan import StorePlan
from pipeline.cache.stores import load_store

METADATA_ROOM = 1 << 16  # bytes of a store, for each array and for itself: more than it needs


def check_sealed(folder: Path) -> None:
    """Read a sealed cache by the reader's own rules.

    Raises:
        InputError: a reader would refuse it.
    """
    fix = "nothing was published; please report this"
    local = LocalFolder(folder)
    manifest = read_manifest(local, fix)
    damage.refuse_listing_damage(folder, manifest, fix)
    table = damage.read_sound_table(local, manifest)
    if isinstance(table, damage.Damage):
        raise table.error(folder, fix)
    load_store(manifest.store).check_own_store(folder, table, fix)


def refuse_unreadable(target: Path, plan: StorePlan, store: Format, description: Mapping[str, Any]) -> int:
    """Raise InputError where no reader would take the cache that is about to be computed; the bytes of its manifest.

    Its manifest is made with the largest numbers that its files may have, and parsed as a reader does.

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
    if plan.chunks > MAX_CHUNKS:
        raise InputError(
            f"cache {target}: {paths.CHUNKS_PATH}",
            expected=f"at most {MAX_CHUNKS:,} chunks, as readers do",
            found=f"{plan.chunks:,}, of {plan.views:,} views or plans of {len(plan.arrays)} arrays",
            fix="dump fewer views, plans, taps or samples into one cache, in larger chunks; nothing was computed",
        )
    try:
        data = encode_json(_draft_manifest(plan, store, description))
    except ValueError as error:  # NaN, or infinity
        raise InputError(f"cache {target}: manifest", expected="JSON values", found=str(error)) from None
    if len(data) > MAX_MANIFEST_BYTES:
        raise InputError(
            f"cache {target}: manifest",
            expected=f"at most {MAX_MANIFEST_BYTES >> 20} MiB, as readers do",
            found=f"up to {len(data):,} bytes",
            fix="shorten the names of classes, or the parameters; nothing was computed",
        )
    parse_manifest(data, f"cache {target}: manifest", "no reader would take it; nothing was computed")
    return len(data)


def _draft_manifest(plan: StorePlan, store: Format, description: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the most digits that this plan's files may have; its root digest is right."""
    sizes = dict.fromkeys(paths.list_metadata_paths(store, plan.arrays), METADATA_ROOM)
    stored = dict.fromkeys(plan.arrays, plan.bytes)
    sizes[paths.CARD_PATH] = len(render_card(description, plan, store, "f" * 64, stored).encode())
    sizes[paths.CHUNKS_PATH] = plan.chunks * RECORD_BYTES
    for name, array in plan.arrays.items():
        grid = plan.grids[name]
        most = max_encoded_bytes(grid.chunk_rows * array.row_bytes, array.codec) + CRC_BYTES
        shard = math.prod(grid.slots) * most + grid.index_bytes
        for file in paths.list_data_paths(store, name, grid.shards, len(plan.shape(name))):
            sizes[file] = sizes.get(file, METADATA_ROOM) + shard
    files = {name: {"bytes": size, "sha256": "f" * 64} for name, size in sizes.items()}
    entries = build_manifest_entries(plan, store, description, files=files, values="f" * 64)
    return {**entries, "root": hash_json(entries)}


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
