"""A cache that is reached through links, as `ln -s` and `cp -rs` make them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.cache import paths


def behind_links(folder: Path) -> Path:
    """The cache that a folder of links stands for: where each of them leads to the same place below one other folder.

    Any other folder is given back as it is; a link in it is refused by whoever opens it.
    """
    if not (folder / paths.MANIFEST).is_symlink():
        return folder
    cache = Path(os.path.realpath(folder / paths.MANIFEST)).parent
    same = all(os.path.realpath(folder / name) == str(cache / name) for name in _no_folders(folder))
    return cache if same else folder


def _no_folders(folder: Path) -> Iterator[str]:
    """Everything below a folder but real folders, links to some too; regular files lead to themselves."""
    for place, folders, files in os.walk(folder):
        linked = [name for name in folders if os.path.islink(os.path.join(place, name))]  # noqa: PTH114, PTH118
        for name in (*linked, *files):
            yield os.path.relpath(os.path.join(place, name), folder)  # noqa: PTH118
