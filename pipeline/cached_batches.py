"""A cached field of a batch plan, on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.cache import Cache
from pipeline.cached import CachedRows
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.training import Batch


def on_device(cache: Cache, device: torch.device) -> CachedRows | CachedBatches:
    """A cached field, whole on the device."""
    kind = CachedRows if cache.manifest.axes == "view, sample" else CachedBatches
    return kind.of(cache, device)


@dataclass(frozen=True)
class CachedBatches:
    """Joint probabilities that lie whole on the device.

    Attributes:
        triangles: (plans, batches, n(n-1)/2) as stored: n(n-1) p_ij of the upper triangle.
        plans: the sample ids (plans, batches, n) of the only batches that they are of, in memory.
        places: (n, n) int64, where each pair stands in a triangle.
    """

    triangles: Tensor
    plans: Tensor
    places: Tensor

    def target(self, batch: Batch) -> Tensor:
        """P (n, n) float32 of a batch of the plan: symmetric, zero diagonal, sum 1."""
        n, real = len(self.places), len(batch.ids)
        triangle = self.triangles[batch.epoch % len(self.plans), batch.number].to(torch.float32) / (n * (n - 1))
        return triangle[self.places[:real, :real]].fill_diagonal_(0.0)

    @classmethod
    def of(cls, cache: Cache, device: torch.device) -> CachedBatches:
        """The arrays of an affinities cache, moved to the device as they are.

        Raises:
            InputError: numbers that are no probabilities, or ids that are no batch plan.
        """
        triangles, plans = cache.tensor("p", device), cache.tensor("sample_ids")
        n = plans.shape[2]
        if not bool((triangles.isfinite() & (triangles >= 0)).all()):
            _refuse(cache, "p", "finite numbers from 0")
        if not _is_plan(plans, cache.manifest.dataset.bounds[0]):
            _refuse(cache, "sample_ids", "different training samples in each batch, only the last one short")
        if triangles.shape[:2] != plans.shape[:2]:
            _refuse(cache, "p", f"{plans.shape[0]} plans of {plans.shape[1]} batches")
        places = torch.zeros((n, n), dtype=torch.int64)
        upper = torch.triu_indices(n, n, 1)
        places[upper[0], upper[1]] = torch.arange(triangles.shape[2])
        return cls(triangles, plans, (places + places.T).to(device))


def _is_plan(plans: Tensor, samples: int) -> bool:
    """Whether these are batches of different samples, with -1 at the end of the last batches alone."""
    rows = plans.flatten(1)
    there = rows >= 0
    sizes = there.sum(1)
    whole = torch.arange(rows.shape[1])[None] < sizes[:, None]
    short = rows.shape[1] - int(sizes[0])
    ordered = plans.sort(2).values
    twice = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)
    return (
        bool((rows >= -1).all())
        and bool((rows < samples).all())
        and torch.equal(there, whole)
        and bool((sizes == sizes[0]).all())
        and short < plans.shape[2]
        and not bool(twice.any())
    )


def _refuse(cache: Cache, array: str, expected: str) -> None:
    raise InputError(f"cache {cache.folder.name}: array {array!r}", expected=expected, found="others", fix=cache.fix)
