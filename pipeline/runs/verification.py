"""A cache -> whether every byte is the one that was sealed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.cache.folder import LocalFolder, RemoteFolder, locate_folder, read_manifest
from pipeline.cache.manifest import Manifest
from pipeline.cache.verify import Verification
from pipeline.cache.verify import verify_cache as verify_bytes
from pipeline.runs.result import Result


@dataclass(frozen=True, kw_only=True)
class CheckedCache(Result):
    """What a check of all bytes found: `values["whole"]`, and `values["problems"]`, a line each.

    Attributes:
        folder, manifest: of the cache.
        found: every file and block that is damaged.
    """

    folder: LocalFolder | RemoteFolder
    manifest: Manifest
    found: Verification

    def refuse_damage(self) -> None:
        """Raise InputError unless the cache is whole."""
        if self.found.is_whole:
            return
        foreign = self.found.advice(self.folder.path) if isinstance(self.folder, LocalFolder) else None
        raise InputError(
            f"cache {self.values['cache']}",
            expected="the bytes that were sealed",
            found=_count_damage(self.found),
            fix=foreign or "repair it with --repair NEW_FOLDER, or dump it again",
        )


def verify_cache(cache: Path | str, storage_options: Mapping[str, Any] | None = None) -> CheckedCache:
    """Recompute every digest of a cache, and name each file and block that is damaged.

    Args:
        cache: its folder, or a URL.
        storage_options: of the URL's file system.

    Raises:
        InputError: no cache is there, or its manifest is none.
    """
    folder = locate_folder(cache, storage_options)
    manifest = read_manifest(folder, "dump it again")
    found = verify_bytes(folder, manifest)
    whole = f"{cache}: whole: {len(manifest.files)} files, {manifest.chunks} chunks, root {manifest.root[:12]}"
    return CheckedCache(
        {"cache": str(cache), "whole": found.is_whole, "problems": found.lines()},
        text=(*found.labelled_lines(), *([whole] if found.is_whole else [])),
        folder=folder,
        manifest=manifest,
        found=found,
    )


def _count_damage(found: Verification) -> str:
    foreign = sum(each.is_system_file for each in found.damage)
    if foreign and foreign == len(found.damage):
        return f"all of them, and foreign files: {foreign}"
    blocks = sum(len(each.blocks) for each in found.damage)
    return f"others: damaged files: {max(1, len(found.damage) - foreign)}, damaged blocks: {blocks}"
