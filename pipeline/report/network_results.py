"""What claims and published numbers are compared with: accuracies of networks, and the epochs that students need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from pipeline.base.errors import InputError
from pipeline.report.groups import Group
from pipeline.report.metrics_files import AccuracyCurves, Metrics

Part = Literal["test", "validation"]
Side = Group | float  # a group's runs, or a teacher's one value

PART_NAMES: dict[Part, str] = {"test": "test", "validation": "end-of-training validation"}
END = 20  # the end of a training is the last of so many parts of it
# Accuracies, points or epochs that are nearer to each other are equal but for rounding (a mean of equal accuracies may
# lie above all of them); one row of a data set is far more.
ROUNDING = 1e-9


def average_end(curve: Sequence[float]) -> float:
    """The mean over the last twentieth of the epochs, rounded down to whole ones, at least one."""
    return fmean(curve[-max(1, len(curve) // END) :])


def first_epoch_reaching(curve: Sequence[float], level: float) -> int | None:
    """The number, from 1, of the first epoch that reaches a level; None where none does."""
    return next((epoch for epoch, accuracy in enumerate(curve, 1) if accuracy >= level - ROUNDING), None)


def list_values(side: Side) -> tuple[float, ...]:
    """What is compared: one value a run or student, one of a teacher."""
    return side.values if isinstance(side, Group) else (side,)


@dataclass(frozen=True)
class EpochComparison:
    """How many epochs two groups need to a validation accuracy.

    Attributes:
        ahead, behind: the groups, their runs being numbers of epochs.
        level: the accuracy in [0, 1].
        never: how many runs of each never reach it.
    """

    ahead: Group
    behind: Group
    level: float
    never: tuple[int, int]


@dataclass(frozen=True)
class Measurements:
    """All that can be measured.

    Attributes:
        groups: of the students, by name.
        teachers: their metrics files, by name.
        curves: by student or teacher; empty where none was logged.
    """

    groups: Mapping[str, Group]
    teachers: Mapping[str, Metrics]
    curves: Mapping[str, AccuracyCurves]

    def accuracy(self, name: str, part: Part) -> Side:
        """Accuracies in [0, 1] of a group or teacher: of the reported epoch on test, or at the end on validation.

        Raises:
            InputError: no validation accuracy was logged.
        """
        if name in self.groups:
            group = self.groups[name]
            return group if part == "test" else self._measure_runs(group, average_end)
        if part == "test":
            return float(self.teachers[name]["test_accuracy"])
        if not any(self.curves.get(name, ())):
            raise _missing_curve_error(
                "teacher", name, "only one that is trained here, on data with a validation part, has it"
            )
        return average_end(self.curves[name][0])

    def compare_epochs(self, ahead: str, behind: str) -> EpochComparison:
        """The epochs to the accuracy that `behind` ends with, the mean over its runs.

        A run of `ahead` that never reaches it counts as one epoch more than it has, the least that it may
        need; a run of `behind` as all that it has.

        Raises:
            InputError: no validation accuracy was logged.
        """
        one, other = self.groups[ahead], self.groups[behind]
        level = fmean(average_end(curve) for curves in self._curves_by_student(other) for curve in curves)
        return EpochComparison(
            self._measure_runs(one, lambda curve: first_epoch_reaching(curve, level) or len(curve) + 1),
            self._measure_runs(other, lambda curve: first_epoch_reaching(curve, level) or len(curve)),
            level,
            (self._count_unreached(one, level), self._count_unreached(other, level)),
        )

    def _count_unreached(self, group: Group, level: float) -> int:
        return sum(
            first_epoch_reaching(curve, level) is None for curves in self._curves_by_student(group) for curve in curves
        )

    def _measure_runs(self, group: Group, measure: Callable[[Sequence[float]], float]) -> Group:
        """The group with another measure of its runs."""
        return replace(group, runs=tuple(tuple(map(measure, curves)) for curves in self._curves_by_student(group)))

    def _curves_by_student(self, group: Group) -> list[AccuracyCurves]:
        """The curves by student, one a seed."""
        return [self._average_peers(name, len(runs)) for name, runs in zip(group.students, group.runs, strict=True)]

    def _average_peers(self, student: str, seeds: int) -> AccuracyCurves:
        """Of each seed the mean over its peers, who are not independent."""
        curves = self.curves.get(student, ())
        if not curves or not all(curves):
            raise _missing_curve_error("student", student, "give its data set a validation part, or compare on test")
        peers = len(curves) // seeds
        return [
            [fmean(peer) for peer in zip(*curves[seed * peers : (seed + 1) * peers], strict=True)]
            for seed in range(seeds)
        ]


def _missing_curve_error(kind: str, name: str, fix: str) -> InputError:
    return InputError(f"{kind} {name!r}", expected="its validation accuracy by epoch", found="none", fix=fix)
