"""What several seeds say together."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of n runs; no deviation for a single run."""

    mean: float
    std: float | None
    n: int


def summary(values: Sequence[float]) -> Summary:
    """Mean, standard deviation (n - 1 in the denominator) and number of the values."""
    return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def gap_closed(accuracy: float, baseline: float, teacher: float) -> float | None:
    """The share (a - baseline) / (teacher - baseline); None where the teacher is not ahead."""
    return (accuracy - baseline) / (teacher - baseline) if teacher > baseline else None
