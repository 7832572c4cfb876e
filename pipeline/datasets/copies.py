"""Images that are there twice, pixel for pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.raw import Pixels

Duplicates = Literal["refuse", "keep", "drop"]
Rows = NDArray[np.int64]


def first_of_each(images: Pixels, order: Iterable[int]) -> Rows:
    """(N,): for each of the images (N, ...) the first, in that order of all rows, that has the same pixels."""
    first = np.arange(len(images))
    seen: dict[bytes, int] = {}
    for row in order:
        digest = hashlib.blake2b(np.ascontiguousarray(images[row]), digest_size=16).digest()
        first[row] = seen.setdefault(digest, row)
    return first


@dataclass(frozen=True)
class Copies:
    """How often a data set's images are there twice.

    Attributes:
        images: those that are exact copies of an earlier one.
        across_splits: different pictures that stand in two or three splits.
        example: the rows of two like images, in two splits if there are such.
    """

    images: int
    across_splits: int
    example: tuple[int, int]

    def described(self, total: int) -> str:
        """The counts, of so many images, in words."""
        are = "are exact copies of others" if self.images > 1 else "is an exact copy of another"
        stand = "pictures stand" if self.across_splits != 1 else "picture stands"
        return f"{self.images} of {total} images {are}, and {self.across_splits} {stand} in more than one split"


def copies(images: Pixels, bounds: tuple[int, int]) -> Copies | None:
    """The copies in a data set, or None.

    Args:
        images: (N, C, H, W), the splits one behind the other.
        bounds: where they end (see `record.Dataset`).
    """
    first, rows = first_of_each(images, range(len(images))), np.arange(len(images))
    split = np.searchsorted(bounds, rows, side="right")
    across = np.flatnonzero(split != split[first])
    again = np.flatnonzero(first != rows)
    if not len(again):
        return None
    example = int((across if len(across) else again)[0])
    return Copies(len(again), len(np.unique(first[across])), (int(first[example]), example))
