"""In which order a column's cells stand when a reader sorts by it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

BLANKS = ("", "-")  # cells that say nothing: last in both orders
NUMBER = re.compile(r"(?P<bound>[<>])? ?(?P<value>[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w.])")
DIGITS = re.compile(r"(\d+(?:\.\d+)?)")
BOUNDS = {"<": -1, ">": 1}

Key = Callable[[str], Any]


def sort_cells(cells: Sequence[str], *, numbers: bool = True) -> tuple[list[int], list[int]]:
    """The places of a column's cells in increasing and in decreasing order; equal ones as they stand, blanks last.

    Args:
        cells: such as `97.20`, `1,234`, `+0.84 points`, `97.01 to 97.39`, `< 0.0001`: each at its first number.
        numbers: whether they may be such; where one is not, all are text, whose digits are compared as numbers.
    """
    told = [place for place, cell in enumerate(cells) if cell not in BLANKS]
    blank = [place for place, cell in enumerate(cells) if cell in BLANKS]
    key: Key = parse_number if numbers and all(NUMBER.match(cells[place]) for place in told) else _split_digits
    both = (sorted(told, key=lambda place: key(cells[place]), reverse=reverse) for reverse in (False, True))
    up, down = ([*order, *blank] for order in both)
    return up, down


def parse_number(cell: str) -> tuple[float, int]:
    """The number that a cell begins with, and whether it is a bound: below (-1), exact (0) or above (1)."""
    found = NUMBER.match(cell)
    assert found is not None
    return float(found["value"].replace(",", "")), BOUNDS.get(found["bound"], 0)


def _split_digits(cell: str) -> list[str | float]:
    """Text and numbers in turn."""
    return [float(part) if place % 2 else part for place, part in enumerate(DIGITS.split(cell.casefold()))]
