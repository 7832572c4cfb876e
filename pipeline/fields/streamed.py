"""Cached fields that stay on disk: their rows are gathered for each batch, from memory maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from pipeline.cache import Cache
from pipeline.fields.batches import expand_triangle, locate_pairs, read_plan_ids, refuse_other_sums
from pipeline.fields.checked_values import check_once, iterate_pieces
from pipeline.fields.rows import Target, make_target, refuse_other_numbers
from pipeline.training.feeder import Arrays, BatchKeys, split_batches

if TYPE_CHECKING:
    from pipeline.training.batches import Batch


@dataclass(frozen=True, eq=False)
class StreamedRows:
    """A cached field with a row for each sample, a `feeder.Stream`: the same targets as of `CachedRows`."""

    cache: Cache

    plans: ClassVar[None] = None  # it answers for any batch

    def target(self, batch: Batch) -> Target:
        """The rows of a batch's samples, each as its view shows it."""
        return make_target(batch.read(self))

    def gather(self, batches: Sequence[BatchKeys]) -> list[Arrays]:
        ids, views = (np.concatenate([getattr(batch, key) for batch in batches]) for key in ("ids", "views"))
        found = {}
        for name, info in self.cache.manifest.arrays.items():
            rows = self.cache.rows(ids, 0 if info.shape[0] == 1 else views, name)
            found[name] = split_batches(rows, batches)
        return [{name: rows[number] for name, rows in found.items()} for number in range(len(batches))]

    def count_bytes(self, samples: int) -> int:
        return samples * sum(info.row_bytes for info in self.cache.manifest.arrays.values())

    def release_pages(self) -> None:
        self.cache.release_pages()

    @classmethod
    def from_cache(cls, cache: Cache) -> StreamedRows:
        """The rows of a cache, all of them looked at once.

        Raises:
            InputError: see `CachedRows.from_cache`.
        """

        def check() -> None:
            for name in cache.manifest.arrays:
                for _, _, rows in iterate_pieces(cache, name):
                    refuse_other_numbers(cache, name, rows)

        check_once(cache, check)
        return cls(cache)


@dataclass(frozen=True, eq=False)
class StreamedBatches:
    """Joint probabilities of a batch plan, a `feeder.Stream`: the same targets as of `CachedBatches`.

    Attributes:
        cache: with the triangles.
        plans, places: see `CachedBatches`.
    """

    cache: Cache
    plans: Tensor
    places: Tensor

    def target(self, batch: Batch) -> Tensor:
        """P (m, m) of a batch of the plan; see `CachedBatches.matrix`."""
        return expand_triangle(batch.read(self)["p"][0], self.places, len(batch.ids))

    def gather(self, batches: Sequence[BatchKeys]) -> list[Arrays]:
        numbers = np.array([batch.number for batch in batches])
        plans = np.array([batch.epoch % len(self.plans) for batch in batches])
        rows = self.cache.rows(numbers, plans, "p")
        return [{"p": rows[place : place + 1]} for place in range(len(batches))]

    def count_bytes(self, samples: int) -> int:  # noqa: ARG002 - a triangle is as large for a short batch
        return self.cache.manifest.arrays["p"].row_bytes

    def release_pages(self) -> None:
        self.cache.release_pages()

    @classmethod
    def from_cache(cls, cache: Cache, device: torch.device) -> StreamedBatches:
        """The triangles of an affinities cache, all of them looked at once.

        Raises:
            InputError: see `CachedBatches.from_cache`.
        """
        ids = read_plan_ids(cache)

        def check() -> None:
            for plan, rows, triangles in iterate_pieces(cache, "p"):
                refuse_other_sums(cache, triangles, ids[plan, rows])

        check_once(cache, check)
        return cls(cache, ids, locate_pairs(ids.shape[2]).to(device))
