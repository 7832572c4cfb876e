"""A multi-layer perceptron of any widths."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import nn

from pipeline.models.network import Layers

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def mlp(
    shape: tuple[int, int, int],
    classes: int,
    *,
    widths: tuple[PositiveInt, ...],
    activation: Literal["relu", "tanh"] = "relu",
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> nn.Module:
    """`widths` hidden layers, each linear -> activation -> dropout, then a linear output.

    Taps: `hidden1`, `hidden2`, ... (after the activation, before dropout), and `features`,
    the last of them.
    """
    channels, height, width = shape
    inputs = channels * height * width
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    for number, outputs in enumerate(widths, start=1):
        layers[f"fc{number}"] = nn.Linear(inputs, outputs)
        layers[f"hidden{number}"] = ACTIVATIONS[activation]()
        if dropout:
            layers[f"dropout{number}"] = nn.Dropout(dropout)
        inputs = outputs
    layers["logits"] = nn.Linear(inputs, classes)
    taps = {f"hidden{number}": f"hidden{number}" for number in range(1, len(widths) + 1)}
    if widths:
        taps["features"] = f"hidden{len(widths)}"
    return Layers(layers, taps)
