"""What a cache says, for people who look at it: one file a field, each (cache, labels) -> facts."""

from pipeline.registry import Registry

__all__ = ["INSPECTIONS"]

INSPECTIONS = Registry(
    "field",
    {
        "logits": "pipeline.inspection.logits:logits",
        "multichannel": "pipeline.inspection.multichannel:multichannel",
    },
)
