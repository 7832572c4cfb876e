"""What a cache says, for people who look at it: one file a field, each (cache, labels) -> facts.

Its module also has `describe(facts, classes)`, the lines and tables that say these facts; `classes` are the data set's.
It may have `USES_LABELS`, False where the true classes say nothing more.
"""

import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from pipeline.base.registry import Registry
from pipeline.base.table import Table

__all__ = ["INSPECTIONS", "describe_facts", "uses_labels"]

INSPECTIONS = Registry(
    "field",
    {
        "logits": "pipeline.inspection.logits:logits",
        "hints": "pipeline.inspection.hints:hints",
        "affinities": "pipeline.inspection.affinities:affinities",
        "multichannel": "pipeline.inspection.multichannel:multichannel",
    },
)


def describe_facts(field: str, facts: dict[str, Any], classes: Sequence[str]) -> Iterable[str | Table]:
    """The lines and tables that say a field's own facts; none of a field that is not known here."""
    described: Iterable[str | Table] = _module(field).describe(facts, classes) if field in INSPECTIONS.entries else ()
    return described


def uses_labels(field: str) -> bool:
    """Whether the true classes say more of such a field."""
    return field not in INSPECTIONS.entries or getattr(_module(field), "USES_LABELS", True)


def _module(field: str) -> ModuleType:
    return sys.modules[INSPECTIONS.import_function(field).__module__]
