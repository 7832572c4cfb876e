"""The statistics as people read them: what is compared, then tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.base.statistics import FEWEST_VALUES, summarize
from pipeline.report.groups import UNITS, Comparisons, Group, Unit
from pipeline.report.page import ReportTable
from pipeline.report.percent import format_interval, format_percent, format_points
from pipeline.report.significance import Anova, Pair, PairedTest, compute_interval

MOST_PAIRS = 20  # of Tukey's: more are no table that anybody reads
MOST_NAMES = 8  # in a sentence
FAMILY_ERROR_RATE = 0.05  # the family-wise error rate
SMALLEST_P = 0.0001  # p-value that is told: none is nought

GROUPS = ("group", "students", "test accuracy (%)", "std", "95 % interval", "n")
AGAINST = ("group", "difference (points)", "95 % interval", "p", "d", "n")
PAIRS = ("pair", "difference (points)", "95 % interval", "p", "g")
PARTNERS: dict[Unit, str] = {
    "run": "the same place in the group and the same seed",
    "student": "the same place in the group",
}


def build_statistics_section(compared: Comparisons) -> Iterator[str | ReportTable]:
    """The blocks of the section; none without students."""
    if not compared.groups:
        return
    yield f"A value is the test accuracy of {UNITS[compared.groups[0].unit]}; all numbers: `statistics.json`."
    if compared.too_few:
        yield f"Fewer than {FEWEST_VALUES} values, not computed: {', '.join(compared.too_few)}."
    if any(len(group.students) > 1 for group in compared.groups):
        yield ReportTable(GROUPS, tuple(map(_format_group, compared.groups)), texts=2)
    yield from _describe_paired(compared)
    for analysis in compared.analyses:
        yield from _describe_analysis(analysis)


def _describe_paired(compared: Comparisons) -> Iterator[str | ReportTable]:
    """The paired differences from each baseline, then what has none."""
    if not compared.baselines:
        yield "No student learns from labels alone; `report: {baseline: NAME}` names one to compare the others with."
    rule = (
        "p is that of the paired t test, not corrected for the number of rows; d = mean / std of the differences "
        "(Cohen's d_z)."
    )
    for base in compared.baselines:
        against = {name: compared.against[name] for name in base.others}
        rows = [_format_paired(name, paired) for name, paired in against.items() if paired.mean is not None]
        if rows:
            paired_by = f"How far ahead of {base.group.name}, paired by {PARTNERS[base.group.unit]}."
            yield f"{paired_by} {rule}" if rule else paired_by
            yield ReportTable(AGAINST, tuple(rows))
            rule = ""  # once
        yield from _explain_unpaired(base.group.name, against, compared.too_few)
    if compared.uncompared:
        yield f"Compared with no baseline: {', '.join(compared.uncompared)}."


def _explain_unpaired(base: str, against: Mapping[str, PairedTest], too_few: Sequence[str]) -> Iterator[str]:
    """Why groups have no difference from their baseline, or no p; that there are too few values was said."""
    reasons: dict[str, list[str]] = {}
    for name, paired in against.items():
        if paired.reason is not None and name not in too_few and base not in too_few:
            reasons.setdefault(paired.reason, []).append(name)
    for reason, names in reasons.items():
        tested = against[names[0]].mean is not None
        yield f"{'No p' if tested else f'Not paired with {base}'}, {reason}: {', '.join(names)}."


def _describe_analysis(analysis: Anova) -> Iterator[str | ReportTable]:
    """One line of the analysis of variance, and the pairs that are worth reading."""
    groups = _list_groups(analysis.groups)
    if analysis.f is None or analysis.p is None:
        if len(analysis.groups) > 1:  # else it was said that the others are too few
            yield f"No analysis of variance of {groups}: {analysis.reason}."
        return
    yield (
        f"One-way analysis of variance of {groups}: F({analysis.df_between}, {analysis.df_within}) = {analysis.f:.2f}, "
        f"p {'' if analysis.p < SMALLEST_P else '= '}{_format_p(analysis.p)}, eta² = {analysis.eta_squared:.3f}, "
        f"omega² = {analysis.omega_squared:.3f}."
    )
    shown = _select_pairs(analysis.pairs)
    differ = sum(pair.p < FAMILY_ERROR_RATE for pair in analysis.pairs)
    part = f", the {len(shown)} of largest difference below" if 0 < len(shown) < differ else ""
    yield (
        f"Tukey's honestly significant difference: {differ} of {len(analysis.pairs)} pairs differ{part}, at a "
        f"family-wise error rate of {FAMILY_ERROR_RATE}; intervals and p are corrected for all pairs. g: Hedges' g."
    )
    if shown:
        yield ReportTable(PAIRS, tuple(map(_format_pair, shown)))


def _list_groups(groups: Sequence[str]) -> str:
    return ", ".join(groups) if len(groups) <= MOST_NAMES else f"{len(groups)} groups ({groups[0]}, ..., {groups[-1]})"


def _select_pairs(pairs: Sequence[Pair]) -> Sequence[Pair]:
    """All, or where they are too many the largest differences that are none by chance."""
    if len(pairs) <= MOST_PAIRS:
        return pairs
    return sorted((pair for pair in pairs if pair.p < FAMILY_ERROR_RATE), key=lambda pair: -abs(pair.difference))[
        :MOST_PAIRS
    ]


def _format_group(group: Group) -> tuple[str, ...]:
    made = summarize(group.values)
    return (
        group.name,
        ", ".join(group.students),
        format_percent(made.mean),
        format_percent(made.std),
        format_interval(compute_interval(group.values)),
        str(made.n),
    )


def _format_paired(name: str, paired: PairedTest) -> tuple[str, ...]:
    assert paired.mean is not None
    assert paired.low is not None
    assert paired.high is not None
    tested = ("", "") if paired.p is None or paired.effect is None else (_format_p(paired.p), f"{paired.effect:.2f}")
    return (
        name,
        format_points(paired.mean),
        f"{format_points(paired.low)} to {format_points(paired.high)}",
        *tested,
        str(paired.n),
    )


def _format_pair(pair: Pair) -> tuple[str, ...]:
    return (
        f"{pair.groups[0]} - {pair.groups[1]}",
        format_points(pair.difference),
        f"{format_points(pair.low)} to {format_points(pair.high)}",
        _format_p(pair.p),
        "" if pair.effect is None else f"{pair.effect:.2f}",
    )


def _format_p(p: float) -> str:
    return f"< {SMALLEST_P:.4f}" if p < SMALLEST_P else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
