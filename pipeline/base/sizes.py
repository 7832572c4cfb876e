"""Sizes as people read them."""

from __future__ import annotations


def format_size(size: int) -> str:
    """Bytes for people: 12.3 GB, 0.4 GB, 115 kB."""
    for unit, bytes_of_unit in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if size >= bytes_of_unit / 10:
            return f"{size / bytes_of_unit:,.1f} {unit}"
    return f"{size / 1000:,.0f} kB" if size >= 1000 else f"{size} bytes"
