"""What a cache says, for people who look at it: one file a field, each (cache, labels) -> facts."""

from pipeline.base.registry import Registry

__all__ = ["INSPECTIONS"]

INSPECTIONS = Registry(
    "field",
    {
        "logits": "pipeline.inspection.logits:logits",
        "hints": "pipeline.inspection.hints:hints",
        "affinities": "pipeline.inspection.affinities:affinities",
        "multichannel": "pipeline.inspection.multichannel:multichannel",
    },
)
