"""The claims of a study's source, and whether they are reproduced."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from pipeline.base.statistics import FEWEST_VALUES, summarize
from pipeline.report.comparisons import LEVEL, interval
from pipeline.report.groups import Group, compare
from pipeline.report.measures import Networks, Race, Side, values_of
from pipeline.report.page import Section, Table

Metric = Literal["test", "validation", "epochs"]
How = Literal["paired", "welch", "one-sample"]
Outcome = Literal["reproduced", "not reproduced", "unclear"]

COLUMNS = ("claim", "measured", "difference", "95 % interval", "asked", "verdict")
WHAT: dict[Metric, str] = {
    "test": "test accuracy",
    "validation": "end-of-training validation accuracy",
    "epochs": "epochs",
}
HOW: dict[How, str] = {"paired": "paired", "welch": "Welch", "one-sample": "one-sample"}
# Points or epochs: an end of an interval that is nearer to what is asked lies at it, but for rounding.
ROUNDING = 1e-9
EPOCH = 1.0  # validation is measured once an epoch: that is how finely epochs are told apart
FEW = f"fewer than {FEWEST_VALUES} values"


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

    how: How
    difference: float
    interval: tuple[float, float] | None
    reason: str | None = None

    def times(self, factor: float) -> Estimate:
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
        race: where epochs are compared.
    """

    claim: Claim
    values: tuple[Sequence[float], Sequence[float]]
    estimate: Estimate
    race: Race | None = None

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
        if self.race and self.race.never[0]:
            # Their true numbers of epochs are unknown: the least that is possible has been taken.
            return f"{self.race.never[0]} of {len(self.values[0])} runs of {self.claim.ahead} never get there"
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
            "values": _by_side(map(list, self.values)),
            "n": _by_side(map(len, self.values)),
            "how": made.how,
            "difference": made.difference,
            "low": low,
            "high": high,
            "verdict": self.outcome,
            "reason": self.reason,
            **({"level": self.race.level, "never": _by_side(self.race.never)} if self.race else {}),
        }

    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        claim, made, unit = self.claim, self.estimate, self.claim.unit
        ends = "" if made.interval is None else f"{made.interval[0]:+.2f} to {made.interval[1]:+.2f}"
        outcome = self.outcome + (f" ({self.reason})" if self.reason else "")
        return (claim.text, self._measured(), f"{made.difference:+.2f} {unit}", ends, f"> {claim.by:g} {unit}", outcome)

    def _measured(self) -> str:
        """Which side is taken from which, of what, and how."""
        names, counts = (self.claim.ahead, self.claim.behind), tuple(map(len, self.values))
        if self.race:
            names, counts = names[::-1], counts[::-1]
        what = WHAT[self.claim.metric] + (f" to {_percent(self.race)} on validation" if self.race else "")
        n = counts[:1] if self.estimate.how == "paired" else counts
        return f"{' - '.join(names)}, {what}, {HOW[self.estimate.how]}, n = {' and '.join(map(str, n))}"


def verdict(claim: Claim, networks: Networks) -> Verdict:
    """Measure a claim.

    Raises:
        InputError: it is about validation accuracies that nobody logged.
    """
    if claim.metric == "epochs":
        race = networks.race(claim.ahead, claim.behind)
        values = race.ahead.values, race.behind.values
        return Verdict(claim, values, at_least_wide(estimate(race.behind, race.ahead), EPOCH), race)
    ahead, behind = (networks.accuracy(name, claim.metric) for name in (claim.ahead, claim.behind))
    return Verdict(claim, (values_of(ahead), values_of(behind)), estimate(ahead, behind).times(100))


def estimate(one: Side, other: Side) -> Estimate:
    """The mean of one - the other with its 95 % interval, paired where the runs of two groups pair."""
    values, others = values_of(one), values_of(other)
    difference = fmean(values) - fmean(others)
    if not (isinstance(one, Group) and isinstance(other, Group)):
        ends = interval([value - teacher for value in values for teacher in others])  # one of the two is single
        return Estimate("one-sample", difference, ends, None if ends else FEW)
    paired = compare((one, other), other.students[0], among=()).against[one.name]
    if paired.mean is not None and paired.low is not None and paired.high is not None:
        return Estimate("paired", paired.mean, (paired.low, paired.high))
    if paired.n:
        return Estimate("paired", difference, None, paired.reason)
    if min(len(values), len(others)) < FEWEST_VALUES:
        return Estimate("welch", difference, None, FEW)
    half = _welch(values, others)
    return Estimate("welch", difference, (difference - half, difference + half))


def at_least_wide(made: Estimate, half: float) -> Estimate:
    """The estimate with an interval of at least `half` on both sides of the difference."""
    if made.interval is None:
        return made
    low, high = (min(made.interval[0], made.difference - half), max(made.interval[1], made.difference + half))
    return replace(made, interval=(low, high))


def _welch(values: Sequence[float], others: Sequence[float]) -> float:
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


def section(verdicts: Sequence[Verdict]) -> Section:
    """The claims as people read them."""
    return Section("Claims", tuple(_blocks(verdicts)))


def _blocks(verdicts: Sequence[Verdict]) -> Iterator[str | Table]:
    yield (
        "A claim is reproduced where the whole 95 % interval of its difference lies above what is asked, not "
        "reproduced where none of it does, and unclear otherwise. Intervals are paired where the statistics above pair "
        "them, Welch's where they cannot (other data sets or numbers of runs), of one sample against a teacher's one "
        f"value; they are not corrected for the number of claims ({len(verdicts)}), and tell of the students' own "
        "spread alone: each teacher was trained once."
    )
    yield Table(COLUMNS, tuple(each.cells() for each in verdicts), texts=2, quoted=True)
    if any(each.claim.metric == "validation" for each in verdicts):
        yield "End-of-training validation accuracy: the mean over the last twentieth of the epochs."
    races = [each for each in verdicts if each.race]
    if races:
        yield (
            "Epochs: the number, from 1, of the first whose validation accuracy reaches what the group said to be "
            "behind ends with (the mean over its runs, and over the last twentieth of their epochs). A run of that "
            "group that never reaches it counts as all its epochs, which speaks against the claim; where a run of the "
            "other never does, the claim cannot be called reproduced, and the difference shown takes it as one epoch "
            "more than it has. An interval is at least one epoch wide to either side: equal numbers of epochs are no "
            "proof of equal speed."
        )
    yield from dict.fromkeys(map(_never, races))


def _never(made: Verdict) -> str:
    """How many runs have no such epoch."""
    assert made.race is not None
    sides = zip((made.race.ahead, made.race.behind), made.race.never, strict=True)
    told = (f"{never} of {sum(map(len, side.runs))} runs of {side.name}" for side, never in sides)
    where = f"{_percent(made.race)} on validation, where {made.race.behind.name} ends"
    return f"{where}: never reached by {' and '.join(told)}."


def _percent(race: Race) -> str:
    return f"{100 * race.level:.2f} %"


def _by_side(both: Iterable[Any]) -> dict[str, Any]:
    return dict(zip(("ahead", "behind"), both, strict=True))
