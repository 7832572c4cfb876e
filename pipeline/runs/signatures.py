"""A cache and a key -> a signature beside it, and whether one there is by the key that is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline import cache as room
from pipeline.base.errors import InputError
from pipeline.base.files import write_bytes
from pipeline.cache.folder import LocalFolder, RemoteFolder
from pipeline.cache.manifest import Manifest
from pipeline.cache.signature import check_signature, sign_manifest
from pipeline.cache.signature_file import SUFFIX, locate_signature, read_signature
from pipeline.cache.signing_keys import hash_public_key, read_private_key, read_public_key
from pipeline.runs.result import Result


def sign_cache(cache: Path | str, key: Path) -> Result:
    """Sign a cache, after a look at all its bytes; the signature lies beside its folder, in place of an older one.

    Args:
        cache: its folder.
        key: a private ECDSA key in PEM, which nobody else can read.

    Raises:
        InputError: no sound cache, a URL, or no such key.
    """
    if "://" in str(cache):
        fix = "sign it before you copy it there, and copy the signature, too"
        raise InputError(str(cache), expected="a folder of this machine to sign", found="a URL", fix=fix)
    signer = read_private_key(key)
    manifest, path = room.open(cache).manifest, locate_signature(cache)
    what = "written, in place of an older one" if path.exists() else "written"
    write_bytes(path, sign_manifest(manifest, path.name.removesuffix(SUFFIX), signer))
    name = hash_public_key(signer.public_key())
    return Result(
        {"signature": str(path), "root": manifest.root, "key": name},
        text=(f"{path}: {what}: root {manifest.root[:12]} signed with key {name[:12]}",),
    )


def refuse_other_signature(
    cache: Path | str, folder: LocalFolder | RemoteFolder, manifest: Manifest, signed_by: Path
) -> Mapping[str, str]:
    """What a check says of a signature that is good.

    Args:
        cache: as it was named.
        folder, manifest: of it.
        signed_by: the public ECDSA key, in PEM, that must have signed.

    Raises:
        InputError: no signature is there, or it is by another key, changed, or of another cache than this one is now.
    """
    key = read_public_key(signed_by)
    where, data = read_signature(cache, folder)
    check_signature(data, manifest, key, where)
    return {"signature": where, "signed_by": hash_public_key(key)}
