"""Heads: last layers that give more than a score a class. One a file, each a function
(body, shape, classes, *, options) -> module; `pipeline/models/heads/channels.py` is what they agree on.
"""

from pipeline.base.registry import Registry

__all__ = ["CHANNELS", "HEADS"]

# The tap of every network with a head: channel scores before the sigmoid, (B, classes, K).
CHANNELS = "channels"

HEADS = Registry(
    "head",
    {
        "multichannel": "pipeline.models.heads.multichannel:multichannel",
        "channel_outputs": "pipeline.models.heads.channel_outputs:channel_outputs",
    },
)
