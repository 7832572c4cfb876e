"""What a cache says, for people who look at it: one file a field, each (cache, labels) -> facts.

Its module also has `describe(facts, classes)`, the lines and tables that say these facts; `classes` are the data set's.
It may have `USES_LABELS`, False where the true classes say nothing more.
"""

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
