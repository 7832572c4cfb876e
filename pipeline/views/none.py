"""No augmentation."""

from __future__ import annotations

from torch import Tensor


def none(images: Tensor, words: Tensor) -> Tensor:
    """The images themselves, (B, C, H, W) uint8."""
    return images
