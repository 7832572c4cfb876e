"""Look at every number of a field that stays on disk: once for each copy, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline.base import checked_copies
from pipeline.base.mapped_pages import PageWatch
from pipeline.base.progress import progress_bar
from pipeline.cache import Cache
from pipeline.cache.folder import LocalFolder

CHECK = "values"
PIECE_BYTES = 32 << 20


def check_once(cache: Cache, check: Callable[[], None]) -> None:
    """Run a check of a cache's numbers, unless this copy has passed it and was not touched since."""
    if not isinstance(cache.folder, LocalFolder):
        check()
        return
    folder, files = cache.folder.path, cache.manifest.files
    seen = checked_copies.compute_signature(folder, files, cache.manifest.root)
    if not checked_copies.is_remembered(folder, seen, CHECK):
        check()
        checked_copies.remember_copy(folder, seen, CHECK)


def iterate_pieces(cache: Cache, name: str) -> Iterator[tuple[int, slice, Tensor]]:
    """All rows of an array: the view, which rows of it, and these (n, ...); a bar shows how far it is."""
    views, count = cache.manifest.arrays[name].shape[:2]
    size = max(1, PIECE_BYTES // cache.manifest.arrays[name].row_bytes)
    watch = PageWatch(cache.release_pages)
    with progress_bar(f"check {cache.folder.name}", views * count) as bar:
        for view in range(views):
            for first in range(0, count, size):
                part = slice(first, min(count, first + size))
                yield view, part, torch.from_numpy(cache.rows(np.arange(count)[part], view, name))
                watch.check()
                bar(view * count + part.stop)
