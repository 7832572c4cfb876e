"""A cache -> whether every byte is the one that was sealed."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.base.checked_parts import CheckedParts
from pipeline.base.errors import InputError
from pipeline.base.sizes import format_size
from pipeline.cache.folder import LocalFolder, RemoteFolder, locate_folder, read_manifest
from pipeline.cache.manifest import Manifest
from pipeline.cache.sample_check import Sample
from pipeline.cache.verify import Verification, take_up_parts, verify_sample
from pipeline.cache.verify import verify_cache as verify_bytes
from pipeline.runs.result import Result
from pipeline.runs.signatures import refuse_other_signature

# Said before it begins, and not in the result. No warning: the name is another than this module's.
LOG = logging.getLogger("pipeline.verification")


@dataclass(frozen=True, kw_only=True)
class CheckedCache(Result):
    """What a check found: `values["whole"]`, and `values["problems"]`, a line each.

    Of a sample also `values["sampled"]`: what was looked at; `whole` is None where nothing is wrong and not all was.
    Of a signature that was asked for `values["signature"]`, its place, and `values["signed_by"]`, what names the key.

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
    cache: Path | str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    restart: bool = False,
    sample: float | None = None,
    seed: int | None = None,
    signed_by: Path | None = None,
) -> CheckedCache:
    """Recompute every digest of a cache, and name each file and chunk that is damaged.

    One that was interrupted goes on from there where no file was touched since, and says so.

    Args:
        cache: its folder, or a URL.
        storage_options: of the URL's file system.
        restart: begin anew, whatever an interrupted run has checked.
        sample: look only at this share of the chunks of each file, in (0, 1], and at all that lies beside chunks.
        seed: that these are drawn with; None: a random one.
        signed_by: a public key in PEM, whose owner must have signed this very cache; None asks for no signature.

    Raises:
        InputError: no cache is there, or its manifest is none; the sample is no such share; no such signature.
    """
    if sample is not None and not 0 < sample <= 1:
        raise InputError("sample", expected="a share of the chunks, more than 0 and at most 1", found=str(sample))
    folder = locate_folder(cache, storage_options)
    manifest = read_manifest(folder, "dump it again")
    signed = {} if signed_by is None else refuse_other_signature(cache, folder, manifest, signed_by)
    if sample is not None:
        found = verify_sample(folder, manifest, sample, secrets.randbits(32) if seed is None else seed)
        return _describe_check(str(cache), folder, manifest, found, signed)
    parts = take_up_parts(folder, manifest, restart=restart)
    if parts and parts.noted is not None:
        LOG.warning("%s", _describe_beginning(str(cache), manifest, parts))
    return _describe_check(str(cache), folder, manifest, verify_bytes(folder, manifest, parts), signed)


def _describe_check(
    cache: str, folder: LocalFolder | RemoteFolder, manifest: Manifest, found: Verification, signed: Mapping[str, str]
) -> CheckedCache:
    whole = f"{cache}: whole: {len(manifest.files)} files, {manifest.chunks} chunks, root {manifest.root[:12]}"
    if not found.saw_all and found.sample:
        whole = f"{cache}: whole as far as was looked: {_describe_sample(found.sample)}"
    sampled = {"sampled": asdict(found.sample)} if found.sample else {}
    by = [f"{cache}: root {manifest.root[:12]} is signed by key {signed['signed_by'][:12]}"] if signed else []
    return CheckedCache(
        {
            "cache": cache,
            "whole": None if found.is_whole and not found.saw_all else found.is_whole,
            "problems": found.lines(),
            **sampled,
            **signed,
        },
        text=(*by, *found.labelled_lines(), *([whole] if found.is_whole else [])),
        folder=folder,
        manifest=manifest,
        found=found,
    )


def _describe_sample(sample: Sample) -> str:
    chunks = f"{sample.chunks:,} of {sample.all_chunks:,} chunks ({100 * sample.chunks / sample.all_chunks:.1f} %)"
    read = f"{format_size(sample.bytes)} of {format_size(sample.all_bytes)}"
    return f"{chunks}, {read}; the rest was not read (--seed {sample.seed} looks at the same ones)"


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
