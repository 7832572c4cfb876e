"""Open a cache: matched and whole, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.cache.manifest import MANIFEST, Manifest, read_manifest
from pipeline.cache.stores import store_of
from pipeline.errors import InputError
from pipeline.files import sha256_of


@dataclass(frozen=True)
class Cache:
    """An opened cache, every byte of which has been checked.

    Attributes:
        folder: where it lies.
        manifest: what it holds.
    """

    folder: Path
    manifest: Manifest
    _loaded: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    def load(self, array: str | None = None) -> NDArray[Any]:
        """A whole array (views, rows, ...), in its dtype on disk; it is read once and kept.

        Args:
            array: its name; may be left out where there is only one.

        Raises:
            InputError: the cache has no such array.
        """
        names = list(self.manifest.arrays)
        name = array or names[0]
        if name not in names or (array is None and len(names) > 1):
            raise InputError(f"cache {self.folder}: array {array!r}", expected=f"one of {', '.join(names)}")
        if name not in self._loaded:
            self._loaded[name] = self._read(name)
        return self._loaded[name]

    def _read(self, name: str) -> NDArray[Any]:
        info = self.manifest.arrays[name]
        values: NDArray[Any] = store_of(self.manifest.store).read(self.folder, name)
        if list(values.shape) != info.shape or values.dtype != np.dtype(info.dtype):
            raise InputError(
                f"cache {self.folder}: array {name!r}",
                expected=f"{info.dtype} {info.shape}",
                found=f"{values.dtype} {list(values.shape)}",
                fix="dump it again",
            )
        return values

    def rows(self, ids: ArrayLike, view: int = 0, array: str | None = None) -> NDArray[Any]:
        """The rows (len(ids), ...) of sample ids in any order, in one view.

        Raises:
            InputError: an id or a view that was not dumped.
        """
        wanted = np.asarray(ids)
        views, rows = self.manifest.views.count, self.manifest.rows
        if not 0 <= view < views:
            raise InputError(
                f"cache {self.folder}: view {view}", expected=f"0..{views - 1}, the views that were dumped"
            )
        if wanted.dtype.kind not in "iu" and wanted.size:
            raise InputError(f"cache {self.folder}: sample ids", expected="integers", found=str(wanted.dtype))
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < rows):
            raise InputError(
                f"cache {self.folder}: sample ids",
                expected=f"0..{rows - 1}, the samples that were dumped",
                found=f"{wanted.min()}..{wanted.max()}",
            )
        picked: NDArray[Any] = self.load(array)[view][wanted.astype(np.int64)]
        return picked


def open(path: Path | str, expect: Mapping[str, Any] | None = None, *, fix: str = "dump it again") -> Cache:
    """Open a cache after checking its manifest, its files and what the caller expects of it.

    Args:
        path: the cache's folder.
        expect: manifest entries by dotted name and the value each must have, such as
            `{"dataset.fingerprint": "...", "field.name": "logits"}`.
        fix: the command that makes this cache, for messages.

    Raises:
        InputError: no cache, an incomplete or changed one, or one that differs from what is
            expected: each differing item is named. Nothing turns this into a warning.
    """
    folder = Path(path)
    manifest = read_manifest(folder, fix)
    refuse_mismatch(folder, manifest, expect or {}, fix)
    refuse_damage(folder, manifest, fix)
    return Cache(folder, manifest)


def refuse_mismatch(folder: Path, manifest: Manifest, expect: Mapping[str, Any], fix: str) -> None:
    """Raise InputError with every expected entry that the manifest does not have."""
    entries = manifest.model_dump()
    differing = []
    for key, value in expect.items():
        found: Any = entries
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found != value:
            differing.append(f"{key} expected {_short(value)}, found {_short(found)}")
    if differing:
        raise InputError(f"cache {folder} is another one than expected: " + "; ".join(differing), fix=fix)


def refuse_damage(folder: Path, manifest: Manifest, fix: str) -> None:
    """Raise InputError unless the folder holds exactly the listed files with the listed bytes."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    names = {path.relative_to(folder).as_posix() for path in paths} - {MANIFEST}
    odd = sorted(names ^ manifest.files.keys()) or sorted(p.name for p in paths if p.is_symlink() or not p.is_file())
    if odd:
        what = "missing" if odd[0] in manifest.files and odd[0] not in names else "not listed in the manifest"
        raise InputError(f"cache {folder}: file {odd[0]}", expected="exactly the manifest's files", found=what, fix=fix)
    for name, info in manifest.files.items():
        size = (folder / name).stat().st_size
        if size != info.bytes:
            raise InputError(f"cache {folder}: file {name}", expected=f"{info.bytes} bytes", found=str(size), fix=fix)
        if sha256_of(folder / name) != info.sha256:
            raise InputError(
                f"cache {folder}: file {name}", expected="its sealed bytes", found="another SHA-256", fix=fix
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
