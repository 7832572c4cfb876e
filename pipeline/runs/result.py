"""What a run tells people, as plain values: a command prints it, a notebook reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.base.table import Table

__all__ = ["Result", "Table"]


@dataclass(frozen=True)
class Result:
    """What a run tells people; its files are in the study's folder. `print(result)` shows all of it.

    Attributes:
        values: its numbers, as the metrics file or `--json` has them.
        text: what its command prints on standard output.
        notes: what was decided without being asked for, a line each.
        warnings: what is allowed and hardly meant, a line each.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    text: tuple[str | Table, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = (*(f"note: {line}" for line in self.notes), *(f"warning: {line}" for line in self.warnings))
        return "\n".join((*said, *map(str, self.text)))
