"""What of a local cache is not as it was sealed: files, and the blocks of rows in them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache import paths
from pipeline.cache.blocks import Block
from pipeline.cache.digests import sha256_of_files, sha256_of_ranges
from pipeline.cache.manifest import Manifest
from pipeline.cache.stores import store_of
from pipeline.errors import InputError


@dataclass(frozen=True)
class Damage:
    """One file that is not as it was sealed.

    Attributes:
        file: its path below the cache's folder.
        expected, found: what is wrong with it.
        blocks: the damaged blocks, by array; empty where no rows are lost.
    """

    file: str
    expected: str
    found: str
    blocks: tuple[tuple[str, Block], ...] = ()

    def error(self, folder: Path, fix: str) -> InputError:
        """The damage as a refusal."""
        blocks = "; ".join(f"array {name!r}, {block}" for name, block in self.blocks[:3])
        more = f" and {len(self.blocks) - 3} more blocks" if len(self.blocks) > 3 else ""
        found = f"{self.found} ({blocks}{more})" if blocks else self.found
        return InputError(f"cache {folder}: file {self.file}", expected=self.expected, found=found, fix=fix)


def listing(folder: Path, manifest: Manifest) -> Iterator[Damage]:
    """Files that are missing, unlisted, links or of another size. Nothing is opened."""
    found: dict[str, Path] = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if not stat.S_ISDIR(mode):
            found[path.relative_to(folder).as_posix()] = path
            if not stat.S_ISREG(mode):
                yield Damage(_shown(path, folder), "exactly the manifest's files", "a link or no regular file")
    for name in sorted(found.keys() - manifest.files.keys() - {paths.MANIFEST}):
        yield Damage(name, "exactly the manifest's files", "not listed in the manifest")
    for name, info in manifest.files.items():
        if name not in found:
            yield Damage(name, "exactly the manifest's files", "missing", blocks_in(manifest, name))
        elif stat.S_ISREG(found[name].lstat().st_mode) and found[name].lstat().st_size != info.bytes:
            blocks = _bad_blocks(folder, manifest, name)
            yield Damage(name, f"{info.bytes} bytes", str(found[name].lstat().st_size), blocks)


def contents(folder: Path, manifest: Manifest, *, skip: frozenset[str] = frozenset()) -> Iterator[Damage]:
    """Files of another SHA-256, with the blocks that the difference lies in.

    Args:
        folder, manifest: of the cache.
        skip: files whose damage is known already.
    """
    names = manifest.files.keys() - skip
    for name, digest in sha256_of_files(folder, names, f"check {folder.name}").items():
        if digest != manifest.files[name].sha256:
            yield Damage(name, "its sealed bytes", "another SHA-256", _bad_blocks(folder, manifest, name))


def refuse(folder: Path, manifest: Manifest, fix: str) -> None:
    """Raise InputError with the first damage: all bytes are read."""
    for damage in (*listing(folder, manifest), *contents(folder, manifest)):
        raise damage.error(folder, fix)
    store_of(manifest.store).check(folder, manifest, fix)


def blocks_in(manifest: Manifest, name: str) -> tuple[tuple[str, Block], ...]:
    """The blocks whose bytes lie in a file, by array."""
    return tuple(
        (array, block)
        for array, described in manifest.arrays.items()
        for block, info in zip(described.cut(), described.blocks, strict=True)
        if info.file == name
    )


def _bad_blocks(folder: Path, manifest: Manifest, name: str) -> tuple[tuple[str, Block], ...]:
    arrays = manifest.arrays
    infos = {
        (array, block): info
        for array in arrays
        for block, info in zip(arrays[array].cut(), arrays[array].blocks, strict=True)
        if info.file == name
    }
    digests = sha256_of_ranges(folder, {key: (info.file, info.offset, info.bytes) for key, info in infos.items()})
    return tuple(key for key, info in infos.items() if digests[key] != info.sha256)


def _shown(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
