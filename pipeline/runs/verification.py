"""A cache -> whether every byte is the one that was sealed."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.checked_parts import CheckedParts
from pipeline.base.errors import InputError
from pipeline.cache.folder import LocalFolder, RemoteFolder, locate_folder, read_manifest
from pipeline.cache.manifest import Manifest
from pipeline.cache.verify import Verification, take_up_parts
from pipeline.cache.verify import verify_cache as verify_bytes
from pipeline.runs.result import Result

# Said before it begins, and not in the result. No warning: the name is another than this module's.
LOG = logging.getLogger("pipeline.verification")


@dataclass(frozen=True, kw_only=True)
class CheckedCache(Result):
    """What a check of all bytes found: `values["whole"]`, and `values["problems"]`, a line each.

    Attributes:
        folder, manifest: of the cache.
        found: every file and chunk that is damaged.
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


def verify_cache(
    cache: Path | str, storage_options: Mapping[str, Any] | None = None, *, restart: bool = False
) -> CheckedCache:
    """Recompute every digest of a cache, and name each file and chunk that is damaged.

    One that was interrupted goes on from there where no file was touched since, and says so.

    Args:
        cache: its folder, or a URL.
        storage_options: of the URL's file system.
        restart: begin anew, whatever an interrupted run has checked.

    Raises:
        InputError: no cache is there, or its manifest is none.
    """
    folder = locate_folder(cache, storage_options)
    manifest = read_manifest(folder, "dump it again")
    parts = take_up_parts(folder, manifest, restart=restart)
    if parts and parts.noted is not None:
        LOG.warning("%s", _describe_beginning(str(cache), manifest, parts))
    found = verify_bytes(folder, manifest, parts)
    whole = f"{cache}: whole: {len(manifest.files)} files, {manifest.chunks} chunks, root {manifest.root[:12]}"
    return CheckedCache(
        {"cache": str(cache), "whole": found.is_whole, "problems": found.lines()},
        text=(*found.labelled_lines(), *([whole] if found.is_whole else [])),
        folder=folder,
        manifest=manifest,
        found=found,
    )


def _describe_beginning(cache: str, manifest: Manifest, parts: CheckedParts) -> str:
    """Where an interrupted check is taken up."""
    stretches = (item for name, each in parts.sound.items() if name not in parts.whole for item in each.items())
    done = sum(manifest.files[name].bytes for name in parts.whole) + sum(end - start for start, end in stretches)
    share = 100 * done / sum(info.bytes for info in manifest.files.values())
    minutes = (time.time() - (parts.noted or 0)) / 60
    return f"{cache}: goes on from {share:.0f} %, checked {minutes:.0f} minutes ago (--restart begins anew)"


def _count_damage(found: Verification) -> str:
    foreign = sum(each.is_system_file for each in found.damage)
    if foreign and foreign == len(found.damage):
        return f"all of them, and foreign files: {foreign}"
    blocks = sum(len(each.blocks) for each in found.damage)
    return f"others: damaged files: {max(1, len(found.damage) - foreign)}, damaged chunks: {blocks}"
