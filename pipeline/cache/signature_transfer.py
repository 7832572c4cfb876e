"""A cache's signature goes where the cache goes: beside its folder here, beside its URL there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.base.files import write_bytes
from pipeline.cache.folder import RemoteFolder
from pipeline.cache.manifest import Manifest
from pipeline.cache.remote_files import read_small_file, write_remote_file
from pipeline.cache.signature import names_manifest
from pipeline.cache.signature_file import MAX_BYTES, SUFFIX, locate_signature, read_local_signature

STALE = "is of another cache, or of what this one was before it changed: it was left behind"


def send_signature(cache: Path | str, manifest: Manifest, remote: RemoteFolder) -> str:
    """Send the signature of a cache that has been sent.

    Returns:
        What became of it, in a line; "" where there is none.

    Raises:
        NotNowError: it cannot be written.
    """
    path = locate_signature(cache)
    if not path.is_file():
        return ""
    data = read_local_signature(path)
    if not names_manifest(data, manifest):
        return f"{path} {STALE}"
    parent, name = _find_beside(remote)
    write_remote_file(parent, name, lambda: [data])
    return f"{remote.name}{SUFFIX}: its signature was sent, too"


def fetch_signature(remote: RemoteFolder, manifest: Manifest, target: Path) -> str:
    """Bring the signature of a cache that is here; see `send_signature`.

    Raises:
        NotNowError: it cannot be read.
    """
    parent, name = _find_beside(remote)
    data = read_small_file(parent, name, MAX_BYTES + 1)
    if data is None:
        return ""
    if not names_manifest(data, manifest):
        return f"{remote.name}{SUFFIX} {STALE}"
    path = locate_signature(target)
    write_bytes(path, data)
    return f"{path}: its signature was fetched, too"


def _find_beside(remote: RemoteFolder) -> tuple[RemoteFolder, str]:
    """The folder around a cache's, and the name of its signature there."""
    (url, _, _), (root, _, name) = remote.url.rpartition("/"), remote.root.rpartition("/")
    return replace(remote, url=url, root=root), f"{name}{SUFFIX}"
