"""Facts about cached activations: their scale, and how many units say nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.progress import track
from pipeline.base.table import Table
from pipeline.cache import Cache

USES_LABELS = False  # activations have no classes
PIECE_BYTES = 32 << 20  # of activations in memory at a time, as float64


def hints(cache: Cache, labels: NDArray[np.int64] | None) -> dict[str, Any]:  # noqa: ARG001 - hints have no classes
    """By tap, over all views and samples: mean, std, the largest magnitude, the share of zeros, and dead units.

    A unit is dead if it is the same number for every sample.

    Args:
        cache: of field hints.
        labels: not used.
    """
    return {"taps": {tap: _inspect_tap(cache, tap) for tap in cache.manifest.arrays}}


def describe(facts: dict[str, Any], classes: Sequence[str]) -> Iterator[str | Table]:  # noqa: ARG001 - hints have none
    """One row a tap."""
    columns = ("tap", "units", "dead", "zeros (%)", "mean", "std", "largest")
    yield Table("activations", columns, [_cells(tap, its) for tap, its in facts["taps"].items()])


def _cells(tap: str, its: dict[str, Any]) -> tuple[str, ...]:
    counts = f"{its['units']:,}", f"{its['dead']:,}", f"{100 * its['zeros']:.1f}"
    return (tap, *counts, *(f"{its[key]:.4g}" for key in ("mean", "std", "largest")))


def _inspect_tap(cache: Cache, tap: str) -> dict[str, Any]:
    info = cache.manifest.arrays[tap]
    units = math.prod(info.row_shape)
    piece = max(1, PIECE_BYTES // (8 * units))
    low, high = np.full(units, np.inf), np.full(units, -np.inf)
    total = squares = 0.0
    zeros = 0
    parts = [(view, start) for view in range(info.shape[0]) for start in range(0, info.shape[1], piece)]
    for view, start in track(parts, f"inspect {tap}", len(parts)):
        ids = np.arange(start, min(start + piece, info.shape[1]))
        values = cache.rows(ids, view, tap).reshape(len(ids), units).astype(np.float64)
        low, high = np.minimum(low, values.min(0)), np.maximum(high, values.max(0))
        total, squares = total + float(values.sum()), squares + float((values**2).sum())
        zeros += int((values == 0).sum())
    count = info.shape[0] * info.shape[1] * units
    mean = total / count
    return {
        "units": units,
        "mean": mean,
        "std": max(0.0, squares / count - mean**2) ** 0.5,
        "largest": float(np.maximum(-low, high).max()),
        "zeros": zeros / count,
        "dead": int((low == high).sum()),
    }
