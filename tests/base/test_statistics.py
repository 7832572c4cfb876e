"""Statistics: against scipy's and numpy's own, published numbers, and where nothing can be computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.base.files import encode_json
from pipeline.report.significance import (
    Anova,
    analyse_variance,
    compute_hedges_g,
    compute_interval,
    explain_unpaired,
    run_paired_t_test,
)

# Minutes to relief with three headache medicines: the example of SAS's and scipy's documentation.
RELIEF = {
    "a": [24.5, 23.5, 26.4, 27.1, 29.9], "b": [28.4, 34.2, 29.5, 32.2, 30.1], "c": [26.1, 28.3, 24.3, 26.2, 27.8],
}  # fmt: skip
UNEQUAL = {"a": [0.61, 0.64, 0.60], "b": [0.66, 0.70, 0.68, 0.69, 0.67], "c": [0.65, 0.62, 0.66, 0.63]}


def with_moments(mean: float, std: float, n: int) -> list[float]:
    """n values of just this mean and sample standard deviation."""
    values = np.arange(n, dtype=float)
    return list(mean + std * (values - values.mean()) / values.std(ddof=1))


def test_an_interval_of_seeds() -> None:
    # By hand: mean 0.6, std 0.1, t(0.975, 2) = 4.302653, so 0.6 +- 4.302653 * 0.1 / sqrt(3).
    assert compute_interval([0.5, 0.7, 0.6]) == pytest.approx((0.6 - 0.2484138, 0.6 + 0.2484138))
    values = [0.85, 0.9, 0.87, 0.88, 0.91]
    assert compute_interval(values) == pytest.approx(
        stats.t.interval(0.95, 4, loc=np.mean(values), scale=np.std(values, ddof=1) / math.sqrt(5))
    )
    assert compute_interval([0.5, 0.7]) is None
    assert compute_interval([0.5]) is None
    assert compute_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_paired_differences() -> None:
    values, others = [0.9, 0.8, 0.85, 0.95], [0.8, 0.75, 0.83, 0.86]
    made = run_paired_t_test(values, others)
    expected = stats.ttest_rel(values, others)
    low, high = expected.confidence_interval(0.95)
    assert (made.n, made.reason) == (4, None)
    assert made.mean == pytest.approx(0.065)
    assert (made.low, made.high, made.p) == pytest.approx((low, high, expected.pvalue))
    # By hand: the differences 0.1, 0.05, 0.02, 0.09 have the standard deviation 0.036968.
    assert made.effect == pytest.approx(0.065 / 0.0369685, rel=1e-5)
    ahead, behind = asdict(made), asdict(run_paired_t_test(others, values))
    assert (behind["mean"], behind["low"], behind["p"]) == pytest.approx((-ahead["mean"], -ahead["high"], ahead["p"]))
    with pytest.raises(ValueError, match="shorter"):
        run_paired_t_test(values, others[1:])


def test_pairs_that_are_too_few_or_never_vary() -> None:
    assert run_paired_t_test([0.9, 0.8], [0.8, 0.7]) == explain_unpaired("fewer than 3 pairs", 2)
    made = run_paired_t_test([0.90, 0.87, 0.3], [0.88, 0.85, 0.28])  # equal but for rounding
    assert made.mean == made.low == made.high == pytest.approx(0.02)
    assert (made.p, made.effect, made.reason) == (None, None, "all differences are equal")
    assert run_paired_t_test([0.5] * 3, [0.5] * 3).mean == 0.0
    assert run_paired_t_test([0.1 + 0.2, 0.5, 0.7], [0.3, 0.5, 0.7]).p is None  # the same numbers, summed
    assert run_paired_t_test([0.0] * 3, [0.0] * 3).reason == "all differences are equal"


def test_hedges_g() -> None:
    # By hand: the means differ by 1, both variances are 1, and J(4) = Gamma(2) / (sqrt(2) Gamma(1.5)) = 0.797885.
    assert compute_hedges_g([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]) == pytest.approx(0.7978846)
    # The usual approximation J(m) = 1 - 3 / (4 m - 1) holds for many.
    many, more = with_moments(1.5, 2.0, 50), with_moments(0.5, 2.0, 30)
    assert compute_hedges_g(many, more) == pytest.approx(0.5 * (1 - 3 / (4 * 78 - 1)), rel=1e-4)
    assert compute_hedges_g([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]) is None
    assert compute_hedges_g([1.0], [2.0, 3.0]) is None


@pytest.mark.parametrize("groups", [RELIEF, UNEQUAL], ids=["equal", "unequal"])
def test_analysis_of_variance_is_scipys(groups: dict[str, list[float]]) -> None:
    made, expected = analyse_variance(groups), stats.f_oneway(*groups.values())
    assert (made.f, made.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (made.groups, made.left_out, made.reason) == (tuple("abc"), (), None)


@pytest.mark.parametrize("groups", [RELIEF, UNEQUAL], ids=["equal", "unequal"])
def test_tukeys_pairs_are_scipys(groups: dict[str, list[float]]) -> None:
    made, expected = analyse_variance(groups), stats.tukey_hsd(*groups.values())
    ends, names = expected.confidence_interval(0.95), list(groups)
    assert [pair.groups for pair in made.pairs] == list(combinations(names, 2))
    for pair in made.pairs:
        one, other = (names.index(name) for name in pair.groups)
        assert (pair.difference, pair.p) == pytest.approx((expected.statistic[one, other], expected.pvalue[one, other]))
        assert (pair.low, pair.high) == pytest.approx((ends.low[one, other], ends.high[one, other]))
        assert pair.effect == compute_hedges_g(groups[pair.groups[0]], groups[pair.groups[1]])


def test_the_published_example() -> None:
    """Its tables: SS 66.772 between and 56.128 within; F 7.14, p 0.0091; b is above a and c."""
    made = analyse_variance(RELIEF)
    assert (made.df_between, made.df_within) == (2, 12)
    assert made.f == pytest.approx(7.14, abs=5e-3)
    assert made.p == pytest.approx(0.0091, abs=5e-5)
    assert made.eta_squared == pytest.approx(66.772 / (66.772 + 56.128), abs=1e-4)
    assert made.omega_squared == pytest.approx((66.772 - 2 * 4.677) / (66.772 + 56.128 + 4.677), abs=1e-4)
    found = [(round(pair.difference, 2), round(pair.p, 3)) for pair in made.pairs]
    assert found == [(-4.6, 0.014), (-0.26, 0.98), (4.34, 0.02)]


def test_the_shape_of_a_study_over_six_folds() -> None:
    """Four groups of six, against sums of squares by hand: means and standard deviations as published."""
    moments = {"baseline": (0.633, 0.003), "logits": (0.680, 0.004), "soft": (0.697, 0.002), "bits": (0.703, 0.004)}
    groups = {name: with_moments(*each, 6) for name, each in moments.items()}
    made = analyse_variance(groups)
    means = np.array([mean for mean, _ in moments.values()])
    between = 6 * ((means - means.mean()) ** 2).sum()
    within = 5 * sum(std**2 for _, std in moments.values())
    assert made.f == pytest.approx((between / 3) / (within / 20))
    assert (made.df_between, made.df_within, len(made.pairs)) == (3, 20, 6)
    assert made.eta_squared == pytest.approx(between / (between + within))
    assert made.omega_squared == pytest.approx((between - 3 * within / 20) / (between + within + within / 20))
    last = made.pairs[-1]
    half = stats.studentized_range.ppf(0.95, 4, 20) * math.sqrt(within / 20 / 6)
    assert last.groups == ("soft", "bits")
    assert (last.difference, last.low, last.high) == pytest.approx((-0.006, -0.006 - half, -0.006 + half))


def test_the_published_analysis_is_of_the_three_methods() -> None:
    """F = 54.97, p = 1.2e-7 and 0.0064 [0.0004, 0.0123]: the baseline is not among the groups."""
    spread = 0.00397  # what the published interval is wide for: 3.673 sqrt(MS / 6)
    means = {"logits": 0.680, "soft": 0.6966, "bits": 0.7030}
    made = analyse_variance({name: with_moments(mean, spread, 6) for name, mean in means.items()})
    assert (made.df_between, made.df_within) == (2, 15)
    assert stats.f.sf(54.97, 2, 15) == pytest.approx(1.2e-7, abs=0.05e-7)
    assert made.f == pytest.approx(54.97, rel=0.05)
    pair = made.pairs[-1]
    assert -pair.high == pytest.approx(0.0004, abs=1e-4)
    assert -pair.low == pytest.approx(0.0123, abs=1e-4)


def test_groups_of_too_few_are_named_and_left_out() -> None:
    made = analyse_variance({**RELIEF, "one": [20.0], "two": [20.0, 21.0]})
    assert (made.groups, made.left_out) == (tuple("abc"), ("one", "two"))
    assert made.f == analyse_variance(RELIEF).f
    for groups in ({"a": RELIEF["a"], "two": [1.0, 2.0]}, {"a": RELIEF["a"]}, {}):
        made = analyse_variance(groups)
        assert (made.f, made.pairs, made.reason) == (None, (), "fewer than two groups of 3 values")


def test_groups_that_never_vary_are_not_computed() -> None:
    for other in (0.5, 0.7):
        made = analyse_variance({"a": [0.5] * 3, "b": [other] * 4})
        assert (made.f, made.p, made.eta_squared, made.reason) == (None, None, None, "no group varies")
    made = analyse_variance({"a": [0.5] * 3, "b": [0.7] * 3, "c": [0.6, 0.61, 0.62]})  # one that varies is enough
    assert made.reason is None
    assert [pair.effect is None for pair in made.pairs] == [True, False, False]
    alike = analyse_variance({"a": [0.5, 0.6, 0.7], "b": [0.7, 0.6, 0.5]})
    assert (alike.f, alike.p) == pytest.approx((0, 1))
    assert alike.omega_squared == 0.0


@pytest.mark.parametrize(
    "groups",
    [
        {"a": [0.1, 0.1, 0.1 + 1e-9], "b": [0.9] * 3, "c": [0.5] * 3},  # scipy's f_oneway: F below zero, p NaN
        {"a": [0.0] * 3, "b": [0.0, 0.0, 1.0]},
        {"a": [1e-100, 2e-100, 3e-100], "b": [2e-100, 3e-100, 4e-100]},
        {"a": [0.5] * 3, "b": [0.5] * 3},
        UNEQUAL,
    ],
)
def test_no_result_is_without_a_number(groups: dict[str, list[float]]) -> None:
    numbers: list[Any] = [asdict(analyse_variance(groups)), asdict(run_paired_t_test(groups["a"][:3], groups["b"][:3]))]
    encode_json(numbers)  # refuses NaN and infinity
    made = analyse_variance(groups)
    assert made.f is None or (made.f >= 0 and 0 <= (made.p or 0) <= 1)
    assert all(0 <= pair.p <= 1 and pair.low < pair.difference < pair.high for pair in made.pairs)


def test_all_intervals_hold_together_for_19_of_20() -> None:
    """Groups of one mean: some pair seems to differ in one of twenty trials."""
    random = np.random.default_rng(0)
    critical = stats.studentized_range.ppf(0.95, 4, 20)

    def differs(groups: Sequence[Sequence[float]]) -> bool:
        error = np.mean([np.var(group, ddof=1) for group in groups])
        return bool(np.ptp([np.mean(group) for group in groups]) > critical * math.sqrt(error / 6))

    trials = random.normal(size=(4000, 4, 6))
    assert np.mean([differs(trial) for trial in trials]) == pytest.approx(0.05, abs=0.01)
    for trial in trials[:8]:
        made: Anova = analyse_variance(dict(enumerate(map(list, trial))))  # type: ignore[arg-type]
        assert any(pair.p < 0.05 for pair in made.pairs) == differs(list(trial))
