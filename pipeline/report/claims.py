"""The claims of a study's source, and whether they are reproduced."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from pipeline.base.statistics import FEWEST_VALUES, summarize
from pipeline.report.groups import Group, compare_groups
from pipeline.report.network_results import ROUNDING, EpochComparison, Measurements, Side, list_values
from pipeline.report.page import ReportSection, ReportTable
from pipeline.report.percent import format_percent
from pipeline.report.significance import LEVEL, compute_interval

Metric = Literal["test", "validation", "epochs"]
Method = Literal["paired", "welch", "one-sample"]
Outcome = Literal["reproduced", "not reproduced", "unclear"]

COLUMNS = ("claim", "measured", "difference", "95 % interval", "asked", "verdict")
METRICS: dict[Metric, str] = {
    "test": "test accuracy",
    "validation": "end-of-training validation accuracy",
    "epochs": "epochs",
}
METHODS: dict[Method, str] = {"paired": "paired", "welch": "Welch", "one-sample": "one-sample"}
EPOCH = 1.0  # validation is measured once an epoch: that is how finely epochs are told apart
TOO_FEW = f"fewer than {FEWEST_VALUES} values"


@dataclass(frozen=True)
class Claim:
    """`ahead` is ahead of `behind` by more than `by`.

    Attributes:
        name: in the study.
        text: the source's words.
        ahead, behind: groups or teachers, at most one of them a teacher; two groups where `metric` is epochs.
        metric: accuracy on a part, or the epochs that are saved.
        by: points, or epochs.
    """

    name: str
    text: str
    ahead: str
    behind: str
    metric: Metric
    by: float = 0.0

    @property
    def unit(self) -> str:
        """Of the difference."""
        return "epochs" if self.metric == "epochs" else "points"


@dataclass(frozen=True)
class Estimate:
    """A difference of two means.

    Attributes:
        how: paired by student and seed; Welch's (unequal variances); or one-sample, where one side is a teacher.
        interval: that of 95 %; None where there are too few values.
        reason: why there is none.
    """

    how: Method
    difference: float
    interval: tuple[float, float] | None
    reason: str | None = None

    def scale_by(self, factor: float) -> Estimate:
        """The same in another unit, for a factor above 0."""
        ends = self.interval and (factor * self.interval[0], factor * self.interval[1])
        return Estimate(self.how, factor * self.difference, ends, self.reason)


@dataclass(frozen=True)
class Verdict:
    """What was measured of a claim.

    Attributes:
        claim: the claim.
        values: of `ahead` and of `behind`: accuracies in [0, 1], or numbers of epochs.
        estimate: of what is ahead, in the claim's unit: of ahead - behind, or of the epochs of behind - ahead.
        epochs: where epochs are compared.
    """

    claim: Claim
    values: tuple[Sequence[float], Sequence[float]]
    estimate: Estimate
    epochs: EpochComparison | None = None

    @property
    def outcome(self) -> Outcome:
        """Whether all of the interval lies above what is asked, none of it, or a part."""
        if self.estimate.interval is None:
            return "unclear"
        low, high = self.estimate.interval
        if high <= self.claim.by + ROUNDING:
            return "not reproduced"
        return "reproduced" if low > self.claim.by + ROUNDING and self.reason is None else "unclear"

    @property
    def reason(self) -> str | None:
        """Why a claim cannot be called reproduced, whatever the interval."""
        if self.epochs and self.epochs.never[0]:
            # Their true numbers of epochs are unknown: the least that is possible has been taken.
            return f"{self.epochs.never[0]} of {len(self.values[0])} runs of {self.claim.ahead} never get there"
        return self.estimate.reason

    def numbers(self) -> dict[str, Any]:
        """As JSON, nothing rounded."""
        claim, made = self.claim, self.estimate
        low, high = made.interval or (None, None)
        return {
            "says": claim.text,
            "ahead": claim.ahead,
            "behind": claim.behind,
            "of": claim.metric,
            "by": claim.by,
            "unit": claim.unit,
            "values": _name_sides(map(list, self.values)),
            "n": _name_sides(map(len, self.values)),
            "how": made.how,
            "difference": made.difference,
            "low": low,
            "high": high,
            "verdict": self.outcome,
            "reason": self.reason,
            **({"level": self.epochs.level, "never": _name_sides(self.epochs.never)} if self.epochs else {}),
        }

    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        claim, made, unit = self.claim, self.estimate, self.claim.unit
        ends = "" if made.interval is None else f"{made.interval[0]:+.2f} to {made.interval[1]:+.2f}"
        outcome = self.outcome + (f" ({self.reason})" if self.reason else "")
        return (
            claim.text,
            self._describe_measured(),
            f"{made.difference:+.2f} {unit}",
            ends,
            f"> {claim.by:g} {unit}",
            outcome,
        )

    def _describe_measured(self) -> str:
        """Which side is taken from which, of what, and how."""
        names, counts = (self.claim.ahead, self.claim.behind), tuple(map(len, self.values))
        if self.epochs:
            names, counts = names[::-1], counts[::-1]
        what = METRICS[self.claim.metric] + (
            f" to {format_percent(self.epochs.level)} % on validation" if self.epochs else ""
        )
        n = counts[:1] if self.estimate.how == "paired" else counts
        return f"{' - '.join(names)}, {what}, {METHODS[self.estimate.how]}, n = {' and '.join(map(str, n))}"


def judge_claim(claim: Claim, networks: Measurements) -> Verdict:
    """Measure a claim.

    Raises:
        InputError: it is about validation accuracies that nobody logged.
    """
    if claim.metric == "epochs":
        epochs = networks.compare_epochs(claim.ahead, claim.behind)
        values = epochs.ahead.values, epochs.behind.values
        return Verdict(claim, values, widen_interval(estimate_difference(epochs.behind, epochs.ahead), EPOCH), epochs)
    ahead, behind = (networks.accuracy(name, claim.metric) for name in (claim.ahead, claim.behind))
    return Verdict(claim, (list_values(ahead), list_values(behind)), estimate_difference(ahead, behind).scale_by(100))


def estimate_difference(one: Side, other: Side) -> Estimate:
    """The mean of one - the other with its 95 % interval, paired where the runs of two groups pair."""
    values, others = list_values(one), list_values(other)
    difference = fmean(values) - fmean(others)
    if not (isinstance(one, Group) and isinstance(other, Group)):
        ends = compute_interval([value - teacher for value in values for teacher in others])  # one of the two is single
        return Estimate("one-sample", difference, ends, None if ends else TOO_FEW)
    paired = compare_groups((one, other), other.students[0], among=()).against[one.name]
    if paired.mean is not None and paired.low is not None and paired.high is not None:
        return Estimate("paired", paired.mean, (paired.low, paired.high))
    if paired.n:
        return Estimate("paired", difference, None, paired.reason)
    if min(len(values), len(others)) < FEWEST_VALUES:
        return Estimate("welch", difference, None, TOO_FEW)
    half = _compute_welch_half(values, others)
    return Estimate("welch", difference, (difference - half, difference + half))


def widen_interval(made: Estimate, half: float) -> Estimate:
    """The estimate with an interval of at least `half` on both sides of the difference."""
    if made.interval is None:
        return made
    low, high = (min(made.interval[0], made.difference - half), max(made.interval[1], made.difference + half))
    return replace(made, interval=(low, high))


def _compute_welch_half(values: Sequence[float], others: Sequence[float]) -> float:
    """Half of Welch's interval: t(0.975, f) s with s^2 = v_1 + v_2, v_i = s_i^2 / n_i.

    f = s^4 / (v_1^2 / (n_1 - 1) + v_2^2 / (n_2 - 1)) (Welch and Satterthwaite). 0 where neither group varies.
    """
    from scipy import stats

    made = summarize(values), summarize(others)
    squares = [(each.std or 0.0) ** 2 / each.n for each in made]
    if not any(squares):
        return 0.0
    freedom = sum(squares) ** 2 / sum(square**2 / (each.n - 1) for square, each in zip(squares, made, strict=True))
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(sum(squares))


def build_claims_section(verdicts: Sequence[Verdict]) -> ReportSection:
    """The claims as people read them."""
    return ReportSection("Claims", tuple(_write_blocks(verdicts)))


def _write_blocks(verdicts: Sequence[Verdict]) -> Iterator[str | ReportTable]:
    yield (
        "A claim is reproduced where the whole 95 % interval of its difference lies above what is asked, not "
        "reproduced where none of it does, and unclear otherwise. Intervals are paired where the statistics above pair "
        "them, Welch's where they cannot (other data sets or numbers of runs), of one sample against a teacher's one "
        f"value; they are not corrected for the number of claims ({len(verdicts)}), and tell of the students' own "
        "spread alone: each teacher was trained once."
    )
    yield ReportTable(COLUMNS, tuple(each.cells() for each in verdicts), texts=2, quoted=True)
    if any(each.claim.metric == "validation" for each in verdicts):
        yield "End-of-training validation accuracy: the mean over the last twentieth of the epochs."
    raced = [each for each in verdicts if each.epochs]
    if raced:
        yield (
            "Epochs: the number, from 1, of the first whose validation accuracy reaches what the group said to be "
            "behind ends with (the mean over its runs, and over the last twentieth of their epochs). A run of that "
            "group that never reaches it counts as all its epochs, which speaks against the claim; where a run of the "
            "other never does, the claim cannot be called reproduced, and the difference shown takes it as one epoch "
            "more than it has. An interval is at least one epoch wide to either side: equal numbers of epochs are no "
            "proof of equal speed."
        )
    yield from dict.fromkeys(map(_describe_unreached, raced))


def _describe_unreached(made: Verdict) -> str:
    """How many runs have no such epoch."""
    assert made.epochs is not None
    sides = zip((made.epochs.ahead, made.epochs.behind), made.epochs.never, strict=True)
    told = (f"{never} of {sum(map(len, side.runs))} runs of {side.name}" for side, never in sides)
    where = f"{format_percent(made.epochs.level)} % on validation, where {made.epochs.behind.name} ends"
    return f"{where}: never reached by {' and '.join(told)}."


def _name_sides(both: Iterable[Any]) -> dict[str, Any]:
    return dict(zip(("ahead", "behind"), both, strict=True))
