"""What a field's module says beside its function: see the room's docstring."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from pipeline.base.table import Table
from pipeline.inspection import INSPECTIONS


def describe_facts(field: str, facts: dict[str, Any], classes: Sequence[str]) -> Iterable[str | Table]:
    """The lines and tables that say a field's own facts; none of a field that is not known here."""
    described: Iterable[str | Table] = _module(field).describe(facts, classes) if field in INSPECTIONS.entries else ()
    return described


def uses_labels(field: str) -> bool:
    """Whether the true classes say more of such a field."""
    return field not in INSPECTIONS.entries or getattr(_module(field), "USES_LABELS", True)


def _module(field: str) -> ModuleType:
    return INSPECTIONS.import_part(field)
