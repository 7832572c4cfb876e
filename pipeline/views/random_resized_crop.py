"""A random part of the image, resized to the whole: what ImageNet networks are trained with
(Szegedy et al. 2015).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated

import torch
from pydantic import AfterValidator, Field, PositiveFloat
from torch import Tensor

from pipeline.base.errors import InputError
from pipeline.views.counter_random import bernoulli, uniform_integers
from pipeline.views.mirror import mirror

BITS = 16  # of the table of ratios
UNIT = 11  # bits of a neighbour's weight: two weights and a pixel fill 30 bits of an int32


def _check_order(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"expected the smaller number first, found {list(pair)}")
    return pair


Share = Annotated[float, Field(gt=0, le=1)]
Scale = Annotated[tuple[Share, Share], AfterValidator(_check_order)]
Ratio = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_check_order)]


def random_resized_crop(
    images: Tensor,
    words: Tensor,
    *,
    scale: Scale = (0.08, 1.0),
    ratio: Ratio = (3 / 4, 4 / 3),
    flip: bool = True,
) -> Tensor:
    """A random box of each image, resized (bilinear) to the image's size, and mirrored with probability 1/2.

    Args:
        images: (B, C, H, W) uint8.
        words: (B, 8) int64 in [0, 2^32), of which words 0 (mirror) and 1 to 4 (box) are read.
        scale: the least and the largest share of the image's area, at most 1.
        ratio: the least and the largest width / height of the box, in pixels.
        flip: whether to mirror at all.

    Returns:
        (B, C, H, W) uint8, the same pixels on every device.

    Raises:
        InputError: see `draw_boxes`.
    """
    height, width = images.shape[2:]
    patches = resize_boxes(images, draw_boxes(words, height, width, scale, ratio))
    return mirror(patches, bernoulli(words[:, 0], 0.5)) if flip else patches


def draw_boxes(
    words: Tensor, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Random boxes inside an image: (B, 4) int64 of top, left, height, width, the same on every device.

    The area is uniform in `scale` and the logarithm of the ratio in that of `ratio`. A side that comes
    out longer than the image's is cut to it, so that such a box is smaller than its area says:
    unlike torchvision's, which draws again, every box takes the same words.

    Args:
        words: (B, 5) or more, int64 in [0, 2^32): 1 is the area's, 2 the ratio's, 3 the top's, 4 the left's.
        height: of the image, in pixels.
        width: of the image, in pixels.
        scale: the least and the largest share of the image's area.
        ratio: the least and the largest width / height.

    Raises:
        InputError: a range is not in order, or not above 0, or a share is above 1.
    """
    for name, (low, high), limit in (("scale", scale, 1.0), ("ratio", ratio, math.inf)):
        if not 0 < low <= high <= limit:
            raise InputError(
                f"random_resized_crop: {name}", expected=f"0 < low <= high <= {limit}", found=str([low, high])
            )
    # Only what IEEE 754 rounds alike everywhere, and one operation a kernel, so that no compiler fuses two.
    share = words[:, 1].double() * 2.0**-32 * (scale[1] - scale[0]) + scale[0]
    area = share * (height * width)
    aspect = _aspects(*ratio, words.device)[words[:, 2] >> (32 - BITS)]
    tall = (area / aspect).sqrt().round().long().clamp(1, height)
    wide = (area * aspect).sqrt().round().long().clamp(1, width)
    top = uniform_integers(words[:, 3], height - tall + 1)
    left = uniform_integers(words[:, 4], width - wide + 1)
    return torch.stack([top, left, tall, wide], dim=1)


@cache
def _aspects(low: float, high: float, device: torch.device) -> Tensor:
    """The ratios low * (high / low) ** (i / 2^BITS) for i in range(2^BITS), float64.

    Made of square roots and products alone: no two libraries need to round a logarithm or a power alike.
    """
    made, root = torch.tensor([low], dtype=torch.float64), high / low
    for _ in range(BITS):
        root = math.sqrt(root)
        made = torch.stack([made, made * root], dim=1).flatten()
    return made.to(device)


def resize_boxes(images: Tensor, places: Tensor) -> Tensor:
    """One box of each image, bilinearly resized to the image's size (pixels are squares: `align_corners=False`).

    A pixel outside the box has no part in the result.

    Args:
        images: (B, C, H, W) uint8.
        places: (B, 4) int64 of top, left, height, width, inside the images.

    Returns:
        (B, C, H, W) uint8; within one grey level of the exact result, and the same on every device.
    """
    batch, channels, height, width = images.shape
    top, left, tall, wide = places.unbind(1)
    near, far, weight = (side[:, None, None] for side in _neighbours(left, wide, width))
    rows = [images.gather(3, columns.expand(-1, channels, height, -1)).int() for columns in (near, far)]
    across = (rows[0] * ((1 << UNIT) - weight) + rows[1] * weight).view(-1, width)
    near, far, weight = (side[:, None] for side in _neighbours(top, tall, height))
    planes = torch.arange(batch * channels, device=images.device).view(batch, channels, 1) * height
    first, second = (across[(planes + row).flatten()].view(images.shape) for row in (near, far))
    mixed = first * ((1 << UNIT) - weight[..., None]) + second * weight[..., None]
    return (mixed + (1 << 2 * UNIT - 1) >> 2 * UNIT).to(torch.uint8)


def _neighbours(start: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels that each of `size` new pixels lies between, and the second one's weight.

    Args:
        start: (B,) int64, the box's first pixel along one side.
        length: (B,) int64, the box's pixels.
        size: the number of new pixels.

    Returns:
        (B, size) int64 places in the image, twice, and (B, size) int32 weights in [0, 2^UNIT].
    """
    last = length[:, None] - 1
    steps = 2 * torch.arange(size, device=start.device) + 1
    # (i + 1/2) length / size - 1/2, in units of 1 / (2 size) of a pixel.
    centres = torch.minimum((steps * length[:, None] - size).clamp(min=0), last * 2 * size)
    near = centres.div(2 * size, rounding_mode="floor")
    weight = ((centres - near * 2 * size << UNIT) + size).div(2 * size, rounding_mode="floor")
    return start[:, None] + near, start[:, None] + torch.minimum(near + 1, last), weight.int()
