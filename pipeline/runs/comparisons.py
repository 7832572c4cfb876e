"""Two caches -> what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline import cache
from pipeline.base.table import Table
from pipeline.cache.diff import ArrayDiff, CacheDiff, compare_caches
from pipeline.runs.result import Result

MOST_IDS = 20  # of differing samples in the text


def diff_caches(a: Path | str, b: Path | str, storage_options: Mapping[str, Any] | None = None) -> Result:
    """Say which entries and which samples of two caches differ, whatever their stores and chunks.

    Args:
        a: a cache's folder, or a URL.
        b: another's.
        storage_options: of the URLs' file systems.

    Returns:
        Its values are those of `cache.diff.CacheDiff`.

    Raises:
        InputError: one is no sound cache.
    """
    opened = (cache.open(each, storage_options=storage_options) for each in (a, b))
    found = compare_caches(*opened)
    return Result(asdict(found), text=tuple(_describe(str(a), str(b), found)))


def _describe(a: str, b: str, found: CacheDiff) -> Iterator[str | Table]:
    if found.entries:
        yield Table("manifest", ("entry", a, b), [(name, str(x), str(y)) for name, x, y in found.entries])
    for name, what in found.alone:
        yield f"array {name}: {what}"
    for each in found.arrays:
        yield _describe_array(each, "samples" if found.unit == "sample" else "batches")
    same = "same numbers, in other number formats" if found.same_numbers else "other values"
    yield "same values" if found.same_values else same


def _describe_array(found: ArrayDiff, kind: str) -> str:
    forms = f" ({found.dtypes[0]} in A, {found.dtypes[1]} in B)" if found.dtypes else ""
    if not found.rows:
        return f"array {found.array}: the same numbers in all {found.of:,} rows{forms}"
    ids = ", ".join(map(str, found.samples[:MOST_IDS])) + (", ..." if len(found.samples) > MOST_IDS else "")
    apart = f"{found.rows:,} of {found.of:,} rows differ, by at most {found.largest:.6g}{forms}"
    return f"array {found.array}: {apart}; {kind} ({len(found.samples):,}): {ids}"
