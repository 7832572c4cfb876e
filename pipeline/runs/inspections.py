"""A cache -> what it holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import cache as room
from pipeline.base.errors import InputError
from pipeline.cache import Cache
from pipeline.cache.folder import LocalFolder
from pipeline.inspection.overview import inspect_cache as measure_cache
from pipeline.inspection.overview import read_labels
from pipeline.inspection.text import format_cache
from pipeline.runs.result import Result


def inspect_cache(
    cache: Path | str, data: Path | None = None, storage_options: Mapping[str, Any] | None = None
) -> Result:
    """Say what a cache holds, from which teacher and data, and how its numbers look.

    Args:
        cache: its folder, or a URL.
        data: the prepared data set, for its labels; in a study it is found without being named.
        storage_options: of the URL's file system.

    Raises:
        InputError: no sound cache, or data that are not the cache's.
    """
    opened = room.open(cache, storage_options=storage_options)
    labels = read_labels(opened, data) if data else _find_labels(opened)
    facts = measure_cache(opened, labels)
    return Result(facts, text=tuple(format_cache(str(cache), facts, known_labels=labels is not None)))


def _find_labels(opened: Cache) -> NDArray[np.int64] | None:
    """The labels of the study that the cache lies in, where it is one and its data are the cache's."""
    name = opened.manifest.dataset.name
    if not isinstance(opened.folder, LocalFolder) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
        return None
    try:
        return read_labels(opened, opened.folder.path.resolve().parent.parent / "prepared" / name)
    except InputError:
        return None
