"""Images with exactly the same pixels: found, counted, dropped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.raw import Labels, Pixels, Rows

Duplicates = Literal["refuse", "keep", "drop"]
Digests = NDArray[np.void]
DIGEST = np.dtype((np.void, 16))


def hash_images(images: Pixels) -> Digests:
    """(N,) digests of images (N, ...): two alike have the same pixels."""
    found = [hashlib.blake2b(image, digest_size=DIGEST.itemsize).digest() for image in np.ascontiguousarray(images)]
    return np.array(found, DIGEST)


def first_occurrences(digests: Digests, order: Rows) -> Rows:
    """(N,): for each image the first, in that order of all rows, that has its digest."""
    _, places, which = np.unique(digests[order], return_index=True, return_inverse=True)
    first = np.empty(len(order), np.int64)
    first[order] = order[places[which]]
    return first


@dataclass(frozen=True)
class DuplicateCounts:
    """How many images of a data set are exact copies of others.

    Attributes:
        images: those that are exact copies of an earlier one.
        other_class: those of them whose label is not that one's.
        across_splits: different pictures that stand in two or three splits.
        example: the rows of two like images, the earlier first: in two splits if there are such, else of two classes.
    """

    images: int
    other_class: int
    across_splits: int
    example: tuple[int, int]

    @property
    def counts(self) -> dict[str, int]:
        """The counts that the data set's card holds."""
        return {"copies": self.images, "across_splits": self.across_splits, **_count_other_class(self.other_class)}

    def describe(self, total: int) -> str:
        """The counts among `total` images, in words."""
        are = "are exact copies of others" if self.images > 1 else "is an exact copy of another"
        stand = "pictures stand" if self.across_splits != 1 else "picture stands"
        return (
            f"{self.images} of {total} images {are}{_describe_other_class(self.images, self.other_class)}, and "
            f"{self.across_splits} {stand} in more than one split"
        )


@dataclass(frozen=True)
class DroppedCounts:
    """How many images were taken out as copies of others.

    Attributes:
        images: how many.
        other_class: those of them whose label is not that of the one that is kept.
        example: the rows of one that is kept, and of one that is not: of two classes if there are such.
    """

    images: int
    other_class: int
    example: tuple[int, int]

    @property
    def counts(self) -> dict[str, int]:
        """The counts that the data set's card holds."""
        return {"dropped": self.images, **_count_other_class(self.other_class)}

    def describe(self) -> str:
        """The counts in words."""
        images, are = ("images", "copies of others") if self.images > 1 else ("image", "copy of another")
        return f"{self.images} {images} dropped: exact {are}{_describe_other_class(self.images, self.other_class)}"


def _count_other_class(count: int) -> dict[str, int]:
    return {"other_class": count} if count else {}


def _describe_other_class(images: int, other_class: int) -> str:
    if not other_class:
        return ""
    return f" ({other_class} of them under another class)" if images > 1 else " under another class"


def count_duplicates(digests: Digests, labels: Labels, bounds: tuple[int, int]) -> DuplicateCounts | None:
    """The exact copies in a data set; None where there are none.

    Args:
        digests: (N,) of the images, the splits one behind the other (see `hash_images`).
        labels: (N,).
        bounds: where they end (see `dataset.Dataset`).
    """
    rows = np.arange(len(digests))
    first = first_occurrences(digests, rows)
    split = np.searchsorted(bounds, rows, side="right")
    across = np.flatnonzero(split != split[first])
    differing = np.flatnonzero(labels != labels[first])
    again = np.flatnonzero(first != rows)
    if not len(again):
        return None
    example = int(next(found for found in (across, differing, again) if len(found))[0])
    return DuplicateCounts(len(again), len(differing), len(np.unique(first[across])), (int(first[example]), example))


def count_dropped(labels: Labels, first: Rows) -> DroppedCounts | None:
    """What is dropped where the first image of each picture is kept; None where no image is a copy.

    Args:
        labels: (N,).
        first: (N,) the row that is kept of each row's picture (see `first_occurrences`).
    """
    differing = np.flatnonzero(labels != labels[first])
    again = np.flatnonzero(first != np.arange(len(first)))
    if not len(again):
        return None
    example = int((differing if len(differing) else again)[0])
    return DroppedCounts(len(again), len(differing), (int(first[example]), example))
