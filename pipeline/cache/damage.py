"""Find what is not as it was sealed in a local cache: files, and the blocks of rows in them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.base.checked_parts import CheckedParts
from pipeline.base.errors import InputError, NotNowError, join_names
from pipeline.base.files import advise_deletion, is_system_file
from pipeline.cache import cache_paths as paths
from pipeline.cache.blocks import BlockKey
from pipeline.cache.chunk_table import ChunkTable, find_misplaced_chunk
from pipeline.cache.content_check import ChangedFile, find_changed_chunks, find_changed_files
from pipeline.cache.folder import Folder, LocalFolder, read_table
from pipeline.cache.manifest import Manifest
from pipeline.cache.stores import load_store

EXACTLY = "exactly the manifest's files"


@dataclass(frozen=True)
class Damage:
    """One file that is not as it was sealed.

    Attributes:
        file: its path below the cache's folder.
        expected, found: what is wrong with it.
        blocks: the rows of its damaged chunks, by array; empty where no rows are lost.
        unlisted: it is no part of the cache.
    """

    file: str
    expected: str
    found: str
    blocks: tuple[BlockKey, ...] = ()
    unlisted: bool = False

    @property
    def is_system_file(self) -> bool:
        """An operating system left it there: the cache itself may be sound."""
        return self.unlisted and is_system_file(PurePosixPath(self.file).name)

    def error(self, folder: Path, fix: str) -> InputError:
        """The damage as a refusal."""
        blocks = join_names([f"{block} of array {name!r}" for name, block in self.blocks])
        found = f"{self.found} ({blocks})" if blocks else self.found
        fix = f"take it out of there, or {fix}" if self.unlisted else fix
        return InputError(f"cache {folder}: file {self.file}", expected=self.expected, found=found, fix=fix)


def find_listing_damage(folder: Path, manifest: Manifest) -> Iterator[Damage]:
    """Files that are missing, unlisted, links or of another size, and unlisted folders. Nothing is opened."""
    sizes: dict[str, int] = {}
    unlisted: list[Damage] = []
    folders = {str(parent) for name in manifest.files for parent in PurePosixPath(name).parents}
    for name, mode, size in (entry for place in sorted(folders) for entry in _scan_folder(folder, place)):
        if stat.S_ISREG(mode):
            sizes[name] = size
            if name not in manifest.files and name != paths.MANIFEST_PATH:
                unlisted.append(Damage(name, EXACTLY, "not listed in the manifest", unlisted=True))
        elif not stat.S_ISDIR(mode):
            yield Damage(name, EXACTLY, "a link or no regular file", _find_lost_blocks(folder, manifest, name))
        elif name not in folders:
            unlisted.append(Damage(f"{name}/", EXACTLY, "a folder that is not listed in the manifest", unlisted=True))
    yield from _find_missing(folder, manifest, sizes)
    yield from unlisted


def refuse_listing_damage(folder: Path, manifest: Manifest, fix: str) -> None:
    """Raise InputError with the first file that is missing, not listed, a link or of another size."""
    found = list(find_listing_damage(folder, manifest))
    if advice := advise_on_system_files(folder, found):
        raise InputError(f"cache {folder}: file {found[0].file}", expected=EXACTLY, found=found[0].found, fix=advice)
    if found:
        raise found[0].error(folder, fix)


def advise_on_system_files(folder: Path, found: Sequence[Damage]) -> str | None:
    """Say what to do where nothing is wrong but files that an operating system has left; None in any other case."""
    if not found or not all(each.is_system_file for each in found):
        return None
    return advise_deletion([folder / each.file for each in found])


def _find_missing(folder: Path, manifest: Manifest, sizes: Mapping[str, int]) -> Iterator[Damage]:
    """Listed files that are not there, or of another size than the one found."""
    for name, info in manifest.files.items():
        if name in sizes and sizes[name] != info.bytes:
            yield Damage(name, f"{info.bytes} bytes", str(sizes[name]), _find_lost_blocks(folder, manifest, name))
        elif name not in sizes and (not os.path.lexists(folder / name) or (folder / name).is_dir()):
            yield Damage(name, EXACTLY, "missing", _find_lost_blocks(folder, manifest, name))


def _scan_folder(folder: Path, place: str) -> Iterator[tuple[str, int, int]]:
    """Name below the cache's folder, mode and size of what lies in one of its folders; no link is followed."""
    where = folder / place
    if (where.is_symlink() and place != ".") or not where.is_dir():
        return
    with os.scandir(where) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            found = entry.stat(follow_symlinks=False)
            yield entry.name if place == "." else f"{place}/{entry.name}", found.st_mode, found.st_size


def find_content_damage(
    folder: Folder,
    manifest: Manifest,
    table: ChunkTable,
    *,
    skip: frozenset[str] = frozenset(),
    parts: CheckedParts | None = None,
) -> Iterator[Damage]:
    """Files with bytes of another SHA-256, and the chunks that the difference lies in.

    Args:
        folder, manifest, table: of the cache.
        skip: files whose damage is known already.
        parts: what an interrupted check found sound.
    """
    for each in find_changed_files(folder, manifest, table, manifest.files.keys() - skip, parts):
        yield describe_change(table, each)


def describe_change(table: ChunkTable, change: ChangedFile) -> Damage:
    """A changed file, with the rows of its chunks."""
    read = ("a file that can be read", change.error) if change.error else ("its sealed bytes", "another SHA-256")
    return Damage(change.file, *read, table.keys_of(change.changed))


def refuse_content_damage(folder: LocalFolder, manifest: Manifest, table: ChunkTable, fix: str) -> None:
    """Raise InputError with the first file of other bytes, or with what its store says otherwise: all is read.

    An interrupted one goes on where it was.
    """
    parts = CheckedParts(folder.path, manifest.files, manifest.root, "opening")
    for found in find_content_damage(folder, manifest, table, parts=parts):
        raise found.error(folder.path, fix)
    load_store(manifest.store).check_store(folder.path, table, fix)
    parts.forget()


def read_sound_table(folder: Folder, manifest: Manifest) -> ChunkTable | Damage:
    """The chunk table, without which no chunk can be found; or what is wrong with it."""
    expected = "the chunk table that was sealed"
    try:
        table = read_table(folder, manifest, "")
    except NotNowError as error:
        return Damage(paths.CHUNKS_PATH, expected, str(error))
    except InputError:
        return Damage(paths.CHUNKS_PATH, expected, "none, or another SHA-256")
    if misplaced := find_misplaced_chunk(manifest, table):
        return Damage(paths.CHUNKS_PATH, "the place of each chunk", misplaced)
    return table


def _find_lost_blocks(folder: Path, manifest: Manifest, name: str) -> tuple[BlockKey, ...]:
    """The rows of a file's chunks that are not there as they were sealed, where that can be told."""
    local = LocalFolder(folder)
    if name not in manifest.files or name in paths.list_metadata_paths(manifest.store, manifest.arrays):
        return ()
    table = read_sound_table(local, manifest)
    if isinstance(table, Damage):
        return ()
    return table.keys_of(find_changed_chunks(local, manifest, table, name))
