"""Cached fields as tensors: what a student, or a loop of one's own, reads."""

import torch

from pipeline.cache import Cache
from pipeline.fields.batches import CachedBatches
from pipeline.fields.rows import CachedRows

__all__ = ["load_field"]


def load_field(cache: Cache, device: torch.device) -> CachedRows | CachedBatches:
    """Load a cached field, whole, onto the device.

    Raises:
        InputError: the arrays hold something else than such a field does.
    """
    kind = CachedRows if cache.manifest.unit == "sample" else CachedBatches
    return kind.from_cache(cache, device)
