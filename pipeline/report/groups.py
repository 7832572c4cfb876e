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
class Baseline:
    """What other groups are compared with.

    Attributes:
        group: that.
        others: the names of those groups.
    """

    group: Group
    others: tuple[str, ...]


def find_baselines(groups: Sequence[Group], baseline: str | Mapping[str, Sequence[str]] | None) -> tuple[Baseline, ...]:
    """The baselines: one for all other groups, or each for its own.

    Args:
        groups: of all students.
        baseline: a student, whose group it is; or by such student the names of the groups that are compared with it.
    """
    if baseline is None:
        return ()
    group_of = {student: group for group in reversed(groups) for student in group.students}
    if isinstance(baseline, str):
        base = group_of[baseline]
        return (Baseline(base, tuple(group.name for group in groups if group is not base)),)
    return tuple(Baseline(group_of[student], tuple(names)) for student, names in baseline.items())


@dataclass(frozen=True)
class Comparisons:
    """All comparisons.

    Attributes:
        groups: in the study's order.
        baselines: what they are compared with.
        against: by group, its paired comparison with its baseline.
        analyses: one for each set of data sets on which several groups are measured.
    """

    groups: Sequence[Group]
    baselines: Sequence[Baseline]
    against: Mapping[str, PairedTest]
    analyses: tuple[Anova, ...]

    @property
    def too_few(self) -> tuple[str, ...]:
        """The groups that have too few values for anything to be computed."""
        return tuple(group.name for group in self.groups if len(group.values) < FEWEST_VALUES)

    @property
    def uncompared(self) -> tuple[str, ...]:
        """The groups that have no baseline and are none, where others have one."""
        named = {name for each in self.baselines for name in (each.group.name, *each.others)}
        return tuple(group.name for group in self.groups if self.baselines and group.name not in named)

    @property
    def baseline_students(self) -> dict[str, tuple[str, ...]]:
        """By student, those of its baseline; of a baseline that has no other, its own group's."""
        found = {each.group.name: each.group.students for each in self.baselines}
        found |= {name: each.group.students for each in self.baselines for name in each.others}
        return {name: found[group.name] for group in self.groups if group.name in found for name in group.students}


def compare_groups(
    groups: Sequence[Group], baseline: str | Mapping[str, Sequence[str]] | None, among: Sequence[str] | None = None
) -> Comparisons:
    """Each group with its baseline, and all groups with each other.

    Args:
        groups: of all students.
        baseline: as `find_baselines` takes it.
        among: the groups of the analysis of variance; None: all.
    """
    baselines, by_name = find_baselines(groups, baseline), {group.name: group for group in groups}
    against = {name: _pair_with_baseline(by_name[name], base.group) for base in baselines for name in base.others}
    several = [family for family in group_by_datasets(groups, among) if len(family) > 1]
    analyses = tuple(analyse_variance({group.name: group.values for group in family}) for family in several)
    return Comparisons(groups, baselines, against, analyses)


def _pair_with_baseline(group: Group, baseline: Group) -> PairedTest:
    """Paired by the student's place in its group, and by the seed's number where a value is a run."""
    if set(group.datasets) != set(baseline.datasets):
        return explain_unpaired("other data sets")
    if group.datasets != baseline.datasets:
        return explain_unpaired("another number of students, or in another order of data sets")
    if group.unit == "run" and list(map(len, group.runs)) != list(map(len, baseline.runs)):
        return explain_unpaired("another number of seeds")
    return run_paired_t_test(group.values, baseline.values)
