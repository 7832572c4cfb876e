"""Mirror images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from pipeline.views.counter_random import bernoulli
from pipeline.views.mirror import mirror


def flip(images: Tensor, words: Tensor, *, probability: Annotated[float, Field(ge=0, le=1)] = 0.5) -> Tensor:
    """The images, (B, C, H, W) uint8, some mirrored left-right.

    Args:
        images: (B, C, H, W) uint8.
        words: (B, 8) int64 in [0, 2^32), of which word 0 is read.
        probability: of being mirrored.
    """
    return mirror(images, bernoulli(words[:, 0], probability))
