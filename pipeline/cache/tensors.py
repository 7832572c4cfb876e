"""Arrays as tensors: the one place of the cache that knows torch."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray


def as_tensor(values: NDArray[Any], dtype: str) -> torch.Tensor:
    """An array as a tensor over the same memory; uint16 bits of bfloat16 become that."""
    tensor = torch.from_numpy(values)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor
