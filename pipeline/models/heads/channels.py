"""What every head agrees on: channel scores s (B, classes, K) at the tap `channels`, then their votes' sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from pipeline.base.errors import InputError
from pipeline.models.heads import CHANNELS
from pipeline.models.network import Layers

# From a number of outputs to an architecture with fresh weights, (B, C, H, W) -> (B, outputs).
Body = Callable[[int], nn.Module]


class ChannelSums(nn.Module):
    """Logits a_c = sum_k sigmoid(s_ck), each between 0 and K: a class's channels vote for it."""

    def forward(self, scores: Tensor) -> Tensor:
        """Logits (B, classes) of channel scores (B, classes, K)."""
        return scores.sigmoid().sum(2)


def end_with_channels(layers: Mapping[str, nn.Module], taps: Mapping[str, str], scores: nn.Module) -> Layers:
    """The layers, followed by those that every head ends with.

    Args:
        layers: by name, what comes before the channels.
        taps: of these layers.
        scores: from their output to channel scores (B, classes, K).

    Raises:
        InputError: one of the layers has a name that the head needs.
    """
    ending = {CHANNELS: scores, "sums": ChannelSums()}
    taken = sorted(layers.keys() & ending.keys())
    if taken:
        raise InputError(
            "head", expected="a model without layers of its own named channels or sums", found=", ".join(taken)
        )
    return Layers({**layers, **ending}, {**taps, CHANNELS: CHANNELS})
