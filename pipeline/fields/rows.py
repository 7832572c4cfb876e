"""A cached field with a row for each sample, on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.cache import Cache

if TYPE_CHECKING:
    from pipeline.training.batches import Batch

PIECE = 1 << 24  # numbers that are looked at together: of all at once, the answers would take several times their room

# The rows of a cached field for one batch: a tensor, or several by name where a field has several.
Target = Tensor | Mapping[str, Tensor]


@dataclass(frozen=True)
class CachedRows:
    """A cached field that lies whole on the device.

    Attributes:
        arrays: by name, (views, samples, ...) as stored.
    """

    arrays: Mapping[str, Tensor]

    plans: ClassVar[None] = None  # it answers for any batch

    def target(self, batch: Batch) -> Target:
        """The rows of a batch's samples, each as its view shows it."""
        return self.rows(batch.ids, batch.views)

    def rows(self, ids: Tensor, views: Tensor) -> Target:
        """The rows (n, ...) of sample ids (n,), each of its view (n,), floats as float32."""
        picked = {}
        for name, values in self.arrays.items():
            count, samples = values.shape[:2]
            place = ids if count == 1 else views * samples + ids
            picked[name] = values.reshape(count * samples, *values.shape[2:]).index_select(0, place)
        return make_target(picked)

    @classmethod
    def from_cache(cls, cache: Cache, device: torch.device) -> CachedRows:
        """All arrays of a cache, moved to the device as they are.

        Raises:
            InputError: a number that is not finite, or an index that is no class.
        """
        arrays = {name: cache.tensor(name, device) for name in cache.manifest.arrays}
        for name, values in arrays.items():
            refuse_other_numbers(cache, name, values)
        return cls(arrays)


def make_target(arrays: Mapping[str, Tensor]) -> Target:
    """The rows of a field's arrays as a loss takes them, floats as float32."""
    widened = {name: rows.to(torch.float32) if rows.is_floating_point() else rows for name, rows in arrays.items()}
    return next(iter(widened.values())) if len(widened) == 1 else widened


def refuse_other_numbers(cache: Cache, name: str, values: Tensor) -> None:
    """Raise InputError for rows of an array with a number that is not finite, or an index that is no class."""
    classes = len(cache.manifest.dataset.classes)
    if values.is_floating_point():
        sound, expected = all(bool(piece.isfinite().all()) for piece in _cut(values)), "finite numbers"
    else:
        sound = name != "indices" or all(bool(((piece >= 0) & (piece < classes)).all()) for piece in _cut(values))
        expected = f"classes 0..{classes - 1}"
    if not sound:
        raise InputError(f"cache {cache.folder.name}: array {name!r}", expected=expected, found="others", fix=cache.fix)


def _cut(values: Tensor) -> tuple[Tensor, ...]:
    """All numbers, so many at a time."""
    return torch.split(values.flatten(), PIECE)
