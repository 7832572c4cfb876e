"""Loss terms, one a file; a recipe sums them.

A term is a pure function (outputs, target, *, options) -> scalar. Its module's `READS` names
the cached field that `target` is a batch of, or is None. Where not every dump of that field serves, its
function `misfit(options, dump_options)` says why one does not, or returns None.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from pipeline.registry import Registry

__all__ = ["TERMS", "field_of", "misfit_of"]

TERMS = Registry(
    "loss",
    {
        "ce": "pipeline.losses.ce:ce",
        "soft_targets": "pipeline.losses.soft_targets:soft_targets",
        "logits_mse": "pipeline.losses.logits_mse:logits_mse",
    },
)


def misfit_of(name: str, options: Mapping[str, Any], dump_options: Mapping[str, Any]) -> str | None:
    """Why a term cannot read a dump of its field, both with these options; None where it can."""
    found = getattr(sys.modules[TERMS.function(name).__module__], "misfit", None)
    reason: str | None = found(options, dump_options) if found else None
    return reason


def field_of(name: str) -> str | None:
    """The cached field that a term reads, or None."""
    reads: str | None = sys.modules[TERMS.function(name).__module__].READS
    return reads
