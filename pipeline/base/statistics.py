"""What several seeds say together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST_VALUES = 3  # values: below, no interval and no test is computed


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of n runs; no deviation for a single run."""

    mean: float
    std: float | None
    n: int


def summarize(values: Sequence[float]) -> Summary:
    """Return the mean, the standard deviation (n - 1 in the denominator) and the number of the values."""
    return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Difference:
    """Mean of n paired differences with its 95 % interval (Student's t); no interval below three pairs."""

    mean: float
    low: float | None
    high: float | None
    n: int


def compare_pairs(values: Sequence[float], others: Sequence[float]) -> Difference:
    """Return the mean of `values` - `others`, pair by pair (the same seed of two students)."""
    from scipy import stats

    differences = [value - other for value, other in zip(values, others, strict=True)]
    made = summarize(differences)
    if made.std is None or made.n < FEWEST_VALUES:
        return Difference(made.mean, None, None, made.n)
    half = float(stats.t.ppf(0.975, made.n - 1)) * made.std / math.sqrt(made.n)
    return Difference(made.mean, made.mean - half, made.mean + half, made.n)


def compute_gap_closed(accuracy: float, baseline: float, teacher: float) -> float | None:
    """Return the share (a - baseline) / (teacher - baseline); None where the teacher is not ahead."""
    return (accuracy - baseline) / (teacher - baseline) if teacher > baseline else None
