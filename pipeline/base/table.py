"""A table as plain values: a command prints it, a notebook reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table: a title, the names of its columns (all empty: none), and rows of as many cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __str__(self) -> str:
        return "\n".join([self.title, *self._lines()] if self.title else self._lines())

    def _lines(self) -> Iterator[str]:
        header = [self.columns] if any(self.columns) else []
        lines = [[*map(str, row)] for row in (*header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
