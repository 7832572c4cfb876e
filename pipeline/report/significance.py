"""What groups of runs say of each other: intervals, paired t tests, analysis of variance, Tukey's pairs.

Pure functions of plain numbers. What cannot be computed is None, with the reason: no result holds a
NaN or an infinity. Kept apart from `statistics`, which every training stage depends on.

All of it assumes independent values with normal errors; analysis of variance and Tukey's pairs
also assume one variance for all groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from pipeline.base.statistics import FEWEST_VALUES, compare_pairs, summarize

LEVEL = 0.95  # of intervals; of Tukey's, that all of them hold together
EQUAL = 1e-12  # values whose spread is no larger a share of their size differ by rounding alone


def compute_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of a mean: m ± t(0.975, n - 1) s / sqrt(n); None below 3 values."""
    from scipy import stats

    made = summarize(values)
    if made.std is None or made.n < FEWEST_VALUES:
        return None
    half = float(stats.t.ppf((1 + LEVEL) / 2, made.n - 1)) * made.std / math.sqrt(made.n)
    return made.mean - half, made.mean + half


@dataclass(frozen=True)
class PairedTest:
    """What n values are ahead of their partners.

    Attributes:
        mean: of the differences d.
        low, high: its 95 % interval (Student's t).
        p: of the two-sided paired t test; not corrected for how many such tests there are.
        effect: Cohen's d_z = mean(d) / std(d).
        n: pairs.
        reason: why any of these is None.
    """

    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    effect: float | None
    n: int
    reason: str | None = None


def explain_unpaired(reason: str, n: int = 0) -> PairedTest:
    """What is not compared, and why."""
    return PairedTest(None, None, None, None, None, n, reason)


def run_paired_t_test(values: Sequence[float], others: Sequence[float]) -> PairedTest:
    """The paired t test, t = mean(d) / (std(d) / sqrt(n)) with n - 1 degrees of freedom, d = value - other.

    Raises:
        ValueError: not as many values as others.
    """
    from scipy import stats

    made = compare_pairs(values, others)
    if made.n < FEWEST_VALUES:
        return explain_unpaired(f"fewer than {FEWEST_VALUES} pairs", made.n)
    differences = [value - other for value, other in zip(values, others, strict=True)]
    if _are_equal(differences, [*values, *others]):
        return PairedTest(made.mean, made.mean, made.mean, None, None, made.n, "all differences are equal")
    std = summarize(differences).std
    assert std is not None
    p = 2 * float(stats.t.sf(abs(made.mean) / std * math.sqrt(made.n), made.n - 1))
    return PairedTest(made.mean, made.low, made.high, p, made.mean / std, made.n)


def compute_hedges_g(values: Sequence[float], others: Sequence[float]) -> float | None:
    """The difference of two means in pooled standard deviations, corrected for small samples.

    g = J(m) (mean_1 - mean_2) / s_p, with m = n_1 + n_2 - 2, s_p^2 = (SS_1 + SS_2) / m and
    J(m) = Gamma(m / 2) / (sqrt(m / 2) Gamma((m - 1) / 2)) (Hedges 1981). None where no value differs
    from its group's mean, or where m < 2.
    """
    freedom = len(values) + len(others) - 2
    if freedom < 2 or (_are_equal(values) and _are_equal(others)):
        return None
    pooled = math.sqrt((_sum_squares(values) + _sum_squares(others)) / freedom)
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return correction * (fmean(values) - fmean(others)) / pooled


@dataclass(frozen=True)
class Pair:
    """Two groups of an analysis of variance, by Tukey's honestly significant difference.

    Attributes:
        groups: whose means are compared.
        difference: of the first mean to the second.
        low, high: its interval; all pairs' intervals hold together with 95 %.
        p: corrected for all pairs: below 0.05 they differ at a family-wise error rate of 0.05.
        effect: Hedges' g, None where neither group varies.
    """

    groups: tuple[str, str]
    difference: float
    low: float
    high: float
    p: float
    effect: float | None


@dataclass(frozen=True)
class Anova:
    """One-way analysis of variance, and Tukey's comparison of all pairs.

    Attributes:
        groups: those of at least 3 values, k of them with N values in all.
        left_out: the others.
        f, p: F = MS_between / MS_within and its upper tail.
        df_between, df_within: k - 1 and N - k.
        eta_squared: SS_between / SS_total.
        omega_squared: (SS_between - (k - 1) MS_within) / (SS_total + MS_within), 0 where that is below it.
        pairs: in the groups' order.
        reason: why nothing was computed.
    """

    groups: tuple[str, ...]
    left_out: tuple[str, ...]
    f: float | None = None
    df_between: int | None = None
    df_within: int | None = None
    p: float | None = None
    eta_squared: float | None = None
    omega_squared: float | None = None
    pairs: tuple[Pair, ...] = ()
    reason: str | None = None


def analyse_variance(values: Mapping[str, Sequence[float]]) -> Anova:
    """One-way analysis of variance over groups, by name; those below 3 values are left out, and named."""
    from scipy import stats

    groups = {name: each for name, each in values.items() if len(each) >= FEWEST_VALUES}
    names, left_out = tuple(groups), tuple(name for name in values if name not in groups)
    if len(groups) < 2:
        return Anova(names, left_out, reason=f"fewer than two groups of {FEWEST_VALUES} values")
    if all(map(_are_equal, groups.values())):
        return Anova(names, left_out, reason="no group varies")
    # Summed from the groups themselves: scipy's f_oneway takes SS_within as a difference of large
    # numbers, which goes below zero where groups hardly vary.
    every = [value for each in groups.values() for value in each]
    mean, within = fmean(every), sum(map(_sum_squares, groups.values()))
    between = sum(len(each) * (fmean(each) - mean) ** 2 for each in groups.values())
    df_between, df_within = len(groups) - 1, len(every) - len(groups)
    error = within / df_within
    f = between / df_between / error
    omega = (between - df_between * error) / (between + within + error)
    return Anova(
        names,
        left_out,
        f=f,
        df_between=df_between,
        df_within=df_within,
        p=float(stats.f.sf(f, df_between, df_within)),
        eta_squared=between / (between + within),
        omega_squared=max(0.0, omega),
        pairs=_compare_all_pairs(groups, error, df_within),
    )


def _compare_all_pairs(groups: Mapping[str, Sequence[float]], error: float, freedom: int) -> tuple[Pair, ...]:
    """Tukey's pairs, in Kramer's form where the groups are not equally large.

    q = |m_i - m_j| / s_ij with s_ij = sqrt(MS_within / 2 (1/n_i + 1/n_j)); p is the upper tail of the
    studentized range of k groups, and the interval m_i - m_j ± q(0.95) s_ij. As scipy's tukey_hsd, which
    asks that (slow) distribution twice for each pair, and for each group with itself.
    """
    from scipy import stats

    found = list(combinations(groups, 2))
    differences = [fmean(groups[one]) - fmean(groups[other]) for one, other in found]
    scales = [math.sqrt(error / 2 * (1 / len(groups[one]) + 1 / len(groups[other]))) for one, other in found]
    critical = float(stats.studentized_range.ppf(LEVEL, len(groups), freedom))
    ranges = [abs(difference) / scale for difference, scale in zip(differences, scales, strict=True)]
    tails = stats.studentized_range.sf(ranges, len(groups), freedom)
    return tuple(
        Pair(
            pair,
            difference,
            difference - critical * scale,
            difference + critical * scale,
            min(1.0, max(0.0, float(tail))),  # an integral, beyond its ends by rounding alone
            compute_hedges_g(groups[pair[0]], groups[pair[1]]),
        )
        for pair, difference, scale, tail in zip(found, differences, scales, tails, strict=True)
    )


def _sum_squares(values: Sequence[float]) -> float:
    """The sum of squared differences from the mean."""
    mean = fmean(values)
    return math.fsum((value - mean) ** 2 for value in values)


def _are_equal(values: Sequence[float], scale: Sequence[float] = ()) -> bool:
    """Whether values differ by rounding alone: against their own size, or that of the numbers they came from."""
    return max(values) - min(values) <= EQUAL * max(map(abs, scale or values))
