"""Pad, crop to the old size, mirror: what CIFAR networks are trained with (He et al. 2016)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.views.counter_random import bernoulli, uniform_integers
from pipeline.views.mirror import mirror


def crop_flip(
    images: Tensor,
    words: Tensor,
    *,
    padding: PositiveInt = 4,
    fill: Literal["zero", "reflect"] = "zero",
    flip: bool = True,
) -> Tensor:
    """Each image padded, cropped to its old size at a random place, and mirrored with probability 1/2.

    Args:
        images: (B, C, H, W) uint8.
        words: (B, 8) int64 in [0, 2^32), of which words 0 (mirror), 1 (top) and 2 (left) are read.
        padding: pixels on each of the four sides.
        fill: what the padding holds: zeros, or the image mirrored at its outermost pixels.
        flip: whether to mirror at all.

    Returns:
        (B, C, H, W) uint8, the same pixels on every device.

    Raises:
        InputError: `reflect` would need pixels beyond the image's other side.
    """
    _, channels, height, width = images.shape
    if fill == "reflect" and padding >= min(height, width):
        raise InputError(
            "crop_flip: padding",
            expected=f"less than the images' size {height} x {width} (fill: reflect)",
            found=str(padding),
            fix="pad by less, or with fill: zero",
        )
    rows = _draw_window(words[:, 1], height, padding)  # (B, H)
    columns = _draw_window(words[:, 2], width, padding)  # (B, W)
    if flip:
        columns = mirror(columns, bernoulli(words[:, 0], 0.5))
    from_rows, from_columns = (
        _reflect(places, size) if fill == "reflect" else places.clamp(0, size - 1)
        for places, size in ((rows, height), (columns, width))
    )
    pixels = (from_rows[:, :, None] * width + from_columns[:, None, :]).flatten(1)  # (B, H * W)
    cropped = images.flatten(2).gather(2, pixels[:, None].expand(-1, channels, -1)).view(images.shape)
    if fill == "reflect":
        return cropped
    inside = _is_inside(rows, height)[:, :, None] & _is_inside(columns, width)[:, None, :]  # (B, H, W)
    return cropped * inside[:, None]


def _draw_window(word: Tensor, size: int, padding: int) -> Tensor:
    """The places (B, size), from -padding to size - 1 + padding, that the crop takes along one side."""
    start = uniform_integers(word, 2 * padding + 1) - padding
    return start[:, None] + torch.arange(size, device=word.device)


def _reflect(places: Tensor, size: int) -> Tensor:
    """Places beyond an end, folded back at it; the outermost pixel is not repeated."""
    return size - 1 - (size - 1 - places.abs()).abs()


def _is_inside(places: Tensor, size: int) -> Tensor:
    return (places >= 0) & (places < size)
