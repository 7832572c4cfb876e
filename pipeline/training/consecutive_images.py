"""Images in the order of their ids, a fixed number at a time, as a view shows them, read ahead."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.datasets.dataset import Images
from pipeline.training.feeder import Arrays, BatchKeys, feed, split_batches
from pipeline.training.memory import IMAGES
from pipeline.views.view import Views

WORDS_BATCHES = 16  # whose random words are drawn together: for each alone it would be a hundred tiny operations


@dataclass(frozen=True, eq=False)
class _ConsecutiveImages:
    """Images of batches whose ids are consecutive; see `feeder.Stream`."""

    images: Images

    def gather(self, batches: Sequence[BatchKeys]) -> list[Arrays]:
        images = self.images[int(batches[0].ids[0]) : int(batches[-1].ids[-1]) + 1]
        return [{IMAGES: part} for part in split_batches(images, batches)]

    def count_bytes(self, samples: int) -> int:
        return samples * math.prod(self.images.shape[1:])

    def release_pages(self) -> None:
        """Nothing: what is read along is copied, and not kept mapped."""


def show_images(
    images: Images, views: Views, *, view: int, ids: range, device: torch.device
) -> Generator[Tensor, None, None]:
    """One view of consecutive images on a device, so many at a time, (step or fewer, C, H, W) uint8.

    Args:
        images: all of them.
        views: how they are shown.
        view: which of these.
        ids: of the images; its step is their number in a batch.
        device: where they are wanted.
    """
    size = ids.step
    every = np.arange(ids.start, ids.stop)
    parts = [every[first : first + size] for first in range(0, len(every), size)]
    keys = [BatchKeys(part, np.broadcast_to(np.int64(view), len(part)), 0, number) for number, part in enumerate(parts)]
    stream = _ConsecutiveImages(images)
    with closing(feed([stream], keys, device)) as fed:
        for number, batch in enumerate(fed):
            place = number % WORDS_BATCHES
            if not place:
                words = _draw_words(views, keys[number : number + WORDS_BATCHES], device)
            rows = batch[stream][IMAGES]
            yield rows if words is None else views.apply(rows, words[place * size :][: len(rows)])


def _draw_words(views: Views, batches: Sequence[BatchKeys], device: torch.device) -> Tensor | None:
    """The random words of some batches, one behind the other; None where the images stay as they are."""
    if views.is_identity:
        return None
    ids = torch.arange(int(batches[0].ids[0]), int(batches[-1].ids[-1]) + 1, device=device)
    return views.words(ids, torch.full_like(ids, int(batches[0].views[0])))
