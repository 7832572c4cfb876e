"""Which samples, classes, channels and units a picture shows, and in which order."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MOST_CLASSES = 10  # more cannot be told apart, by place or by colour


def select_first_of_each(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Ids (m,) of the first `count` samples of each of the first ten classes that there are, class by class.

    The first, not any: a cache is read by blocks, and these lie in few.

    Args:
        labels: (n,) by id.
        count: of each class; a smaller class gives what it has.
    """
    shown = np.unique(labels)[:MOST_CLASSES]
    picked = [np.flatnonzero(labels == label)[:count] for label in shown]
    return np.concatenate(picked) if picked else np.zeros(0, np.int64)


def sort_by_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places (n,) that put samples into the order of their classes; within one they keep their own."""
    order: NDArray[np.int64] = np.argsort(labels, kind="stable")
    return order


def find_class_runs(labels: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """(label, start, stop) of each class in labels (n,) that are sorted."""
    shown, starts = np.unique(labels, return_index=True)
    stops = [*starts[1:], len(labels)]
    return [(int(label), int(start), int(stop)) for label, start, stop in zip(shown, starts, stops, strict=True)]


def select_busiest(activations: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """The channels of largest variance (over samples and places), in rising order of their numbers.

    Args:
        activations: (n, channels, ...).
        count: how many at most.
    """
    values = np.moveaxis(activations.astype(np.float64), 1, 0).reshape(activations.shape[1], -1)
    # Stable, so that of equals the first are kept, and the same on every machine.
    return np.sort(np.argsort(-values.var(1), kind="stable")[:count])


def sort_units_by_class(activations: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Units (d,) in the order of the class that they are strongest for, then from strong to weak for it.

    Args:
        activations: (n, d).
        labels: (n,).
    """
    wide = activations.astype(np.float64)
    means = np.stack([wide[labels == label].mean(0) for label in np.unique(labels)])  # (classes, d)
    order: NDArray[np.int64] = np.lexsort((-means.max(0), means.argmax(0)))
    return order


def choose_tile_shape(channels: int) -> tuple[int, int]:
    """Rows and columns of a tile of so many channels: as square as can be without a hole, else one row.

    A head that slides over a map has height x width channels, so they stand where they look.
    """
    rows = next(rows for rows in range(math.isqrt(channels), 0, -1) if channels % rows == 0)
    return (1, channels) if rows == 1 else (rows, channels // rows)
