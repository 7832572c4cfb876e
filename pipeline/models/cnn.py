"""The convolutional net of the t-SNE study (METHODS: t-SNE regulariser)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import nn

from pipeline.models.network import Layers


def cnn(
    shape: tuple[int, int, int],
    classes: int,
    *,
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (32, 64, 512),
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    initial: Literal["torch", "truncated_normal"] = "torch",
) -> nn.Module:
    """Blocks of 5x5 convolution (same size), 2x2 max-pool, relu; one hidden layer; output.

    Args:
        shape: (C, H, W) of the images.
        classes: outputs.
        widths: channels of each block, then the width of the hidden layer.
        dropout: before the output.
        initial: PyTorch's initial weights, or the study's: truncated normal (std 0.1), biases 0
            in the first layer and 0.1 after.

    Taps: `block1`, `block2`, ... and `features` (the hidden layer after relu, before dropout).
    """
    channels, height, width = shape
    *blocks, hidden = widths
    layers: dict[str, nn.Module] = {}
    for number, outputs in enumerate(blocks, start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, outputs, 5, padding=2)
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        layers[f"block{number}"] = nn.ReLU()
        channels, height, width = outputs, height // 2, width // 2
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels * height * width, hidden)
    layers["features"] = nn.ReLU()
    layers["dropout"] = nn.Dropout(dropout)
    layers["logits"] = nn.Linear(hidden, classes)
    if initial == "truncated_normal":
        _initialise(layers)
    net = Layers(layers, {name: name for name in layers if name.startswith("block") or name == "features"})
    # With few channels a step takes 0.6 of its time when they lie side by side (8 and 16 channels, one CPU core).
    return net.to(memory_format=torch.channels_last)


def _initialise(layers: dict[str, nn.Module]) -> None:
    weighted = [layer for layer in layers.values() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for number, layer in enumerate(weighted):
        nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
        if layer.bias is not None:
            nn.init.constant_(layer.bias, 0.1 if number else 0.0)
