"""The pictures of the metrics themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from pipeline.comparisons import interval
from pipeline.figures.accuracy import box_plot
from pipeline.figures.curves import curves as draw_curves
from pipeline.figures.pareto import Point, pareto
from pipeline.figures.weights import weights as draw_weights
from pipeline.pictures.canvas import Picture
from pipeline.report.groups import UNITS, Group, families
from pipeline.report.metrics import Metrics
from pipeline.report.weights import scheduled

Curves = Sequence[Sequence[float]]  # one validation-accuracy curve a seed


def drawn(
    teachers: Mapping[str, Metrics],
    students: Mapping[str, Metrics],
    groups: Sequence[Group],
    curves: Mapping[str, Curves],
) -> Iterator[Picture]:
    """What there is to see of teachers and students.

    Args:
        teachers, students: the metrics files, by name.
        groups: of the students, as `grouped` makes them.
        curves: by student, one validation-accuracy curve a seed; empty without validation part.
    """
    values = {group.name: group.values for group in groups}
    dot = UNITS[groups[0].unit if groups else "run"]
    yield Picture(
        "accuracy.png",
        "",
        box_plot(values, {name: metrics["test_accuracy"] for name, metrics in teachers.items()}, dot),
    )
    points, comparable = _points(teachers, students, groups)
    yield Picture(
        "pareto.png",
        "Test accuracy against size, bars its 95 % interval; a group's size is its students' mean. Lines join the "
        "networks that no smaller one equals, among students of one data set and their teachers. Networks of one size "
        "stand side by side.",
        pareto(points, comparable),
    )
    yield Picture("curves.png", "", draw_curves(_of_groups(curves, groups)))
    changing = scheduled(students)
    if changing:
        yield Picture(
            "weights.png",
            "What each loss term weighs in each epoch, for the students with a weight that changes; an upright line "
            "parts two phases.",
            draw_weights(changing),
        )


def _points(
    teachers: Mapping[str, Metrics], students: Mapping[str, Metrics], groups: Sequence[Group]
) -> tuple[dict[str, Point], list[list[str]]]:
    """Teachers and groups by name, and the names of those that may be compared."""
    points = {
        f"teacher {name}": Point(metrics["test_accuracy"], None, metrics["parameters"], metrics["bytes"], teacher=True)
        for name, metrics in teachers.items()
    }
    for group in groups:
        parameters, size = (fmean(students[name][key] for name in group.students) for key in ("parameters", "bytes"))
        points[group.name] = Point(fmean(group.values), interval(group.values), parameters, size)
    comparable = []
    for family in families(groups):
        taught_by = {name for group in family for student in group.students for name in students[student]["taught_by"]}
        comparable.append(
            [*(f"teacher {name}" for name in teachers if name in taught_by), *(group.name for group in family)]
        )
    return points, comparable


def _of_groups(curves: Mapping[str, Curves], groups: Sequence[Group]) -> dict[str, Curves]:
    """The curves of each group's runs; student by student where they are not equally long."""
    there = {name: seeds for name, seeds in curves.items() if seeds and seeds[0]}
    made: dict[str, Curves] = {}
    for group in groups:
        own = {name: there[name] for name in group.students if name in there}
        lengths = {len(seed) for seeds in own.values() for seed in seeds}
        made |= {group.name: [seed for seeds in own.values() for seed in seeds]} if len(lengths) == 1 else own
    return made
