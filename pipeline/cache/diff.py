"""Compare two caches: which entries of their manifests differ, and which samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.expected_values import differences
from pipeline.base.progress import track
from pipeline.cache.reader import Cache

PIECE_BYTES = 32 << 20  # of each cache in memory at a time


@dataclass(frozen=True)
class ArrayDiff:
    """How one array differs, of those that both have in one shape.

    Attributes:
        samples: ids (of samples, or of batches) whose rows differ in some view or plan, in order.
        rows: their number over all views, of `of`.
        largest: the largest absolute difference of two numbers; 0 where only bits differ (0.0 and -0.0).
        dtypes: the number formats of both, where they are not one: then numbers are compared, not bits.
    """

    array: str
    samples: tuple[int, ...]
    rows: int
    of: int
    largest: float
    dtypes: tuple[str, str] | None


@dataclass(frozen=True)
class CacheDiff:
    """What differs: entries (name, of A, of B), and arrays.

    `same_values`: both hold the same arrays, bit for bit, in whatever form. `same_numbers`: the same arrays of the same
    numbers, perhaps in other number formats. `unit`: what A's rows are of. `alone`: why an array has nothing to be
    compared with.
    """

    entries: tuple[tuple[str, Any, Any], ...]
    arrays: tuple[ArrayDiff, ...]
    alone: tuple[tuple[str, str], ...]
    same_values: bool
    same_numbers: bool
    unit: str


def compare_caches(a: Cache, b: Cache) -> CacheDiff:
    """Compare two caches, in any stores, chunks and codecs."""
    entries, unit = tuple(differences(_comparable_entries(a), _comparable_entries(b))), a.manifest.unit
    if a.manifest.values == b.manifest.values:
        return CacheDiff(entries, (), (), same_values=True, same_numbers=True, unit=unit)
    alone = tuple(_find_unmatched(a, b))
    shared = [name for name in a.manifest.arrays if name not in dict(alone)]
    found = [_compare_array(a, b, name) for name in shared]
    same = not alone and not any(each.rows for each in found)
    shown = tuple(each for each in found if each.rows or each.dtypes)
    return CacheDiff(entries, shown, alone, same_values=False, same_numbers=same, unit=unit)


def _comparable_entries(cache: Cache) -> dict[str, Any]:
    arrays = {
        name: {
            "shape": array.shape,
            "dtype": array.dtype,
            "codec": array.codec,
            "chunk_rows": array.chunk_rows,
            "shard": array.shard,
        }
        for name, array in cache.manifest.arrays.items()
    }
    return {**cache.manifest.comparable_entries(), "arrays": arrays}


def _find_unmatched(a: Cache, b: Cache) -> Iterator[tuple[str, str]]:
    """The arrays that only one has, or both in different shapes, and which of it."""
    ours, theirs = a.manifest.arrays, b.manifest.arrays
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs or name not in ours:
            yield name, f"only in {'A' if name in ours else 'B'}"
        elif ours[name].shape != theirs[name].shape:
            yield name, f"shape {tuple(ours[name].shape)} in A, {tuple(theirs[name].shape)} in B"


def _compare_array(a: Cache, b: Cache, name: str) -> ArrayDiff:
    info = a.manifest.arrays[name]
    dtypes = info.dtype, b.manifest.arrays[name].dtype
    piece = max(1, PIECE_BYTES // info.row_bytes)
    samples: set[int] = set()
    rows, largest = 0, 0.0
    parts = [(view, start) for view in range(info.shape[0]) for start in range(0, info.shape[1], piece)]
    for view, start in track(parts, f"compare {name}", len(parts)):
        ids = np.arange(start, min(start + piece, info.shape[1]))
        ours, theirs = (cache.rows(ids, view, name).reshape(len(ids), -1) for cache in (a, b))
        other = np.flatnonzero(_mark_differences(ours, theirs).any(axis=1))
        samples.update((start + other).tolist())
        rows += len(other)
        if len(other):
            with np.errstate(invalid="ignore"):  # infinities
                apart = np.abs(ours[other].astype(np.float64) - theirs[other])
            largest = max(largest, float(apart.max()))
    kinds = None if dtypes[0] == dtypes[1] else dtypes
    return ArrayDiff(name, tuple(sorted(samples)), rows, info.shape[0] * info.shape[1], largest, kinds)


def _mark_differences(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.bool_]:
    """Where numbers differ: of one format in any bit, else in what they mean."""
    if ours.dtype == theirs.dtype:
        bits = f"u{ours.dtype.itemsize}"
        ours, theirs = ours.view(bits), theirs.view(bits)
    found: NDArray[np.bool_] = (ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs))
    return found
