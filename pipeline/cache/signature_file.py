"""Where a cache's signature lies: beside its folder, so that the cache itself has no byte more."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from pipeline.base.errors import InputError, NotNowError
from pipeline.base.files import refuse_irregular_file
from pipeline.cache.folder import LocalFolder, RemoteFolder

SUFFIX = ".sig.json"  # after the name of the folder
MAX_BYTES = 1 << 20


def locate_signature(cache: Path | str) -> Path:
    """The file beside a folder, as it was named: where that is a link, beside the link."""
    folder = Path(os.path.abspath(cache))  # noqa: PTH100 - without following links
    return folder.with_name(f"{folder.name}{SUFFIX}")


def read_signature(cache: Path | str, folder: LocalFolder | RemoteFolder) -> tuple[str, bytes]:
    """The signature's place, as messages name it, and its bytes.

    Args:
        cache: as it was named.
        folder: what it stands for.

    Raises:
        InputError: there is none, or one larger than any is.
    """
    if isinstance(folder, RemoteFolder):
        where, read = f"{folder.name}{SUFFIX}", partial(folder.read_beside, SUFFIX, MAX_BYTES + 1)
    else:
        path = locate_signature(cache)
        where, read = str(path), partial(read_local_signature, path)
    expected = "the signature of the cache beside it"
    try:
        data = read()
    except NotNowError:
        raise
    except (InputError, FileNotFoundError):
        fix = "nobody has signed it, or the signature was left behind"
        raise InputError(where, expected=expected, found="nothing", fix=fix) from None
    if len(data) > MAX_BYTES:
        raise InputError(where, expected=f"{expected}, at most {MAX_BYTES >> 20} MiB", found="a larger file")
    return where, data


def read_local_signature(path: Path) -> bytes:
    """The bytes of such a file, or one more than any has."""
    refuse_irregular_file(path, "the signature of the cache beside it")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
