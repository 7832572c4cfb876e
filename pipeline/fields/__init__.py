"""Cached fields as tensors: what a student, or a loop of one's own, reads."""

import torch

from pipeline.cache import Cache
from pipeline.fields.batches import CachedBatches
from pipeline.fields.rows import CachedRows
from pipeline.fields.streamed import StreamedBatches, StreamedRows
from pipeline.training.memory import Source

__all__ = ["load_field", "measure_field"]


def load_field(
    cache: Cache, device: torch.device, *, streamed: bool = False
) -> CachedRows | CachedBatches | StreamedRows | StreamedBatches:
    """Load a cached field, whole, onto the device; or leave it on disk, to be streamed to the device.

    Raises:
        InputError: the arrays hold something else than such a field does.
    """
    if cache.manifest.unit == "sample":
        return StreamedRows.from_cache(cache) if streamed else CachedRows.from_cache(cache, device)
    return StreamedBatches.from_cache(cache, device) if streamed else CachedBatches.from_cache(cache, device)


def measure_field(name: str, cache: Cache, batch_size: int) -> Source:
    """What a cached field takes, for `plan_memory`, under a name for people."""
    arrays = cache.manifest.arrays.values()
    rows = batch_size if cache.manifest.unit == "sample" else 1
    return Source(name, sum(info.bytes for info in arrays), rows * sum(info.row_bytes for info in arrays))
