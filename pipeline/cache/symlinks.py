"""A cache that is reached through links, as `ln -s` and `cp -rs` make them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath

from pipeline.base.errors import InputError
from pipeline.base.files import advise_deletion, is_system_file
from pipeline.cache import cache_paths as paths

DVC_CACHE_FILE = re.compile(r"[/\\]files[/\\]md5[/\\][0-9a-f]{2}[/\\][0-9a-f]{30}$")  # where DVC's cache keeps a file


def resolve_links(folder: Path) -> Path:
    """The cache that a folder of links stands for: where each of them leads to the same place below one other folder.

    Any other folder is given back as it is; a link in it is refused by whoever opens it.

    Raises:
        InputError: it is such a folder, but for files that an operating system has left in it.
    """
    if not (folder / paths.MANIFEST_PATH).is_symlink():
        return folder
    cache = Path(os.path.realpath(folder / paths.MANIFEST_PATH)).parent
    others = [name for name in _walk_entries(folder) if os.path.realpath(folder / name) != str(cache / name)]
    if others and all(is_system_file(PurePath(name).name) for name in others):
        raise InputError(
            f"cache {folder}: file {others[0]}",
            expected="links to one cache alone",
            found="something that is none",
            fix=advise_deletion([folder / name for name in others]),
        )
    return folder if others else cache


def explain_link(manifest: Path, fix: str) -> tuple[str, str]:
    """What a manifest is that is a link to no cache, and what to do about it.

    Args:
        manifest: the link.
        fix: the command that makes the cache.
    """
    if DVC_CACHE_FILE.search(os.path.realpath(manifest)):
        # Made again, it would be links again.
        relink = "run `dvc config cache.type reflink,hardlink,copy`, then `dvc checkout --relink`"
        return "a link into DVC's own cache, as its cache.type symlink makes them", relink
    return "a link, and not all others lead to the same folder", f"copy the files themselves, or {fix}"


def _walk_entries(folder: Path) -> Iterator[str]:
    """Everything below a folder but real folders, links to some too; regular files lead to themselves.

    A folder that an operating system has left stands for what is in it.
    """
    for place, folders, files in os.walk(folder):
        left = [name for name in folders if is_system_file(name)]
        linked = [name for name in folders if os.path.islink(os.path.join(place, name))]  # noqa: PTH114, PTH118
        folders[:] = sorted(name for name in folders if name not in left)
        for name in sorted({*left, *linked, *files}):
            yield os.path.relpath(os.path.join(place, name), folder)  # noqa: PTH118
