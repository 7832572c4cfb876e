"""The shallow student of the multi-channel study: one convolution, one bottleneck, one wide layer."""

from __future__ import annotations

from pydantic import PositiveInt
from torch import nn

from pipeline.models.network import Layers


def shallow_conv(
    shape: tuple[int, int, int],
    classes: int,
    *,
    filters: PositiveInt = 128,
    pool: PositiveInt = 4,
    bottleneck: PositiveInt = 1200,
    hidden: PositiveInt = 8 * 1024,
) -> nn.Module:
    """Convolution 3x3 (same size, relu), max-pool, linear bottleneck, hidden layer (relu), output.

    `pool` is 4 by default; the write-up to the letter is `pool: 1`, with 167 million weights.
    Taps: `conv` (after relu), `bottleneck` (linear), `features` (the hidden layer after relu).
    """
    channels, height, width = shape
    layers: dict[str, nn.Module] = {
        "conv": nn.Sequential(nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()),
        "pool": nn.MaxPool2d(pool),
        "flatten": nn.Flatten(),
        "bottleneck": nn.Linear(filters * (height // pool) * (width // pool), bottleneck),
        "fc": nn.Linear(bottleneck, hidden),
        "features": nn.ReLU(),
        "logits": nn.Linear(hidden, classes),
    }
    return Layers(layers, {name: name for name in ("conv", "bottleneck", "features")})
