"""The batches of a training: rows picked by index on the device, or fed to it, in order, as their views show them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from pipeline.training.feeder import BatchKeys, Fed, Stream, Tensors, feed, fetch
from pipeline.training.memory import IMAGES
from pipeline.training.rows import Rows, StreamedImages
from pipeline.views.view import PLAIN, Views


@dataclass(frozen=True)
class Batch:
    """What one step trains on.

    Attributes:
        ids: sample ids (B,).
        views: which view of each (B,).
        images, labels: (B, C, H, W) uint8 and (B,).
        epoch, number: which step of which epoch, both from 0.
        peers: logits (K - 1, B, classes) of the other networks that learn from each other.
        fed: by stream, its rows, where they were gathered ahead.
    """

    ids: Tensor
    views: Tensor
    images: Tensor
    labels: Tensor
    epoch: int
    number: int
    peers: Tensor | None = None
    fed: Fed = field(default_factory=dict)

    def read(self, stream: Stream) -> Tensors:
        """A stream's rows, on the device; they are gathered now where they were not ahead."""
        return self.fed[stream] if stream in self.fed else fetch(stream, self.keys(), self.ids.device)

    def keys(self) -> BatchKeys:
        """Which rows it is of, for streams."""
        return BatchKeys(self.ids.cpu().numpy(), self.views.cpu().numpy(), self.epoch, self.number)


def iterate_batches(
    train: Rows,
    ids: Tensor,
    batch_size: int,
    steps: int,
    epoch: int,
    *,
    views: Views = PLAIN,
    streams: Sequence[Stream] = (),
) -> Generator[Batch, None, None]:
    """The first `steps` batches of an epoch, in the given order.

    Args:
        train: all training rows.
        ids: sample ids in their order, (n,) int64; or (K, n), of K runs whose batches come together, the rows of one
            run behind those of the other.
        batch_size, steps, epoch: which of them.
        views: augments the images.
        streams: whose rows are gathered ahead, beside images that stay on disk.
    """
    ids, parts = _cut_batches(ids.to(train.labels.device)[..., : steps * batch_size], batch_size)
    shown = views.epoch_views(ids, epoch)
    # Drawn for the whole epoch at once: in every step it would be a hundred tiny operations.
    words = None if views.is_identity else views.words(ids, shown)
    if isinstance(train.images, StreamedImages):
        streams = [train.images, *streams]
    keys = _list_keys(ids, shown, parts, epoch) if streams else []
    with closing(feed(streams, keys, ids.device)) as feeder:
        for number, (part, fed) in enumerate(zip(parts, feeder, strict=False)):
            images = _pick_images(train.images, ids[part], fed)
            if words is not None:
                images = views.apply(images, words[part])
            labels = train.labels.index_select(0, ids[part])
            yield Batch(ids[part], shown[part], images, labels, epoch, number, fed=fed)


def _cut_batches(ids: Tensor, batch_size: int) -> tuple[Tensor, list[slice]]:
    """The ids (rows,) of all batches, one behind the other, and where each of them is."""
    cut = [part.flatten() for part in torch.split(ids, batch_size, dim=-1)]
    ends = list(accumulate(map(len, cut), initial=0))
    return torch.cat(cut) if cut else ids.flatten(), [slice(*pair) for pair in pairwise(ends)]


def _pick_images(images: Tensor | StreamedImages, ids: Tensor, fed: Fed) -> Tensor:
    """The images of a batch, wherever they come from."""
    return images.index_select(0, ids) if isinstance(images, Tensor) else fed[images][IMAGES]


def _list_keys(ids: Tensor, shown: Tensor, parts: Sequence[slice], epoch: int) -> list[BatchKeys]:
    """Which rows each batch of an epoch is of."""
    on_disk, views = ids.cpu().numpy(), shown.cpu().numpy()
    return [BatchKeys(on_disk[part], views[part], epoch, number) for number, part in enumerate(parts)]
