"""A cached field of a batch plan, on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.cache import Cache
from pipeline.training.batch_plan import Last, count_batches, make_batch_plan

if TYPE_CHECKING:
    from pipeline.training.batches import Batch

ROUNDING = 0.01  # of the sum of a batch's probabilities, in float16


class BatchPlan(BaseModel):
    """The batch plan that a manifest's parameters describe."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    batch_size: Annotated[int, Field(ge=2)]
    plans: PositiveInt
    shuffle: bool
    plan_seed: NonNegativeInt
    last: Last

    def shape(self, samples: int) -> tuple[int, int, int]:
        """Of its sample ids: (plans, batches, n)."""
        return self.plans, count_batches(samples, self.batch_size, self.last), self.batch_size

    def sample_ids(self, samples: int) -> Tensor:
        """(plans, batches, n) int64; see `pipeline.training.batch_plan.make_batch_plan`."""
        how: Mapping[str, Any] = {"plans": self.plans, "shuffle": self.shuffle, "seed": self.plan_seed}
        return torch.from_numpy(make_batch_plan(samples, self.batch_size, last=self.last, **how))


@dataclass(frozen=True)
class CachedBatches:
    """Joint probabilities that lie whole on the device.

    Attributes:
        triangles: (plans, batches, n(n-1)/2) as stored: m(m-1) p_ij of the upper triangle of m samples.
        plans: the sample ids (plans, batches, n) of the only batches that they are of, in memory.
        places: (n, n) int64, where each pair stands in a triangle.
    """

    triangles: Tensor
    plans: Tensor
    places: Tensor

    def target(self, batch: Batch) -> Tensor:
        """P (m, m) of a batch of the plan; see `matrix`."""
        return self.matrix(batch.epoch % len(self.plans), batch.number, len(batch.ids))

    def matrix(self, plan: int, number: int, m: int) -> Tensor:
        """P (m, m) float32 of a batch of m samples: symmetric, zero diagonal, sum 1."""
        return expand_triangle(self.triangles[plan, number], self.places, m)

    @classmethod
    def from_cache(cls, cache: Cache, device: torch.device) -> CachedBatches:
        """The arrays of an affinities cache, moved to the device as they are.

        Raises:
            InputError: other arrays than its parameters describe, another batch plan, or numbers that
                are no probabilities.
        """
        ids = read_plan_ids(cache)
        triangles = cache.tensor("p", device)
        refuse_other_sums(cache, triangles, ids)
        return cls(triangles, ids, locate_pairs(ids.shape[2]).to(device))


def locate_pairs(n: int) -> Tensor:
    """(n, n) int64, where each pair of n samples stands in a triangle."""
    places = torch.zeros((n, n), dtype=torch.int64)
    upper = torch.triu_indices(n, n, 1)
    places[upper[0], upper[1]] = torch.arange(n * (n - 1) // 2)
    return places + places.T


def expand_triangle(triangle: Tensor, places: Tensor, m: int) -> Tensor:
    """P (m, m) float32 of a stored triangle (n(n-1)/2,) of m samples, see `CachedBatches`."""
    scaled = triangle.to(torch.float32) / max(1, m * (m - 1))
    return scaled[places[:m, :m]].fill_diagonal_(0.0)


def read_plan_ids(cache: Cache) -> Tensor:
    """The sample ids (plans, batches, n) of an affinities cache.

    Raises:
        InputError: other arrays than its parameters describe, or another batch plan.
    """
    plan, samples = _read_plan(cache), cache.manifest.dataset.bounds[0]
    shapes = {name: tuple(info.shape) for name, info in cache.manifest.arrays.items()}
    *leading, n = plan.shape(samples)
    if shapes != {"p": (*leading, n * (n - 1) // 2), "sample_ids": (*leading, n)}:
        _refuse_content(cache, "arrays", f"p and sample_ids of {leading[0]} plans, {leading[1]} batches of {n}")
    ids = plan.sample_ids(samples)
    if not torch.equal(cache.tensor("sample_ids"), ids):
        _refuse_content(cache, "array 'sample_ids'", "the batch plan that its parameters describe")
    return ids


def refuse_other_sums(cache: Cache, triangles: Tensor, ids: Tensor) -> None:
    """Raise InputError unless triangles (..., n(n-1)/2) hold the probabilities of batches of these ids (..., n)."""
    real = (ids >= 0).sum(-1).to(triangles.device)
    sums = triangles.sum(-1, dtype=torch.float64) / (real * (real - 1) / 2).clamp(min=1)
    alone = real < 2
    if not bool((triangles >= 0).all() & ((sums - 1).abs() < ROUNDING).logical_or(alone).all()):
        _refuse_content(cache, "array 'p'", "probabilities of pairs, whose sum is 1 in each batch")


def _read_plan(cache: Cache) -> BatchPlan:
    try:
        return BatchPlan.model_validate(cache.manifest.field.parameters)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        found = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    what = f"cache {cache.folder.name}: parameters"
    raise InputError(what, expected="those of a batch plan", found=found, fix=cache.fix)


def _refuse_content(cache: Cache, what: str, expected: str) -> None:
    raise InputError(f"cache {cache.folder.name}: {what}", expected=expected, found="others", fix=cache.fix)
