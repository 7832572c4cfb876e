"""Will a reader take this cache? Asked before anything is computed, and again before it is published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.files import encode_json, hash_json
from pipeline.base.plain_text import is_unicode
from pipeline.cache import damage, paths
from pipeline.cache.blocks import Block, StorePlan
from pipeline.cache.card import card
from pipeline.cache.codecs import Format, is_padded, most_encoded
from pipeline.cache.entries import Key, manifest_entries
from pipeline.cache.folder import LocalFolder, read_manifest
from pipeline.cache.manifest import MOST_BYTES, parse
from pipeline.cache.stores import store_of

LEAST_BLOCK = 200  # bytes of a manifest that any block takes
LARGEST_CRC = (1 << 32) - 1
METADATA = 1 << 16  # bytes of a store, for each array and for itself: more than it needs


def read_back(folder: Path) -> None:
    """Read a sealed cache by the reader's own rules.

    Raises:
        InputError: a reader would refuse it.
    """
    fix = "nothing was published; please report this"
    manifest = read_manifest(LocalFolder(folder), fix)
    damage.refuse_listing(folder, manifest, fix)
    store_of(manifest.store).check_own(folder, manifest, fix)


def refuse_unreadable(target: Path, plan: StorePlan, store: Format, description: Mapping[str, Any]) -> None:
    """Raise InputError where no reader would take the cache that is about to be computed.

    Its manifest is made with the largest numbers that the blocks may have, and parsed as a reader does.

    Args:
        target: the cache's folder, for messages.
        plan, store: how its arrays will be kept.
        description: the manifest's entries that say what it is, as plain values.
    """
    for place, text in _texts(description):
        if not is_unicode(text):
            raise InputError(
                f"cache {target}: {place}",
                expected="text that UTF-8 can hold",
                found=ascii(text),
                fix="rename it, in UTF-8; nothing was computed",
            )
    blocks = plan.views * -(-plan.rows // plan.chunk_rows) * len(plan.arrays)
    if blocks > MOST_BYTES // LEAST_BLOCK:
        raise _too_large(target, plan, blocks, f"more than {blocks * LEAST_BLOCK >> 20} MiB")
    try:
        data = encode_json(_draft(plan, store, description))
    except ValueError as error:  # NaN, or infinity
        raise InputError(f"cache {target}: manifest", expected="JSON values", found=str(error)) from None
    if len(data) > MOST_BYTES:
        raise _too_large(target, plan, blocks, f"up to {len(data):,} bytes")
    parse(data, f"cache {target}: manifest", "no reader would take it; nothing was computed")


def _too_large(target: Path, plan: StorePlan, blocks: int, found: str) -> InputError:
    return InputError(
        f"cache {target}: manifest",
        expected=f"at most {MOST_BYTES >> 20} MiB, as readers do",
        found=f"{found}: {blocks:,} blocks, of {plan.views:,} views or plans of {len(plan.arrays)} arrays",
        fix="dump fewer views, plans, taps or samples into one cache; nothing was computed",
    )


def _draft(plan: StorePlan, store: Format, description: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the most digits that this plan's blocks may have; its root digest is right."""
    blocks = dict(_blocks(plan, store))
    sizes = dict.fromkeys(paths.metadata(store, plan.arrays), METADATA)
    sizes[paths.CARD] = len(card(description, plan, store).encode())
    for block in blocks.values():
        end = block["offset"] + block["bytes"] + paths.CRC_BYTES * (store == "zarr")
        sizes[block["file"]] = max(end, sizes.get(block["file"], 0))
    files = {name: {"bytes": size, "sha256": "f" * 64} for name, size in sizes.items()}
    entries = manifest_entries(plan, store, description, blocks=blocks, files=files, values="f" * 64)
    return {**entries, "root": hash_json(entries)}


def _blocks(plan: StorePlan, store: Format) -> Iterator[tuple[Key, dict[str, Any]]]:
    offset = 0
    for name, array in plan.arrays.items():
        offset += METADATA * (store == "hdf5")
        for block in plan.blocks():
            rows = plan.chunk_rows if is_padded(store, array.codec) else block.stop - block.start
            size = most_encoded(rows * array.row_bytes, array.codec)
            place = _place(name, block, store, len(plan.shape(name)))
            yield (
                (name, block),
                {"file": place, "offset": offset, "bytes": size, "crc32c": LARGEST_CRC, "sha256": "f" * 64},
            )
            offset += size * (store == "hdf5")


def _place(name: str, block: Block, store: Format, axes: int) -> str:
    return paths.STORE["hdf5"] if store == "hdf5" else paths.chunk(name, block.view, block.index, axes)


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text in plain values, keys too, with its dotted place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            inner = f"{place}.{key}" if place else str(key)
            yield place, str(key)
            yield from _texts(item, inner)
