"""A source's images, selected, refitted and put in order: the `Dataset` that all later stages read."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from pipeline.base.errors import InputError, join_names
from pipeline.base.plain_text import is_unicode
from pipeline.datasets import SOURCES
from pipeline.datasets.dataset import Dataset
from pipeline.datasets.duplicates import (
    DroppedCounts,
    DuplicateCounts,
    Duplicates,
    Indices,
    count_dropped,
    count_duplicates,
    first_occurrences,
)
from pipeline.datasets.raw import Labels, Pixels, Place, RawDataset, fit_image, refuse_beyond_memory, refuse_size
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
    folds: Folds | None = None,
    seed: int = 0,
    duplicates: Duplicates = "keep",
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read a source and put it in order: training rows first, then validation, then test.

    Args:
        name: the data set's name, for its card.
        source: a name of `SOURCES`.
        place: where its files are.
        size, grey: pixels to make of the source's (see `raw.fit_image`).
        train, validation, folds, seed: the split (see `split.split_rows`).
        duplicates: images with just the pixels of another: `keep` counts them; `refuse` refuses them; `drop` keeps
            the first of each, before the data are split, and one of the source's test part rather than a training
            image, so that none stands in two splits.
        options: further options of this source.

    Raises:
        InputError: the source's files, its classes' names, the wanted size or split, or duplicates.
    """
    refuse_size(size)
    read = SOURCES.import_function(source)
    # A source that decodes files makes its own pixels; the others hand over arrays.
    decodes = "size" in inspect.signature(read).parameters
    raw = read(place, **({"size": size, "grey": grey} if decodes else {}), **(options or {}))
    _refuse_names(raw.classes)
    images = np.concatenate([raw.train_images, raw.test_images])
    if not decodes and (size is not None or grey):
        images = refit_images(images, size, grey)
    labels, ends = np.concatenate([raw.train_labels, raw.test_labels]), len(raw.train_labels)
    first = choose_kept(images, ends) if duplicates == "drop" else np.arange(len(images))
    kept = np.unique(first)
    pool, test = kept[kept < ends], kept[kept >= ends]
    _refuse_emptied(raw, labels, first, rows=range(ends if folds is None else len(labels)))
    how = {"train": train, "validation": validation, "folds": folds, "seed": seed, "classes": raw.classes}
    parts = split_rows(labels[pool], labels[test], **how)
    origin = kept[np.concatenate(parts)]
    bounds = len(parts[0]), len(parts[0]) + len(parts[1])
    chosen = np.ascontiguousarray(images[origin])
    found = count_duplicates(chosen, labels[origin], bounds)
    known, reported = _account_for_duplicates(raw, found, origin, count_dropped(labels, first))
    if found and duplicates == "refuse":
        raise InputError(
            f"data set {name!r}",
            expected="each picture once (`duplicates: refuse`)",
            found=reported[0],
            fix="remove the copies, or state `duplicates: drop` or `keep`",
        )
    return Dataset(chosen, labels[origin], bounds, raw.classes, origin, name, known, (*raw.notices, *reported))


def choose_kept(images: Pixels, ends: int) -> Indices:
    """(N,): for each of the images (N, ...) the one to keep of its picture: the first in the test part, rows `ends`
    and beyond, if it is there, else the first of all.
    """
    return first_occurrences(images, [*range(ends, len(images)), *range(ends)])


def _refuse_emptied(raw: RawDataset, labels: Labels, first: Indices, rows: range) -> None:
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


def _class_name(raw: RawDataset, label: int) -> str:
    return raw.classes[label] if raw.classes else str(label)


def _account_for_duplicates(
    raw: RawDataset, found: DuplicateCounts | None, origin: Indices, lost: DroppedCounts | None
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


def refit_images(images: Pixels, size: int | None, grey: bool) -> Pixels:
    """Images (N, C, H, W) as grey ones, or of another size."""
    only_grey = grey or images.shape[1] == 1
    height, width = (size, size) if size is not None else images.shape[2:]
    refuse_beyond_memory((len(images), 1 if only_grey else 3, height, width))
    pictures = (Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)) for image in images)
    return np.stack([fit_image(picture, size, grey=only_grey) for picture in pictures])
