"""The pictures of the metrics themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from pipeline.base.errors import join_names
from pipeline.report.figures.accuracy import draw_box_plot
from pipeline.report.figures.curves import draw_curves
from pipeline.report.figures.loss_terms import TermCurves, draw_terms
from pipeline.report.figures.loss_weights import draw_weights
from pipeline.report.figures.pareto import MEASURES, NetworkPoint, draw_pareto
from pipeline.report.groups import UNITS, Group, group_by_datasets
from pipeline.report.loss_weights import collect_changing_weights
from pipeline.report.metrics_files import AccuracyCurves, Metrics
from pipeline.report.network_results import Measurements
from pipeline.report.pictures.canvas import Picture
from pipeline.report.published import Published
from pipeline.report.significance import compute_interval
from pipeline.report.sweeps import draw_sweep_picture, list_source_errors
from pipeline.study.report_section import SweepParams


@dataclass(frozen=True)
class PictureOptions:
    """What a study draws beyond the pictures that every study has.

    Attributes:
        datasets: by student, the name of its data set.
        published: the source's numbers.
        sweeps: by name, options drawn against error.
        terms: by student, its loss terms over the epochs.
        whole: whether curves show the first epochs too.
    """

    datasets: Mapping[str, str] = field(default_factory=dict)
    published: Published | None = None
    sweeps: Mapping[str, SweepParams] = field(default_factory=dict)
    terms: Mapping[str, TermCurves] = field(default_factory=dict)
    whole: bool = False


def draw_metrics(
    teachers: Mapping[str, Metrics],
    students: Mapping[str, Metrics],
    groups: Sequence[Group],
    curves: Mapping[str, AccuracyCurves],
    asked: PictureOptions = PictureOptions(),
) -> Iterator[Picture]:
    """Draw the pictures of the metrics of teachers and students.

    Args:
        teachers, students: the metrics files, by name.
        groups: of the students, as `group_students` makes them.
        curves: by student (or teacher), one validation-accuracy curve a network; empty without validation part.
        asked: what else is drawn.
    """
    yield _draw_boxes(teachers, groups, asked.published)
    points, comparable = _collect_points(teachers, students, groups)
    yield Picture(
        "pareto.png",
        "Test accuracy against size, bars its 95 % interval; a group's size is its students' mean. Lines join the "
        "networks that no smaller one equals, among students of one data set and their teachers. Networks of one size "
        "stand side by side; bits are those of the network as it is deployed.",
        draw_pareto(points, comparable),
    )
    yield Picture("curves.png", "", draw_curves(_collect_panels(curves, groups, asked.datasets), whole=asked.whole))
    networks = Measurements({group.name: group for group in groups}, teachers, curves)
    for name, sweep in asked.sweeps.items():
        yield draw_sweep_picture(name, sweep, networks, students, asked.published)
    if asked.terms:
        yield Picture(
            "terms.png",
            "What each loss term adds to the loss in each epoch of a student's own phase, its weight included: the "
            "mean over its networks, their range shaded, and the validation error on the right axis. A symmetric log "
            "axis is linear around zero and logarithmic on both sides of that.",
            draw_terms(asked.terms),
        )
    changing = collect_changing_weights(students)
    if changing:
        yield Picture(
            "weights.png",
            "What each loss term weighs in each epoch, for the students with a weight that changes, those with equal "
            "weights together; an upright line parts two phases.",
            draw_weights(changing),
        )


def _draw_boxes(teachers: Mapping[str, Metrics], groups: Sequence[Group], published: Published | None) -> Picture:
    """Test accuracies, with the source's where it reports such."""
    of_test = published if published and published.metric == "test" else None
    source = {name: 1 - error / 100 for name, error in list_source_errors(of_test).items()}
    lines = {name: metrics["test_accuracy"] for name, metrics in teachers.items()}
    dot = UNITS[groups[0].unit if groups else "run"]
    return Picture(
        "accuracy.png", "", draw_box_plot({group.name: group.values for group in groups}, lines, dot, source)
    )


def _collect_points(
    teachers: Mapping[str, Metrics], students: Mapping[str, Metrics], groups: Sequence[Group]
) -> tuple[dict[str, NetworkPoint], list[list[str]]]:
    """Teachers and groups by name, and the names of those that may be compared."""
    points = {
        f"teacher {name}": NetworkPoint(metrics["test_accuracy"], None, average_sizes([metrics]), teacher=True)
        for name, metrics in teachers.items()
    }
    for group in groups:
        sizes = average_sizes([students[name] for name in group.students])
        points[group.name] = NetworkPoint(fmean(group.values), compute_interval(group.values), sizes)
    comparable = []
    for family in group_by_datasets(groups):
        taught_by = {name for group in family for student in group.students for name in students[student]["taught_by"]}
        comparable.append(
            [*(f"teacher {name}" for name in teachers if name in taught_by), *(group.name for group in family)]
        )
    return points, comparable


def average_sizes(networks: Sequence[Metrics]) -> dict[str, float]:
    """The mean sizes, by measure; without one that any network lacks, or has none of: axes are logarithmic."""
    keys = {measure: measure.replace("-", "_") for measure in MEASURES}
    known = {measure: key for measure, key in keys.items() if all(metrics.get(key) for metrics in networks)}
    return {measure: fmean(metrics[key] for metrics in networks) for measure, key in known.items()}


def _collect_panels(
    curves: Mapping[str, AccuracyCurves], groups: Sequence[Group], datasets: Mapping[str, str]
) -> list[tuple[str, dict[str, AccuracyCurves]]]:
    """The curves of each family of groups, titled with its data sets."""
    made = [(_join_datasets(family, datasets), _collect_curves(curves, family)) for family in group_by_datasets(groups)]
    return [(title, shown) for title, shown in made if shown]


def _join_datasets(family: Sequence[Group], datasets: Mapping[str, str]) -> str:
    """The first of its data sets' names, and how many more there are."""
    names = list(dict.fromkeys(datasets.get(student, "") for group in family for student in group.students))
    return join_names(names)


def _collect_curves(curves: Mapping[str, AccuracyCurves], groups: Sequence[Group]) -> dict[str, AccuracyCurves]:
    """The curves of each group's runs; student by student where they are not equally long."""
    there = {name: seeds for name, seeds in curves.items() if seeds and seeds[0]}
    made: dict[str, AccuracyCurves] = {}
    for group in groups:
        own = {name: there[name] for name in group.students if name in there}
        lengths = {len(seed) for seeds in own.values() for seed in seeds}
        made |= {group.name: [seed for seeds in own.values() for seed in seeds]} if len(lengths) == 1 else own
    return made
