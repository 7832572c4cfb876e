"""Groups of students and what is compared between them: plain values of their metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from pipeline.base.statistics import FEWEST_VALUES
from pipeline.report.metrics_files import Metrics
from pipeline.report.significance import Anova, PairedTest, analyse_variance, explain_unpaired, run_paired_t_test

Unit = Literal["run", "student"]
UNITS: dict[Unit, str] = {"run": "one run (seed)", "student": "one student, the mean over its seeds"}


@dataclass(frozen=True)
class Group:
    """Students that are one thing to compare, such as one method on each fold.

    Attributes:
        name: the group's, or the lone student's.
        students: their names.
        datasets: the fingerprints of their data sets, by student.
        runs: test accuracies in [0, 1], by student and seed.
        unit: what one value is.
    """

    name: str
    students: tuple[str, ...]
    datasets: tuple[str, ...]
    runs: tuple[tuple[float, ...], ...]
    unit: Unit

    @property
    def values(self) -> tuple[float, ...]:
        """What is compared."""
        if self.unit == "student":
            return tuple(map(fmean, self.runs))
        return tuple(value for runs in self.runs for value in runs)


def group_students(
    students: Mapping[str, Metrics], named: Mapping[str, Sequence[str]], unit: Unit
) -> tuple[Group, ...]:
    """The groups, each where its first student stands; students that no group names are groups of their own."""
    group_of = {student: name for name, members in named.items() for student in members}
    members = {group_of.get(name, name): named.get(group_of.get(name, ""), (name,)) for name in students}
    return tuple(
        Group(
            name,
            tuple(each),
            tuple(students[student]["dataset"] for student in each),
            tuple(tuple(students[student]["test_accuracy_per_seed"]) for student in each),
            unit,
        )
        for name, each in members.items()
    )


def group_by_datasets(groups: Iterable[Group], among: Sequence[str] | None = None) -> list[list[Group]]:
    """The groups (those named, or all) by the data sets that they are measured on: each list may be compared."""
    found: dict[frozenset[str], list[Group]] = {}
    for group in groups:
        if among is None or group.name in among:
            found.setdefault(frozenset(group.datasets), []).append(group)
    return list(found.values())


@dataclass(frozen=True)
class Comparisons:
    """All comparisons.

    Attributes:
        groups: in the study's order.
        baseline: the baseline's group, if there is a baseline.
        against: by group, its paired comparison with the baseline's.
        analyses: one for each set of data sets on which several groups are measured.
    """

    groups: Sequence[Group]
    baseline: Group | None
    against: Mapping[str, PairedTest]
    analyses: tuple[Anova, ...]

    @property
    def too_few(self) -> tuple[str, ...]:
        """The groups that have too few values for anything to be computed."""
        return tuple(group.name for group in self.groups if len(group.values) < FEWEST_VALUES)


def compare_groups(groups: Sequence[Group], baseline: str | None, among: Sequence[str] | None = None) -> Comparisons:
    """Each group with the baseline's, and all groups with each other.

    Args:
        groups: of all students.
        baseline: a student; its group is what the others are paired with.
        among: the groups of the analysis of variance; None: all.
    """
    base = next((group for group in groups if baseline in group.students), None)
    against = {
        group.name: _pair_with_baseline(group, base) for group in groups if base is not None and group is not base
    }
    several = [family for family in group_by_datasets(groups, among) if len(family) > 1]
    analyses = tuple(analyse_variance({group.name: group.values for group in family}) for family in several)
    return Comparisons(groups, base, against, analyses)


def _pair_with_baseline(group: Group, baseline: Group) -> PairedTest:
    """Paired by the student's place in its group, and by the seed's number where a value is a run."""
    if set(group.datasets) != set(baseline.datasets):
        return explain_unpaired("other data sets")
    if group.datasets != baseline.datasets:
        return explain_unpaired("another number of students, or in another order of data sets")
    if group.unit == "run" and list(map(len, group.runs)) != list(map(len, baseline.runs)):
        return explain_unpaired("another number of seeds")
    return run_paired_t_test(group.values, baseline.values)
