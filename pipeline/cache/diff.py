"""What differs between two caches: which entries of the manifest, and which samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.cache.manifest import differences
from pipeline.cache.reader import Cache
from pipeline.progress import track

PIECE_BYTES = 32 << 20  # of each cache in memory at a time


@dataclass(frozen=True)
class ArrayDiff:
    """How the rows of one array differ.

    Attributes:
        samples: ids (of samples, or of batches) whose rows differ in some view or plan, in order.
        rows: their number over all views, of `of`.
        largest: the largest absolute difference of two numbers.
    """

    array: str
    samples: tuple[int, ...]
    rows: int
    of: int
    largest: float


@dataclass(frozen=True)
class Diff:
    """What differs: entries (name, of A, of B), and arrays that both have in one shape.

    `same_values`: both hold the same arrays, bit for bit, in whatever form. `unit`: what A's rows are of.
    """

    entries: tuple[tuple[str, Any, Any], ...]
    arrays: tuple[ArrayDiff, ...]
    same_values: bool
    unit: str


def diff(a: Cache, b: Cache) -> Diff:
    """Compare two caches, in any stores, chunks and codecs."""
    entries = tuple(differences(_plain(a), _plain(b)))
    if a.manifest.values == b.manifest.values:
        return Diff(entries, (), same_values=True, unit=a.manifest.unit)
    names = [name for name in a.manifest.arrays if name in b.manifest.arrays]
    shared = [name for name in names if a.manifest.arrays[name].shape == b.manifest.arrays[name].shape]
    found = [_array(a, b, name) for name in shared]
    return Diff(entries, tuple(each for each in found if each.rows), same_values=False, unit=a.manifest.unit)


def _plain(cache: Cache) -> dict[str, Any]:
    arrays = {
        name: {"shape": array.shape, "dtype": array.dtype, "codec": array.codec, "chunk_rows": array.chunk_rows}
        for name, array in cache.manifest.arrays.items()
    }
    return {**cache.manifest.expectable(), "arrays": arrays}


def _array(a: Cache, b: Cache, name: str) -> ArrayDiff:
    info = a.manifest.arrays[name]
    piece = max(1, PIECE_BYTES // info.row_bytes)
    samples: set[int] = set()
    rows, largest = 0, 0.0
    parts = [(view, start) for view in range(info.shape[0]) for start in range(0, info.shape[1], piece)]
    for view, start in track(parts, f"compare {name}", len(parts)):
        ids = np.arange(start, min(start + piece, info.shape[1]))
        ours, theirs = (cache.rows(ids, view, name).reshape(len(ids), -1) for cache in (a, b))
        other = np.flatnonzero((ours != theirs).any(axis=1))
        samples.update((start + other).tolist())
        rows += len(other)
        if len(other):
            largest = max(largest, float(np.abs(ours[other].astype(np.float64) - theirs[other]).max()))
    return ArrayDiff(name, tuple(sorted(samples)), rows, info.shape[0] * info.shape[1], largest)
