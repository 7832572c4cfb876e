"""Loss terms, one a file; a recipe sums them.

A term is a pure function (outputs, target, *, options) -> scalar. Its module's `READS` names
the cached field that `target` is a batch of, or is None.
"""

from __future__ import annotations

import sys

from pipeline.registry import Registry

__all__ = ["TERMS", "field_of"]

TERMS = Registry(
    "loss",
    {
        "ce": "pipeline.losses.ce:ce",
        "soft_targets": "pipeline.losses.soft_targets:soft_targets",
        "logits_mse": "pipeline.losses.logits_mse:logits_mse",
    },
)


def field_of(name: str) -> str | None:
    """The cached field that a term reads, or None."""
    reads: str | None = sys.modules[TERMS.function(name).__module__].READS
    return reads
