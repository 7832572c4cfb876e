"""A source's images, selected, refitted and put in order: the `Dataset` that all later stages read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from pipeline.datasets import SOURCES
from pipeline.datasets.raw import Pixels, Place, fit
from pipeline.datasets.record import Dataset
from pipeline.datasets.split import Amount, Folds, split


def prepare(
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
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read a source and put it in order: training rows first, then validation, then test.

    Args:
        name: the data set's name, for its card.
        source: a name of `SOURCES`.
        place: where its files are.
        size, grey: pixels to make of the source's (see `raw.fit`).
        train, validation, folds, seed: the split (see `split.split`).
        options: further options of this source.

    Raises:
        InputError: the source's files or the wanted split.
    """
    read = SOURCES.function(source)
    # A source that decodes files makes its own pixels; the others hand over arrays.
    decodes = "size" in inspect.signature(read).parameters
    raw = read(place, **({"size": size, "grey": grey} if decodes else {}), **(options or {}))
    parts = split(raw.train_labels, raw.test_labels, train=train, validation=validation, folds=folds, seed=seed)
    origin = np.concatenate(parts)
    images = np.concatenate([raw.train_images, raw.test_images])[origin]
    if not decodes and (size is not None or grey):
        images = refit(images, size, grey)
    labels = np.concatenate([raw.train_labels, raw.test_labels])[origin]
    bounds = len(parts[0]), len(parts[0]) + len(parts[1])
    return Dataset(np.ascontiguousarray(images), labels, bounds, raw.classes, origin.astype(np.int64), name)


def refit(images: Pixels, size: int | None, grey: bool) -> Pixels:
    """Images (N, C, H, W) as grey ones, or of another size."""
    only_grey = grey or images.shape[1] == 1
    pictures = (Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)) for image in images)
    return np.stack([fit(picture, size, grey=only_grey) for picture in pictures])
