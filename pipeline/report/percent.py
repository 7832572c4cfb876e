"""Shares as percent and points: as numbers, and as pages and tables write them."""

from __future__ import annotations


def error_percent(accuracy: float) -> float:
    """Return the error, in percent, of an accuracy in [0, 1]."""
    return 100 * (1 - accuracy)


def format_percent(share: float | None) -> str:
    """Write a share in [0, 1] as percent; None as nothing."""
    return "" if share is None else f"{100 * share:.2f}"


def format_interval(ends: tuple[float, float] | None) -> str:
    """Write the ends of an interval of shares as percent; None as nothing."""
    return "" if ends is None else " to ".join(map(format_percent, ends))


def format_points(difference: float) -> str:
    """Write a difference of two shares in points, with its sign."""
    return f"{100 * difference:+.2f}"
