"""Check every byte of a cache again, and name all that is damaged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.base.checked_parts import CheckedParts
from pipeline.base.errors import InputError
from pipeline.cache import damage
from pipeline.cache.chunk_table import ChunkTable
from pipeline.cache.damage import Damage
from pipeline.cache.folder import LocalFolder, RemoteFolder
from pipeline.cache.manifest import Manifest
from pipeline.cache.sample_check import Sample, find_changes_in_sample
from pipeline.cache.stores import load_store


@dataclass(frozen=True)
class Verification:
    """What a check of all bytes, or of some, found.

    Attributes:
        damage: every file that is not as it was sealed.
        structure: why the store's own metadata contradict the manifest, or None.
        sample: what was looked at; None: everything, or what could be, where no chunk can be found.
    """

    damage: tuple[Damage, ...]
    structure: str | None
    sample: Sample | None = None

    @property
    def is_whole(self) -> bool:
        """Nothing is wrong."""
        return not self.damage and self.structure is None

    @property
    def saw_all(self) -> bool:
        """Nothing was left out."""
        return self.sample is None or self.sample.is_all

    def advice(self, folder: Path) -> str | None:
        """What to do where the cache is sound but for files that an operating system has left in it."""
        return damage.advise_on_system_files(folder, self.damage) if self.structure is None else None

    def lines(self) -> list[str]:
        """One line a damaged file or chunk."""
        found = [line for each in self.damage for line in _describe_damage(each)]
        return found + ([self.structure] if self.structure else [])

    def labelled_lines(self) -> list[str]:
        """The same lines, each labelled: damaged, or foreign (a file that is no part of the cache)."""
        foreign = {line for each in self.damage if each.is_system_file for line in _describe_damage(each)}
        return [f"{'foreign' if line in foreign else 'damaged'}: {line}" for line in self.lines()]


def _describe_damage(each: Damage) -> list[str]:
    blocks = (f"{each.file}: damaged chunk: array {name!r}, {block}" for name, block in each.blocks)
    return [f"{each.file}: expected {each.expected}, found {each.found}", *blocks]


def take_up_parts(folder: LocalFolder | RemoteFolder, manifest: Manifest, *, restart: bool) -> CheckedParts | None:
    """What an interrupted `verify_cache` of this very copy found sound; None where files are missing, or far away."""
    if not isinstance(folder, LocalFolder) or any(not (folder.path / name).is_file() for name in manifest.files):
        return None
    return CheckedParts(folder.path, manifest.files, manifest.root, "verifying", restart=restart)


def verify_cache(
    folder: LocalFolder | RemoteFolder, manifest: Manifest, parts: CheckedParts | None = None
) -> Verification:
    """Recompute every digest, whatever opening has remembered.

    Args:
        folder, manifest: of the cache.
        parts: of `take_up_parts`: those are not read again, and what is found is noted there until all is done.
    """
    found = _verify_all(folder, manifest, parts)
    if parts:
        parts.forget()
    return found


def verify_sample(folder: LocalFolder | RemoteFolder, manifest: Manifest, share: float, seed: int) -> Verification:
    """Look at some chunks, and at all that lies beside chunks. Nothing is noted, and nothing taken up.

    Args:
        folder, manifest: of the cache.
        share: of the chunks of each file, in (0, 1]; at least one.
        seed: that they are drawn with.
    """
    listed = _find_listing_damage(folder, manifest)
    table = damage.read_sound_table(folder, manifest)
    if isinstance(table, Damage):
        return _describe_lost_table(listed, table)
    files = manifest.files.keys() - {each.file for each in listed}
    changes, sample = find_changes_in_sample(folder, manifest, table, files, share=share, seed=seed)
    found = listed + tuple(damage.describe_change(table, each) for each in changes)
    if manifest.store == "hdf5" and not sample.is_all:  # the HDF5 library's look may read every chunk
        return Verification(found, None, sample)
    return replace(_check_structure(folder, manifest, table, found), sample=sample)


def _verify_all(folder: LocalFolder | RemoteFolder, manifest: Manifest, parts: CheckedParts | None) -> Verification:
    listed = _find_listing_damage(folder, manifest)
    table = damage.read_sound_table(folder, manifest)
    if isinstance(table, Damage):
        return _describe_lost_table(listed, table)
    skip = frozenset(each.file for each in listed)
    found = listed + tuple(damage.find_content_damage(folder, manifest, table, skip=skip, parts=parts))
    return _check_structure(folder, manifest, table, found)


def _find_listing_damage(folder: LocalFolder | RemoteFolder, manifest: Manifest) -> tuple[Damage, ...]:
    return tuple(damage.find_listing_damage(folder.path, manifest)) if isinstance(folder, LocalFolder) else ()


def _describe_lost_table(listed: tuple[Damage, ...], lost: Damage) -> Verification:
    """Nothing else can be looked for."""
    return Verification((*(each for each in listed if each.file != lost.file), lost), None)


def _check_structure(
    folder: LocalFolder | RemoteFolder, manifest: Manifest, table: ChunkTable, found: tuple[Damage, ...]
) -> Verification:
    """The damage, and what the store itself finds where all its bytes are as they were sealed."""
    if not isinstance(folder, LocalFolder):
        return Verification(found, None)
    if found and damage.advise_on_system_files(folder.path, found) is None:
        return Verification(found, None)
    try:
        load_store(manifest.store).check_store(folder.path, table, "")
    except InputError as error:
        return Verification(found, str(error))
    return Verification(found, None)
