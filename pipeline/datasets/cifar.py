"""CIFAR-10 and CIFAR-100 in their published python batches.

The batches are pickles; torchvision compares each file with its published checksum before it
opens one, so no other pickle is ever loaded.
"""

from __future__ import annotations

import numpy as np

from pipeline.datasets.raw import Place, RawDataset, as_labels, convert_torchvision_errors


def cifar10(place: Place) -> RawDataset:
    """50,000 + 10,000 colour images (3, 32, 32) of ten classes."""
    return _load(place, "CIFAR10")


def cifar100(place: Place) -> RawDataset:
    """50,000 + 10,000 colour images (3, 32, 32) of a hundred classes."""
    return _load(place, "CIFAR100")


def _load(place: Place, name: str) -> RawDataset:
    from torchvision import datasets  # a heavy import

    folder = place.find()
    with convert_torchvision_errors(folder, name):
        train, test = (
            getattr(datasets, name)(str(folder), train=train, download=place.download) for train in (True, False)
        )
    return RawDataset(
        np.moveaxis(train.data, -1, 1),
        as_labels(train.targets),
        np.moveaxis(test.data, -1, 1),
        as_labels(test.targets),
        tuple(train.classes),
    )
