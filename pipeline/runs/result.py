"""What a run tells people, as plain values: a command prints it, a notebook reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table: a title, the names of its columns, and rows of as many cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __str__(self) -> str:
        return "\n".join([self.title, *self._lines()] if self.title else self._lines())

    def _lines(self) -> Iterator[str]:
        lines = [[*map(str, row)] for row in (self.columns, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


@dataclass(frozen=True)
class Result:
    """What a run tells people; its files are in the study's folder. `print(result)` shows the text.

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
        return "\n".join(map(str, self.text))
