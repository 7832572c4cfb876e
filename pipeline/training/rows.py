"""A prepared data set as a training reads it, and how well a network does on it."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.base.memory import find_budget
from pipeline.base.ranks import ALONE, Ranks
from pipeline.datasets.dataset import SPLITS, Dataset, ImagesFile, Split
from pipeline.training.feeder import Arrays, BatchKeys, feed, split_batches
from pipeline.training.memory import IMAGES, Source, plan_memory

EVALUATION_BATCH = 1000  # images of a batch of an evaluation, and no more bytes of them, as floats, than
EVALUATION_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Images of one split that stay in their file; see `feeder.Stream`.

    Attributes:
        file: all images of the data set.
        start, stop: the rows of this split, [start, stop).
        device: where they are wanted.
    """

    file: ImagesFile
    start: int
    stop: int
    device: torch.device

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """A few images (n, C, H, W) on the device."""
        ids = np.arange(len(self))[rows] if isinstance(rows, slice) else rows.cpu().numpy()
        return torch.from_numpy(self.file.gather(ids + self.start)).to(self.device)

    def gather(self, batches: Sequence[BatchKeys]) -> list[Arrays]:
        ids = np.concatenate([batch.ids for batch in batches]) + self.start
        in_order = bool((np.diff(ids) == 1).all())  # of an evaluation: read along, not picked
        images = self.file[int(ids[0]) : int(ids[-1]) + 1] if in_order else self.file.gather(ids)
        return [{IMAGES: part} for part in split_batches(images, batches)]

    def count_bytes(self, samples: int) -> int:
        return samples * math.prod(self.file.shape[1:])

    def release_pages(self) -> None:
        self.file.release_pages()


@dataclass(frozen=True)
class Rows:
    """Images and labels of one split.

    Attributes:
        images: (n, C, H, W) uint8, on the device or streamed to it.
        labels: (n,) int64 on the device, below `classes`.
    """

    images: Tensor | StreamedImages
    labels: Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return tuple((self.images if isinstance(self.images, Tensor) else self.images.file).shape[1:])

    def batches(self, size: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Images and labels in their order, so many at a time, on the device."""
        labels = torch.split(self.labels, size)
        if isinstance(self.images, Tensor):
            yield from zip(torch.split(self.images, size), labels, strict=True)
            return
        ids = np.split(np.arange(len(self)), range(size, len(self), size))
        keys = [BatchKeys(part, np.zeros_like(part), 0, number) for number, part in enumerate(ids)]
        with closing(feed([self.images], keys, self.labels.device)) as fed:
            yield from ((rows[self.images][IMAGES], part) for rows, part in zip(fed, labels, strict=True))

    @classmethod
    def from_dataset(cls, dataset: Dataset, split: Split, device: torch.device, *, streamed: bool = False) -> Rows:
        """A split of a data set: labels on the device, images there too or where they lie on disk."""
        rows = dataset.rows(split)
        labels = torch.from_numpy(dataset.labels[rows]).to(device)
        if not streamed:
            return cls(torch.from_numpy(dataset.images[rows]).to(device), labels, len(dataset.classes))
        assert isinstance(dataset.images, ImagesFile)
        return cls(StreamedImages(dataset.images, rows.start, rows.stop, device), labels, len(dataset.classes))


@dataclass(frozen=True)
class Splits:
    """A prepared data set as a training reads it.

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
    def from_dataset(cls, dataset: Dataset, device: torch.device, *, streamed: bool = False) -> Splits:
        """The data set; `streamed` leaves its images on disk."""
        train, validation, test = (Rows.from_dataset(dataset, split, device, streamed=streamed) for split in SPLITS)
        return cls(train, validation, test, dataset.shape)


def measure_images(dataset: Dataset, batch_size: int) -> Source:
    """What the images of a data set take, for `plan_memory`."""
    count, *shape = dataset.images.shape
    largest = max(batch_size, min(count_evaluation_batch(shape), count - dataset.bounds[0]))
    return Source(IMAGES, count * math.prod(shape), min(count, largest) * math.prod(shape))


def load_splits(dataset: Dataset, batch_size: int, device: torch.device, memory: str | int | None) -> Splits:
    """A data set that is trained on without any cached field; nothing that is trained depends on where it lies.

    Args:
        dataset: opened with `resident=False`.
        batch_size: of the training.
        device: where it happens.
        memory: see `base.memory.find_budget`.

    Raises:
        InputError: too little memory for one batch.
    """
    images = measure_images(dataset, batch_size)
    return Splits.from_dataset(dataset, device, streamed=bool(plan_memory([images], find_budget(memory, device))))


def count_evaluation_batch(shape: Sequence[int]) -> int:
    """Images (C, H, W) of a batch of an evaluation.

    By their size alone: the last bits of a loss depend on it, and no result may depend on a machine's memory.
    """
    return max(1, min(EVALUATION_BATCH, EVALUATION_BYTES // (4 * math.prod(shape))))


@torch.no_grad()
def evaluate(network: nn.Module, rows: Rows, ranks: Ranks = ALONE) -> tuple[Tensor, float]:
    """Which rows the network classifies correctly, (n,) bool on the CPU, and its mean cross-entropy.

    Args:
        network: in whatever mode; it is left in evaluation mode.
        rows: at least one.
        ranks: the processes that share the batches out; all have the result.
    """
    network.eval()
    correct: dict[int, Tensor] = {}
    loss = torch.zeros((), dtype=torch.float64, device=rows.labels.device)
    with closing(rows.batches(count_evaluation_batch(rows.image_shape))) as batches:
        for number, (images, labels) in enumerate(batches):
            if number % ranks.count == ranks.number:
                logits = network(images)
                correct[number] = logits.argmax(1) == labels
                loss += functional.cross_entropy(logits.double(), labels, reduction="sum")
    parts = ranks.exchange(({number: right.cpu() for number, right in correct.items()}, float(loss)))
    right = {number: each for part, _ in parts for number, each in part.items()}
    return torch.cat([right[number] for number in sorted(right)]), sum(total for _, total in parts) / len(rows)


def per_class_accuracy(correct: Tensor, rows: Rows) -> dict[str, Any]:
    """Test accuracy over all rows and by class (None for a class without rows), for a network's card."""
    labels = rows.labels.cpu()
    classes = [correct[labels == label] for label in range(rows.classes)]
    return {
        "test_accuracy": float(correct.double().mean()),
        "test_accuracy_per_class": [float(members.double().mean()) if len(members) else None for members in classes],
    }
