"""The batches of a training: rows gathered by index on the device, in an order, as their views show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from pipeline.training.rows import Rows
from pipeline.training.sample_order import Order
from pipeline.views.view import PLAIN, Views


@dataclass(frozen=True)
class Batch:
    """What one step trains on.

    Attributes:
        ids: sample ids (B,).
        views: which view of each (B,).
        images, labels: (B, C, H, W) uint8 and (B,).
        epoch, number: which step of which epoch, both from 0.
        peers: logits (K - 1, B, classes) of the other networks of a cohort, where it learns from them.
    """

    ids: Tensor
    views: Tensor
    images: Tensor
    labels: Tensor
    epoch: int
    number: int
    peers: Tensor | None = None


def iterate_batches(
    train: Rows, order: Order, batch_size: int, steps: int, epoch: int, *, views: Views = PLAIN
) -> Iterator[Batch]:
    """The first `steps` batches of an epoch, in the given order."""
    ids = order.ids(epoch).to(train.labels.device)[: steps * batch_size]
    shown = views.epoch_views(ids, epoch)
    # Drawn for the whole epoch at once: in every step it would be a hundred tiny operations.
    words = None if views.is_identity else views.words(ids, shown)
    for number, first in enumerate(range(0, len(ids), batch_size)):
        part = slice(first, first + batch_size)
        images = train.images.index_select(0, ids[part])
        if words is not None:
            images = views.apply(images, words[part])
        yield Batch(ids[part], shown[part], images, train.labels.index_select(0, ids[part]), epoch, number)
