"""Samples with what their teachers said of them, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import data

from pipeline.base.errors import InputError
from pipeline.cache import Cache
from pipeline.datasets.dataset import Dataset, gather_images
from pipeline.views.view import PLAIN, Views


class CachedDataset(data.Dataset[tuple[Tensor, int, dict[str, Any]]]):
    """Training samples with what their teachers said of them, for a `torch.utils.data.DataLoader`.

    Sample i is (image (C, H, W) uint8, label, fields): the image as the epoch's view shows it, and
    by cache name the rows of that very view (by array name, where a field has several).

    Args:
        dataset: the prepared data set (`pipeline.datasets.dataset.load_dataset`).
        caches: opened, by any name.
        views: the augmentation that the caches were made with; theirs unless given, each epoch showing the
            next view of all samples.

    Raises:
        InputError: a cache of other data, or of other views than the first one's or those given.
    """

    def __init__(self, dataset: Dataset, caches: Mapping[str, Cache], views: Views | None = None) -> None:
        first = next(iter(caches), None)
        for name, cache in caches.items():
            _refuse_other_samples(name, cache, dataset)
            if views is None:
                views = Views.from_cache(cache)
            found = cache.manifest.views.model_dump()
            if found != views.parameters:
                others = name != first and caches[str(first)].manifest.views.model_dump() == views.parameters
                raise InputError(
                    f"cache {name!r}: views",
                    expected=f"those of cache {first!r}, {views.parameters}" if others else str(views.parameters),
                    found=str(found),
                    fix="read caches of other views in a CachedDataset of their own"
                    if others
                    else "leave `views` out, or give `Views.from_cache(cache)`",
                )
        views = views or PLAIN
        self.dataset, self.caches, self.views = dataset, dict(caches), views
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]  # workers that live on see it too

    def set_epoch(self, epoch: int) -> None:
        """From the next iteration on, show the views of this epoch."""
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return self.dataset.bounds[0]

    def __getitem__(self, index: int) -> tuple[Tensor, int, dict[str, Any]]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int, dict[str, Any]]]:
        """A whole batch at once: loaders ask for it, and it costs little more than one sample."""
        ids = torch.tensor(indices)
        if len(ids) and not (ids.min() >= 0 and ids.max() < len(self)):
            raise IndexError(f"sample ids {ids.min()} to {ids.max()} of {len(self)}")
        views = self.views.epoch_views(ids, int(self.epoch))
        images = torch.from_numpy(gather_images(self.dataset.images, ids.numpy()))
        if not self.views.is_identity:
            images = self.views.apply(images, self.views.words(ids, views))
        fields = [_split_rows(self._rows(cache, ids, views)) for cache in self.caches.values()]
        labels = self.dataset.labels[indices].tolist()
        samples = zip(images.unbind(), labels, *fields, strict=True)
        return [(image, label, dict(zip(self.caches, rows, strict=True))) for image, label, *rows in samples]

    def _rows(self, cache: Cache, ids: Tensor, views: Tensor) -> dict[str, Tensor]:
        arrays = cache.manifest.arrays
        return {name: torch.from_numpy(cache.rows(ids.numpy(), views.numpy(), name)) for name in arrays}


def _refuse_other_samples(name: str, cache: Cache, dataset: Dataset) -> None:
    """Raise InputError for a cache whose rows are not of this data set's samples."""
    manifest = cache.manifest
    if manifest.unit != "sample":
        raise InputError(
            f"cache {name!r}",
            expected="a field of samples",
            found=f"{manifest.field.name}, a field of the batches of a plan",
            fix="read it with `pipeline.fields.batches.CachedBatches`",
        )
    if manifest.dataset.fingerprint != dataset.fingerprint:
        raise InputError(
            f"cache {name!r}: data set",
            expected=f"{dataset.name} ({dataset.fingerprint[:12]})",
            found=f"{manifest.dataset.name} ({manifest.dataset.fingerprint[:12]})",
        )


def _split_rows(arrays: Mapping[str, Tensor]) -> list[Any]:
    """Of each sample its row; by array name, where there are several. (`unbind` is a tenth of indexing one by one.)"""
    rows = {name: values.unbind() for name, values in arrays.items()}
    if len(rows) == 1:
        return list(next(iter(rows.values())))
    return [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
