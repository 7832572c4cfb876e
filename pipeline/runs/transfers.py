"""A cache here -> the same at a URL, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import cache as room
from pipeline.base import checked_copies
from pipeline.base.errors import InputError, NotNowError
from pipeline.base.files import explain_disk_full, publish_output
from pipeline.base.sizes import format_size
from pipeline.cache.cache_paths import MANIFEST_PATH
from pipeline.cache.download import fetch_cache
from pipeline.cache.folder import RemoteFolder, locate_folder, read_manifest
from pipeline.cache.manifest import Manifest
from pipeline.cache.reader import refuse_mismatch
from pipeline.cache.root_pins import PIN_DIGITS, refuse_other_root, split_pin
from pipeline.cache.signature_transfer import fetch_signature, send_signature
from pipeline.cache.upload import Upload
from pipeline.cache.url_systems import hide_password
from pipeline.runs.new_folders import open_work_beside, refuse_existing
from pipeline.runs.result import Result

READ_ONLY_PROTOCOLS = {"http", "https", "dvc", "git", "github", "zip", "tar", "data"}


def push_cache(
    cache: Path | str,
    url: str,
    *,
    expect: Mapping[str, str] | None = None,
    exchange: bool = False,
    check: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Result:
    """Send a cache to a URL, its manifest last: nobody who reads there opens a part of it.

    Args:
        cache: its folder; it is verified first.
        url: where its files are to lie, such as `s3://bucket/big-logits`; with `#root` only of this root digest.
        expect: entries that its manifest must have, by dotted name.
        exchange: let another cache that lies there make room.
        check: read back and hash all that is there; else the sizes decide.
        storage_options: of the URL's file system.

    Raises:
        InputError: no sound cache, another one than expected, or another one there.
        NotNowError: the URL cannot be written; the next run sends what is missing.
    """
    place, pin = split_pin(url)
    _refuse_read_only(place)
    if "://" in str(cache):
        raise InputError(str(cache), expected="a cache's folder", found="a URL", fix="pull it first")
    opened = room.open(cache)
    _refuse_other(opened.folder.name, opened.manifest, expect, pin)
    remote = _locate_url(place, storage_options)
    sent = Upload(opened, remote, exchange=exchange, read_back=check).send()
    manifest = opened.manifest
    size = sum(manifest.files[name].bytes for name in sent)
    told = f"{_describe(manifest)}; {len(sent)} files, {format_size(size)}, were sent"
    signature = send_signature(cache, manifest, remote)
    pinned = f"{remote.name}#{manifest.root[:PIN_DIGITS]}"
    return Result(
        {"root": manifest.root, "files": len(manifest.files), "sent_files": len(sent), "sent_bytes": size},
        text=(f"{remote.name}: {told}", *filter(None, [signature]), f"to get it: teachercache cache pull {pinned}"),
    )


def pull_cache(
    url: str,
    to: Path | str | None = None,
    *,
    expect: Mapping[str, str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Result:
    """Bring a cache here from a URL, each byte checked as it arrives; its folder appears when it is whole.

    Args:
        url: the cache's; with `#root` only of this root digest.
        to: a new folder; None: one of the URL's last name, here. Where this very cache lies there, nothing is fetched.
        expect: entries that its manifest must have, by dotted name.
        storage_options: of the URL's file system.

    Raises:
        InputError: no cache, another one than expected, or a place that is taken.
        NotNowError: it is damaged, or cannot be read: the next run goes on from what has arrived.
    """
    place, pin = split_pin(url)
    remote = _locate_url(place, storage_options)
    manifest = read_manifest(remote, "push it there first")
    _refuse_other(remote.name, manifest, expect, pin)
    target = Path(to or place.rstrip("/").rpartition("/")[2])
    if _is_here(target, manifest):
        return _tell_pull(target, manifest, 0, _fetch_signature(remote, manifest, target))
    refuse_existing(target)
    with open_work_beside(target) as work:
        part = work / manifest.root[:16]
        travelled = _fetch(remote, manifest, part)
        publish_output(part, target)
    checked_copies.remember_copy(target, checked_copies.compute_signature(target, manifest.files, manifest.root))
    return _tell_pull(target, manifest, travelled, _fetch_signature(remote, manifest, target))


def _is_here(target: Path, manifest: Manifest) -> bool:
    """Whether this very cache lies there, whole."""
    if not (target / MANIFEST_PATH).is_file():
        return False
    return room.open(target, fix="delete it, and pull again").manifest.root == manifest.root


def _fetch(remote: RemoteFolder, manifest: Manifest, part: Path) -> int:
    """Fetch a cache; whatever is wrong with it there, what has arrived stays here."""
    try:
        with explain_disk_full(part, sum(each.bytes for each in manifest.files.values())):
            return fetch_cache(remote, manifest, part)
    except InputError as error:
        raise NotNowError(str(error), fix=f"what has arrived is kept in {part.parent.parent}") from None


def _fetch_signature(remote: RemoteFolder, manifest: Manifest, target: Path) -> str:
    """What became of the signature beside it; the cache is here whether there is one or not."""
    try:
        return fetch_signature(remote, manifest, target)
    except NotNowError as error:
        return f"whether it is signed is not known: {error}"


def _tell_pull(target: Path, manifest: Manifest, travelled: int, signature: str) -> Result:
    values = {"root": manifest.root, "files": len(manifest.files), "fetched_bytes": travelled}
    fetched = f"{target}: {_describe(manifest)}; {format_size(travelled)} were fetched"
    return Result(values, text=(fetched, *filter(None, [signature])))


def _describe(manifest: Manifest) -> str:
    size = sum(each.bytes for each in manifest.files.values())
    return f"{len(manifest.files)} files, {format_size(size)}, root {manifest.root[:PIN_DIGITS]}"


def _locate_url(url: str, options: Mapping[str, Any] | None) -> RemoteFolder:
    folder = locate_folder(url, options)
    if not isinstance(folder, RemoteFolder):
        raise InputError(url, expected="a URL, such as s3://bucket/big-logits or file:///shared/big-logits")
    return folder


def _refuse_read_only(url: str) -> None:
    protocol = url.partition("://")[0]
    if protocol in READ_ONLY_PROTOCOLS:
        found, fix = (
            f"{protocol}://, which is only read",
            "push over s3://, gs://, sftp://, webdav://, hf:// or file://",
        )
        raise InputError(hide_password(url), expected="a URL to write to", found=found, fix=fix)


def _refuse_other(name: str, manifest: Manifest, expect: Mapping[str, str] | None, pin: str | None) -> None:
    """Raise InputError where a cache is not the one of the pin, or not as expected."""
    fix = "name another cache, or expect this one"
    refuse_other_root(name, manifest, pin, fix)
    wanted = {key: _read_value(manifest, key, text) for key, text in (expect or {}).items()}
    refuse_mismatch(name, manifest, wanted, fix)


def _read_value(manifest: Manifest, key: str, text: str) -> Any:
    """What an expectation's text says: text where the manifest has text there, else JSON, where it is any."""
    found: Any = manifest.comparable_entries()
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    try:
        return text if isinstance(found, str) else json.loads(text)
    except ValueError:
        return text
