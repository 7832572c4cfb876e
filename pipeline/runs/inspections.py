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
from pipeline.base.sizes import format_size
from pipeline.cache import Cache
from pipeline.cache.folder import Folder, LocalFolder, locate_folder, read_manifest
from pipeline.inspection.overview import describe_manifest, read_labels
from pipeline.inspection.overview import inspect_cache as measure_cache
from pipeline.inspection.text import format_cache, format_manifest
from pipeline.runs.result import Result


def inspect_cache(
    cache: Path | str,
    data: Path | None = None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    numbers: bool = False,
) -> Result:
    """Say what a cache holds, from which teacher and data, on which terms, and how its numbers look.

    Of a URL no more than the manifest is fetched, which tells all but how the numbers look.

    Args:
        cache: its folder, or a URL.
        data: the prepared data set, for its labels; in a study it is found without being named.
        storage_options: of the URL's file system.
        numbers: fetch a URL's data, too; `data` ask for it as well.

    Raises:
        InputError: no sound cache, or data that are not the cache's.
    """
    folder = locate_folder(cache, storage_options)
    if not isinstance(folder, LocalFolder) and not numbers and data is None:
        return _inspect_manifest(str(cache), folder)
    opened = room.open(cache, storage_options=storage_options)
    labels = read_labels(opened, data) if data else _find_labels(opened)
    facts = measure_cache(opened, labels)
    return Result(facts, text=tuple(format_cache(str(cache), facts, known_labels=labels is not None)))


def _inspect_manifest(name: str, folder: Folder) -> Result:
    manifest = read_manifest(folder, "dump it again")
    facts, size = describe_manifest(manifest), format_size(len(manifest.to_bytes()))
    left_out = f"fetched: the manifest ({size}), no data; --numbers fetches them, too, and says how they look"
    return Result(facts, text=(*format_manifest(name, facts), left_out))


def _find_labels(opened: Cache) -> NDArray[np.int64] | None:
    """The labels of the study that the cache lies in, where it is one and its data are the cache's."""
    name = opened.manifest.dataset.name
    if not isinstance(opened.folder, LocalFolder) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
        return None
    try:
        return read_labels(opened, opened.folder.path.resolve().parent.parent / "prepared" / name)
    except InputError:
        return None
