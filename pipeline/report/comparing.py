"""The statistics as people read them: what is compared, then tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.base.statistics import FEWEST_VALUES, summarize
from pipeline.report.comparisons import Anova, Pair, Paired, interval
from pipeline.report.groups import UNITS, Compared, Group, Unit
from pipeline.report.page import Table

MOST_PAIRS = 20  # of Tukey's: more are no table that anybody reads
MOST_NAMES = 8  # in a sentence
DIFFER = 0.05  # the family-wise error rate
SMALLEST = 0.0001  # p-value that is told: none is nought

GROUPS = ("group", "students", "test accuracy (%)", "std", "95 % interval", "n")
AGAINST = ("group", "difference (points)", "95 % interval", "p", "d", "n")
PAIRS = ("pair", "difference (points)", "95 % interval", "p", "g")
PARTNERS: dict[Unit, str] = {
    "run": "the same place in the group and the same seed",
    "student": "the same place in the group",
}


def section(compared: Compared) -> Iterator[str | Table]:
    """The blocks of the section; none without students."""
    if not compared.groups:
        return
    yield f"A value is the test accuracy of {UNITS[compared.groups[0].unit]}; all numbers: `statistics.json`."
    if compared.too_few:
        yield f"Fewer than {FEWEST_VALUES} values, not computed: {', '.join(compared.too_few)}."
    if any(len(group.students) > 1 for group in compared.groups):
        yield Table(GROUPS, tuple(map(_group_cells, compared.groups)), texts=2)
    yield from _against(compared)
    for analysis in compared.analyses:
        yield from _analysis(analysis)


def _against(compared: Compared) -> Iterator[str | Table]:
    """The paired differences, then those that cannot be paired."""
    base = compared.baseline
    if base is None:
        yield "No student learns from labels alone; `report: {baseline: NAME}` names one to compare the others with."
        return
    rows = [_paired_cells(name, paired) for name, paired in compared.against.items() if paired.mean is not None]
    if rows:
        yield (
            f"How far ahead of {base.name}, paired by {PARTNERS[base.unit]}. p is that of the paired t test, not "
            "corrected for the number of rows; d = mean / std of the differences (Cohen's d_z)."
        )
        yield Table(AGAINST, tuple(rows))
    reasons: dict[str, list[str]] = {}
    for name, paired in compared.against.items():
        if paired.reason is not None and name not in compared.too_few and base.name not in compared.too_few:
            reasons.setdefault(paired.reason, []).append(name)
    for reason, names in reasons.items():
        tested = compared.against[names[0]].mean is not None
        yield f"{'No p' if tested else f'Not paired with {base.name}'}, {reason}: {', '.join(names)}."


def _analysis(analysis: Anova) -> Iterator[str | Table]:
    """One line of the analysis of variance, and the pairs that are worth reading."""
    groups = _names(analysis.groups)
    if analysis.f is None or analysis.p is None:
        if len(analysis.groups) > 1:  # else it was said that the others are too few
            yield f"No analysis of variance of {groups}: {analysis.reason}."
        return
    yield (
        f"One-way analysis of variance of {groups}: F({analysis.df_between}, {analysis.df_within}) = {analysis.f:.2f}, "
        f"p {'' if analysis.p < SMALLEST else '= '}{_p(analysis.p)}, eta² = {analysis.eta_squared:.3f}, "
        f"omega² = {analysis.omega_squared:.3f}."
    )
    shown = _worth_reading(analysis.pairs)
    differ = sum(pair.p < DIFFER for pair in analysis.pairs)
    part = f", the {len(shown)} of largest difference below" if 0 < len(shown) < differ else ""
    yield (
        f"Tukey's honestly significant difference: {differ} of {len(analysis.pairs)} pairs differ{part}, at a "
        f"family-wise error rate of {DIFFER}; intervals and p are corrected for all pairs. g: Hedges' g."
    )
    if shown:
        yield Table(PAIRS, tuple(map(_pair_cells, shown)))


def _names(groups: Sequence[str]) -> str:
    return ", ".join(groups) if len(groups) <= MOST_NAMES else f"{len(groups)} groups ({groups[0]}, ..., {groups[-1]})"


def _worth_reading(pairs: Sequence[Pair]) -> Sequence[Pair]:
    """All, or where they are too many the largest differences that are none by chance."""
    if len(pairs) <= MOST_PAIRS:
        return pairs
    return sorted((pair for pair in pairs if pair.p < DIFFER), key=lambda pair: -abs(pair.difference))[:MOST_PAIRS]


def _group_cells(group: Group) -> tuple[str, ...]:
    made, ends = summarize(group.values), interval(group.values)
    return (
        group.name,
        ", ".join(group.students),
        f"{100 * made.mean:.2f}",
        "" if made.std is None else f"{100 * made.std:.2f}",
        "" if ends is None else f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}",
        str(made.n),
    )


def _paired_cells(name: str, paired: Paired) -> tuple[str, ...]:
    assert paired.mean is not None
    assert paired.low is not None
    assert paired.high is not None
    tested = ("", "") if paired.p is None or paired.effect is None else (_p(paired.p), f"{paired.effect:.2f}")
    return (name, _points(paired.mean), f"{_points(paired.low)} to {_points(paired.high)}", *tested, str(paired.n))


def _pair_cells(pair: Pair) -> tuple[str, ...]:
    return (
        f"{pair.groups[0]} - {pair.groups[1]}",
        _points(pair.difference),
        f"{_points(pair.low)} to {_points(pair.high)}",
        _p(pair.p),
        "" if pair.effect is None else f"{pair.effect:.2f}",
    )


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"


def _p(p: float) -> str:
    return f"< {SMALLEST:.4f}" if p < SMALLEST else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
