"""A source's images, selected, refitted and put in order: the `Dataset` that all later stages read."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import InputError, join_names
from pipeline.base.plain_text import is_unicode
from pipeline.base.progress import progress_bar
from pipeline.datasets import SOURCES
from pipeline.datasets.dataset import Dataset, Fingerprint, Images, hold_images, write_images
from pipeline.datasets.duplicates import (
    DIGEST,
    Digests,
    DroppedCounts,
    DuplicateCounts,
    Duplicates,
    count_dropped,
    count_duplicates,
    first_occurrences,
    hash_images,
)
from pipeline.datasets.raw import Labels, Pixels, Place, Rows, Source, refuse_beyond_room, refuse_size
from pipeline.datasets.split import Amount, Folds, split_rows

MOST_CLASS_BYTES = 4 << 20  # of the classes' names as JSON: half of the manifest that a cache's reader takes


def prepare_dataset(
    name: str,
    source: str,
    place: Place,
    *,
    size: int | None = None,
    grey: bool = False,
    train: Amount | None = None,
    validation: Amount | None = None,
    test: Amount | None = None,
    folds: Folds | None = None,
    seed: int = 0,
    duplicates: Duplicates = "keep",
    options: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Dataset:
    """Read a source and put it in order: training rows first, then validation, then test.

    The split is decided before any image is read (but with `drop`, which reads all of them twice); those that are not
    kept never are.

    Args:
        name: the data set's name, for its card.
        source: a name of `SOURCES`.
        place: where its files are.
        size, grey: pixels to make of the source's (see `raw.fit_image`).
        train, validation, test, folds, seed: the split (see `split.split_rows`).
        duplicates: images with just the pixels of another: `keep` counts them; `refuse` refuses them; `drop` keeps
            the first of each, before the data are split, and one of the source's test part rather than a training
            image, so that none stands in two splits.
        options: further options of this source.
        folder: that is there, for `images.npy`, so that only a few images are held; without it all are.

    Raises:
        InputError: the source's files, its classes' names, the wanted size or split, or duplicates.
        DiskFullError: the images do not fit into the folder; an OSError.
    """
    refuse_size(size)
    amounts: dict[str, Any] = {"train": train, "validation": validation, "test": test, "folds": folds, "seed": seed}
    with closing(_open_source(source, place, size, grey, options or {})) as raw:
        _refuse_names(raw.classes)
        labels, ends = np.concatenate([raw.train_labels, raw.test_labels]), len(raw.train_labels)
        first = np.arange(len(labels)) if duplicates != "drop" else choose_kept(_hash_source(raw), ends)
        kept = np.unique(first)
        _refuse_emptied(raw, labels, first, rows=range(ends if folds is None else len(labels)))
        parts = split_rows(labels[kept[kept < ends]], labels[kept[kept >= ends]], **amounts, classes=raw.classes)
        origin, bounds = kept[np.concatenate(parts)], (len(parts[0]), len(parts[0]) + len(parts[1]))
        images, digests, fingerprint = _read_images(raw, origin, labels[origin], bounds, folder)
    found = count_duplicates(digests, labels[origin], bounds)
    known, reported = _account_for_duplicates(raw, found, origin, count_dropped(labels, first))
    if found and duplicates == "refuse":
        raise InputError(
            f"data set {name!r}",
            expected="each picture once (`duplicates: refuse`)",
            found=reported[0],
            fix="remove the copies, or state `duplicates: drop` or `keep`",
        )
    notices = (*raw.notices, *reported)
    return Dataset(
        images, labels[origin], bounds, raw.classes, origin, name, known, notices, known_fingerprint=fingerprint
    )


def _open_source(source: str, place: Place, size: int | None, grey: bool, options: Mapping[str, Any]) -> Source:
    """A source's labels and names, and a way to its images."""
    read = SOURCES.import_function(source)
    if "size" in inspect.signature(read).parameters:  # it decodes files, and makes its own pixels
        found: Source = read(place, size=size, grey=grey, **options)
        return found
    raw: Source = replace(read(place, **options), size=size, grey=grey)
    return raw


def _read_images(
    raw: Source, rows: Rows, labels: Labels, bounds: tuple[int, int], folder: Path | None
) -> tuple[Images, Digests, str]:
    """The images of these rows, in the folder's file or in memory, the digest of each, the fingerprint of all."""
    shape_of_one = raw.find_shape(int(rows[0]))
    shape = (len(rows), *shape_of_one)
    refuse_beyond_room(shape, folder)
    fingerprint = Fingerprint(shape, bounds, len(raw.classes))
    digests: list[Digests] = []

    def read_hashed() -> Generator[Pixels]:
        for piece in show_rate(raw.read(rows, shape_of_one), "images", len(rows)):
            fingerprint.add(piece)
            digests.append(hash_images(piece))
            yield piece

    images: Images
    with closing(read_hashed()) as pieces:
        images = hold_images(shape, pieces) if folder is None else write_images(folder / "images.npy", shape, pieces)
    return images, np.concatenate(digests), fingerprint.finish(labels)


def _hash_source(raw: Source) -> Digests:
    """(N,) digests of all images of a source."""
    rows = np.arange(len(raw.train_labels) + len(raw.test_labels))
    pieces = show_rate(raw.read(rows, raw.find_shape(0)), "looking for copies", len(rows))
    return np.concatenate([np.empty(0, DIGEST), *map(hash_images, pieces)])


def show_rate(pieces: Iterable[Pixels], description: str, total: int) -> Iterator[Pixels]:
    """Pass pieces of images on, moving a bar that tells how many a second there are."""
    start, done = time.perf_counter(), 0
    with progress_bar(description, total) as bar:
        for piece in pieces:
            yield piece
            done += len(piece)
            bar(done, f"{done / max(time.perf_counter() - start, 1e-9):,.0f} images/s")


def choose_kept(digests: Digests, ends: int) -> Rows:
    """(N,): for each image the one to keep of its picture: the first in the test part, rows `ends` and beyond, if it is
    there, else the first of all.
    """
    rows = np.arange(len(digests))
    return first_occurrences(digests, np.concatenate([rows[ends:], rows[:ends]]))


def _refuse_emptied(raw: Source, labels: Labels, first: Rows, rows: range) -> None:
    """Raise InputError for classes of which, in the rows to train on, nothing but copies of others was."""
    here = np.arange(rows.stop)
    emptied = np.setdiff1d(labels[here], labels[here[first[here] == here]])
    if len(emptied):
        row = int(np.flatnonzero(labels[here] == emptied[0])[0])
        again, kept = (join_names([raw.name_of(int(each))]) for each in (row, first[row]))
        names = join_names([_class_name(raw, label) for label in emptied])
        raise InputError(
            "duplicates: drop",
            expected="a training image of each class to be left",
            found=f"none of {names}: all are copies of others, such as {again} of {kept}",
            fix="take the copies away, or state `duplicates: keep`",
        )


def _class_name(raw: Source, label: int) -> str:
    return raw.classes[label] if raw.classes else str(label)


def _account_for_duplicates(
    raw: Source, found: DuplicateCounts | None, origin: Rows, lost: DroppedCounts | None
) -> tuple[dict[str, int] | None, tuple[str, ...]]:
    """What the data set's card holds about copies, and the lines that report them."""
    if found is not None:
        first, again = (join_names([raw.name_of(int(origin[row]))]) for row in found.example)
        return found.counts, (f"{found.describe(len(origin))}, such as {first} and {again}",)
    if lost is not None:
        first, again = (join_names([raw.name_of(row)]) for row in lost.example)
        return lost.counts, (f"{lost.describe()}, such as {again}, a copy of {first}",)
    return None, ()


def _refuse_names(classes: Sequence[str]) -> None:
    """Raise InputError for names of classes that no reader of a cache would take."""
    for name in classes:
        if not is_unicode(name):
            raise InputError(
                f"class {name!r}", expected="a name in UTF-8", found="other bytes", fix="rename its folder"
            )
    size = len(json.dumps(classes))
    if size > MOST_CLASS_BYTES:
        raise InputError(
            f"the names of {len(classes)} classes",
            expected=f"at most {MOST_CLASS_BYTES:,} bytes of JSON, which is what caches have room for",
            found=f"{size:,}",
            fix="shorten the names",
        )
