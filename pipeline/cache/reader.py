"""Open a cache, or refuse it where it is not whole or not the one that is expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.base import checked_copies
from pipeline.base.errors import InputError, join_names
from pipeline.base.expected_values import differences
from pipeline.base.plain_text import escape_unprintable
from pipeline.cache import damage
from pipeline.cache.blocks import ArrayForm
from pipeline.cache.chunk_table import ChunkTable
from pipeline.cache.decoded_array import DECODED_BYTES
from pipeline.cache.dtypes import widen_bfloat16
from pipeline.cache.folder import (
    Folder,
    LocalFolder,
    locate_folder,
    read_manifest,
    read_table,
    refuse_misplaced_chunks,
)
from pipeline.cache.manifest import ArrayInfo, Manifest
from pipeline.cache.stored_array import StoredArray, open_array

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Cache:
    """An opened cache. Whatever is read from it is checked against the manifest first.

    Attributes:
        folder: where it lies.
        manifest: what it holds.
        table: where its chunks lie.
        memory: bytes of decoded chunks that its compressed (or distant) arrays keep, shared by their sizes.
        fix: the command that makes it, for messages.
    """

    folder: Folder
    manifest: Manifest
    table: ChunkTable
    fix: str = "dump it again"
    memory: int = DECODED_BYTES
    _arrays: dict[str, StoredArray] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        """Two lines: whose knowledge of what, and its arrays."""
        made = self.manifest
        arrays = [f"{name} {each.dtype} {tuple(each.shape)}" for name, each in made.arrays.items()]
        of = f"{_clean_name(made.field.name)} of {_clean_name(made.teacher.name)} on {_clean_name(made.dataset.name)}"
        return (
            f"Cache {_clean_name(self.folder.name)}: {of}\n  {join_names(arrays)}; {made.store}, root {made.root[:12]}"
        )

    def refuse_other_arrays(self, planned: Mapping[str, ArrayForm]) -> None:
        """Raise InputError unless it holds just these arrays: what its field's parameters promise."""
        found = self.manifest.arrays
        if found.keys() != planned.keys() or not all(found[name].matches(plan) for name, plan in planned.items()):
            raise InputError(
                f"cache {self.folder.name}: arrays of field {self.manifest.field.name}",
                expected=", ".join(f"{name} {plan.dtype} {plan.row_shape}" for name, plan in planned.items()),
                found=", ".join(f"{name} {array.dtype} {array.row_shape}" for name, array in found.items()),
                fix=self.fix,
            )

    def load(self, array: str | None = None) -> NDArray[Any]:
        """A whole array (views, rows, ...); bfloat16 comes as float32.

        Args:
            array: its name; may be left out where there is only one.

        Raises:
            InputError: the cache has no such array, its bytes have changed, or it is larger than
                the memory.
        """
        name = self._find_array(array)
        return widen_bfloat16(self._load_stored(name), self.manifest.arrays[name].dtype)

    def tensor(self, array: str | None = None, device: torch.device | str = "cpu") -> torch.Tensor:
        """A whole array (views, rows, ...) on a device, in its own number format."""
        from pipeline.cache.tensors import as_tensor

        name = self._find_array(array)
        return as_tensor(self._load_stored(name), self.manifest.arrays[name].dtype).to(device)

    def rows(self, ids: ArrayLike, view: ArrayLike = 0, array: str | None = None) -> NDArray[Any]:
        """The rows (n, ...) of sample ids (n,) in any order, in one view or in one view each.

        Only the chunks that hold them are touched: from a local copy by memory map, over a URL
        by fetching those chunks.

        Raises:
            InputError: an id or a view that was not dumped, or bytes that have changed.
        """
        name = self._find_array(array)
        info = self.manifest.arrays[name]
        if name not in self._arrays:
            self._arrays[name] = self._open_array(name)
        wanted = self._check_keys(np.asarray(ids), info.shape[1], "sample ids")
        one = view if isinstance(view, int) and 0 <= view < info.shape[0] else None
        views = one if one is not None else self._check_keys(np.asarray(view), info.shape[0], "views")
        if wanted.ndim != 1 or (one is None and views.shape not in ((), wanted.shape)):
            raise InputError(
                f"cache {self.folder.name}: rows",
                expected="ids (n,), and one view or one for each of them",
                found=f"ids {wanted.shape}, views {np.shape(view)}",
            )
        return widen_bfloat16(self._arrays[name].gather(views, wanted), info.dtype)

    def release_pages(self) -> None:
        """Give back what `rows` has mapped into this process's memory; what is asked for next is mapped anew."""
        for array in self._arrays.values():
            array.release_pages()

    def _load_stored(self, name: str) -> NDArray[Any]:
        info = self.manifest.arrays[name]
        self._refuse_beyond_memory(name, info)
        return self._open_array(name).load()

    def _open_array(self, name: str) -> StoredArray:
        is_mapped = isinstance(self.folder, LocalFolder)
        decoded = {key: info for key, info in self.manifest.arrays.items() if info.codec != "none" or not is_mapped}
        mine, whole = (decoded[name].bytes if name in decoded else 0), sum(info.bytes for info in decoded.values())
        memory = self.memory * mine // max(1, whole)
        return open_array(self.folder, self.table.arrays[name], self.manifest.store, self.fix, memory=memory)

    def _find_array(self, array: str | None) -> str:
        names = list(self.manifest.arrays)
        if (array or names[0]) not in names or (array is None and len(names) > 1):
            raise InputError(f"cache {self.folder.name}: array {array!r}", expected=f"one of {', '.join(names)}")
        return array or names[0]

    def _check_keys(self, wanted: NDArray[Any], count: int, what: str) -> NDArray[np.int64]:
        if wanted.dtype.kind not in "iu" and wanted.size:
            raise InputError(f"cache {self.folder.name}: {what}", expected="integers", found=str(wanted.dtype))
        # As unsigned numbers, negative ones are beyond any count: one look at all.
        if wanted.size and not wanted.astype(np.uint64, copy=False).max() < count:
            raise InputError(
                f"cache {self.folder.name}: {what}",
                expected=f"0..{count - 1}, those that were dumped",
                found=f"{wanted.min()}..{wanted.max()}",
            )
        return wanted.astype(np.int64, copy=False)

    def _refuse_beyond_memory(self, name: str, info: ArrayInfo) -> None:
        import psutil

        free = psutil.virtual_memory().available
        if info.bytes > free:
            raise InputError(
                f"cache {self.folder.name}: array {name!r}",
                expected=f"at most the {free:,} bytes of free memory",
                found=f"{info.bytes:,} bytes",
                fix="read only the rows you need, with Cache.rows",
            )


def open(
    path: Path | str,
    expect: Mapping[str, Any] | None = None,
    *,
    fix: str = "dump it again",
    storage_options: Mapping[str, Any] | None = None,
    memory: int = DECODED_BYTES,
) -> Cache:
    """Open a cache after checking its manifest, its files and what the caller expects of it.

    Args:
        path: the cache's folder, or a URL that fsspec reads: then sizes are checked now, and each
            chunk when it arrives.
        expect: manifest entries by dotted name and the value each must have, such as
            `{"dataset.fingerprint": "...", "field.name": "logits"}`.
        fix: the command that makes this cache, for messages.
        storage_options: of the URL's file system.
        memory: bytes of decoded chunks that compressed or distant arrays keep for `Cache.rows`, shared by their sizes;
            the least recently used are given up first.

    Raises:
        InputError: no cache, an incomplete or changed one, or one that differs from what is
            expected: each differing item is named. Nothing turns this into a warning.
    """
    folder = locate_folder(path, storage_options)
    manifest = read_manifest(folder, fix)
    refuse_mismatch(folder.name, manifest, expect or {}, fix)
    if isinstance(folder, LocalFolder):
        return Cache(folder, manifest, _check_copy(folder, manifest, fix), fix, memory)
    folder.refuse_incomplete(manifest, fix)
    table = read_table(folder, manifest, fix)
    refuse_misplaced_chunks(folder.name, manifest, table, fix)
    return Cache(folder, manifest, table, fix, memory)


def _check_copy(folder: LocalFolder, manifest: Manifest, fix: str) -> ChunkTable:
    """Every file is listed and whole; hashed in full where this copy has not been, or was touched since."""
    damage.refuse_listing_damage(folder.path, manifest, fix)
    seen = checked_copies.compute_signature(folder.path, manifest.files, manifest.root)
    if checked_copies.is_remembered(folder.path, seen):
        return read_table(folder, manifest, fix)
    table = damage.read_sound_table(folder, manifest)
    if isinstance(table, damage.Damage):
        raise table.error(folder.path, fix)
    damage.refuse_content_damage(folder, manifest, table, fix)
    checked_copies.remember_copy(folder.path, seen)
    return table


def refuse_mismatch(name: str, manifest: Manifest, expect: Mapping[str, Any], fix: str) -> None:
    """Raise InputError with every expected entry that the manifest does not have."""
    entries = manifest.comparable_entries()
    differing: list[str] = []
    for key, value in expect.items():
        found: Any = entries
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        differing += [
            f"{place} expected {_shorten(wanted)}, found {_shorten(there)}"
            for place, wanted, there in differences(value, found, key)
        ]
    if differing:
        raise InputError(f"cache {name} is another one than expected: " + "; ".join(differing), fix=fix)


def _clean_name(text: str) -> str:
    """A stranger's name in one short line."""
    return _shorten(escape_unprintable(text))


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
