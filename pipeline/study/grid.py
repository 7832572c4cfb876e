"""Grids: one section under `students` that stands for a student at each point of several options' values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

from pipeline.base.registry import describe_unknown

GRID = "grid"
MOST_MEMBERS = 256
# What all points have in common: they are trained together, on the same data, from the same beginning.
FIXED = ("dataset", "seeds", "peers", "init", "select", GRID)

Points = Mapping[str, Mapping[str, Any]]  # by member, its values by key


def expand_grids(students: Any) -> tuple[Any, dict[str, Points]]:
    """The students with every grid's members in its place, and the grids' points.

    Args:
        students: the section as plain values; what is none of a section's shape is left to its validation.

    Raises:
        ValueError: a grid that cannot be expanded; the message begins with its key.
    """
    if not isinstance(students, Mapping):
        return students, {}
    made: dict[Any, Any] = {}
    grids: dict[str, Points] = {}
    for name, section in students.items():
        if not isinstance(section, Mapping) or GRID not in section:
            members = {name: section}
        else:
            members, grids[str(name)] = _expand(str(name), section)
        for member, values in members.items():
            if member in made or (member != name and member in students):
                raise ValueError(
                    f"students.{name}: a member is called {member!r}, and so is another student; rename one"
                )
            made[member] = values
    return made, grids


def _expand(name: str, section: Mapping[str, Any]) -> tuple[dict[str, Any], Points]:
    """A grid's members, and their points."""
    key, grid = f"students.{name}.{GRID}", section[GRID]
    if not isinstance(grid, Mapping) or not grid:
        raise ValueError(
            f"{key}: expected options with their values, such as {{optimizer.lr: [0.01, 0.001]}}, found {grid!r}"
        )
    for option, values in grid.items():
        _refuse_values(f"{key}.{option}", str(option), values)
    count = prod(map(len, grid.values()))
    if count > MOST_MEMBERS:  # before they are listed: ten options of ten values would fill the memory
        raise ValueError(f"{key}: expected at most {MOST_MEMBERS} points, found {count}")
    points = [dict(zip(map(str, grid), values, strict=True)) for values in product(*grid.values())]
    rest = {option: value for option, value in section.items() if option != GRID}
    called = shorten_keys([*points[0]])
    members, found = {}, {}
    for point in points:
        member = "-".join(
            [name, *(f"{short}-{write_value(value)}" for short, value in zip(called, point.values(), strict=True))]
        )
        if member in members:
            raise ValueError(f"{key}: expected values whose names differ, found two points called {member!r}")
        section_of_point: Any = rest
        for option, value in point.items():
            section_of_point = _replace(section_of_point, option.split("."), value, f"{key}.{option}")
        members[member], found[member] = section_of_point, point
    return members, found


def _refuse_values(key: str, option: str, values: Any) -> None:
    first, *_ = option.split(".")
    if first in FIXED:
        raise ValueError(f"{key}: all points of a grid have the same {first}; write two students")
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ValueError(f"{key}: expected a list of values, found {values!r}")
    other = [value for value in values if not isinstance(value, str | int | float | bool)]
    if other:
        raise ValueError(f"{key}: expected numbers, words, true or false, found {other[0]!r}")


def _replace(section: Any, path: Sequence[str], value: Any, key: str) -> Any:
    """A section with one option at another value; nothing of the old one is changed."""
    first, *rest = path
    if isinstance(section, Mapping):
        if rest and first not in section:
            raise ValueError(f"{key}: " + describe_unknown("option", first, map(str, section)))
        return {**section, first: _replace(section[first], rest, value, key) if rest else value}
    if isinstance(section, tuple) and first.isdecimal() and int(first) < len(section):
        place = int(first)
        return (*section[:place], _replace(section[place], rest, value, key) if rest else value, *section[place + 1 :])
    raise ValueError(f"{key}: expected options to choose from at {first!r}, found {section!r}; write them out there")


def write_value(value: Any) -> str:
    """A value as a part of a name: 0.1 is 0_1."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(value).replace("+", ""))


def shorten_keys(keys: Sequence[str]) -> list[str]:
    """Each key's last parts, joined by dashes: as few as tell it from all others."""
    parts = [key.split(".") for key in keys]
    return ["-".join(each[-_count_needed(each, parts) :]) for each in parts]


def _count_needed(key: Sequence[str], keys: Sequence[Sequence[str]]) -> int:
    """How many of a key's last parts no other key has."""
    counts = range(1, len(key) + 1)
    return next((count for count in counts if sum(other[-count:] == key[-count:] for other in keys) == 1), len(key))
