"""The student's end in the multi-channel study: K outputs a class, each with a sigmoid of its own."""

from __future__ import annotations

from pydantic import PositiveInt
from torch import nn

from pipeline.models.heads.channels import Body, end_with_channels
from pipeline.models.network import Layers


def channel_outputs(
    body: Body,
    shape: tuple[int, int, int],
    classes: int,
    *,
    channels: PositiveInt,
) -> nn.Module:
    """The architecture with classes * channels outputs, class by class; logits are the channel sums.

    Args:
        body: the architecture.
        shape: (C, H, W) of the images.
        classes: outputs of the whole network.
        channels: K, as many as the teacher has whose labels are learnt.

    Taps: the architecture's own, and `channels`, the outputs as (B, classes, K).
    """
    made = body(classes * channels)
    scores = nn.Unflatten(1, (classes, channels))
    if isinstance(made, Layers):
        return end_with_channels(dict(made.named_children()), made.taps, scores)
    # The architecture stays whole, and its taps keep the names that they have without a head.
    inside = {path: f"body.{path}" for path, _ in made.named_modules() if path}
    own = {name: f"body.{path}" for name, path in getattr(made, "taps", {}).items()}
    return end_with_channels({"body": made}, {**inside, **own}, scores)
