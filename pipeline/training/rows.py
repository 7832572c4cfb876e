"""A prepared data set as tensors on a device, and how well a network does on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.datasets.dataset import SPLITS, Dataset, Split

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Rows:
    """Images and labels of one split on the device.

    Attributes:
        images: (n, C, H, W) uint8.
        labels: (n,) int64, below `classes`.
    """

    images: Tensor
    labels: Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_dataset(cls, dataset: Dataset, split: Split, device: torch.device) -> Rows:
        """A split of a data set, moved to the device as it is."""
        rows = dataset.rows(split)
        images, labels = (torch.from_numpy(array[rows]).to(device) for array in (dataset.images, dataset.labels))
        return cls(images, labels, len(dataset.classes))


@dataclass(frozen=True)
class Splits:
    """A prepared data set on the device.

    Attributes:
        train, validation, test: its rows; a training row's number is its sample id.
        shape: (C, H, W) of one image.
    """

    train: Rows
    validation: Rows
    test: Rows
    shape: tuple[int, int, int]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.train.classes

    @classmethod
    def from_dataset(cls, dataset: Dataset, device: torch.device) -> Splits:
        """The data set, moved to the device as it is."""
        train, validation, test = (Rows.from_dataset(dataset, split, device) for split in SPLITS)
        return cls(train, validation, test, dataset.shape)


@torch.no_grad()
def evaluate(network: nn.Module, rows: Rows) -> tuple[Tensor, float]:
    """Which rows the network classifies correctly, (n,) bool on the CPU, and its mean cross-entropy."""
    network.eval()
    correct, loss = [], torch.zeros((), dtype=torch.float64, device=rows.labels.device)
    for images, labels in zip(*(torch.split(t, EVALUATION_BATCH) for t in (rows.images, rows.labels)), strict=True):
        logits = network(images)
        correct.append(logits.argmax(1) == labels)
        loss += functional.cross_entropy(logits.double(), labels, reduction="sum")
    return torch.cat(correct).cpu(), float(loss) / len(rows)


def per_class_accuracy(correct: Tensor, rows: Rows) -> dict[str, Any]:
    """Test accuracy over all rows and by class (None for a class without rows), for a network's card."""
    labels = rows.labels.cpu()
    classes = [correct[labels == label] for label in range(rows.classes)]
    return {
        "test_accuracy": float(correct.double().mean()),
        "test_accuracy_per_class": [float(members.double().mean()) if len(members) else None for members in classes],
    }
