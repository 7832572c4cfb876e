"""Mirroring left-right, image by image."""

from __future__ import annotations

import torch
from torch import Tensor


def mirror(images: Tensor, chosen: Tensor) -> Tensor:
    """The images, those chosen mirrored left-right.

    Args:
        images: (B, ..., W), of any type: pixels, or the columns that they are taken from.
        chosen: (B,) bool.
    """
    return torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), images.flip(-1), images)
