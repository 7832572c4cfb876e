"""What nested plain values are expected to be, compared with what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ANYTHING = object()  # an expected value that every other one is equal to


class AtLeast(dict[str, Any]):
    """An expected mapping whose further entries may be anything."""


def differences(a: Any, b: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name and both values of every entry in which two plain values differ."""
    if a is ANYTHING:
        return
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted(a if isinstance(a, AtLeast) else a.keys() | b.keys()):
            yield from differences(a.get(key), b.get(key), f"{place}.{key}" if place else key)
    elif a != b:
        yield place, a, b
