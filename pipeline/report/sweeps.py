"""The students of one option's values, as a picture shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.report.figures.sweep import Point
from pipeline.report.figures.sweep import sweep as draw
from pipeline.report.measures import Networks, Part, values_of
from pipeline.report.metrics import Metrics
from pipeline.report.pictures.canvas import Picture
from pipeline.report.published import Published
from pipeline.study.report_section import SweepParams


def picture(
    name: str,
    sweep: SweepParams,
    networks: Networks,
    students: Mapping[str, Metrics],
    published: Published | None = None,
) -> Picture:
    """`sweep-NAME.png`.

    Args:
        name, sweep: which.
        networks: the students' groups, their teachers, and the curves that were logged.
        students: the metrics files, by name.
        published: what the source reports.
    """
    made = points(sweep.values, networks, errors_of(published))
    drawn_of = [networks.groups[group] for group in sweep.values]
    taught_by = {teacher for group in drawn_of for each in group.students for teacher in students[each]["taught_by"]}
    teachers = [teacher for teacher in networks.teachers if teacher in taught_by]
    lines = {f"teacher {each} ({part})": error for each in teachers for part, error in _teacher(each, networks)}
    of = published.metric if published else ""
    return Picture(f"sweep-{name}.png", _caption(sweep.option, made, of), draw(sweep.option, made, lines, of))


def percent(accuracy: float) -> float:
    """An accuracy in [0, 1] as an error in percent."""
    return 100 * (1 - accuracy)


def errors_of(published: Published | None) -> dict[str, float]:
    """What the source reports as errors in percent, by name."""
    if published is None:
        return {}
    return {name: value if published.kind == "error" else 100 - value for name, value in published.values.items()}


def points(values: Mapping[str, float], networks: Networks, source: Mapping[str, float]) -> list[Point]:
    """The groups at their values, in increasing order; those of equal ones as they are given.

    Args:
        values: of the option, by group.
        networks: where they are measured; without validation curves they have no validation errors.
        source: by group, error in percent.
    """
    made = [
        Point(value, _errors(name, "test", networks), _errors(name, "validation", networks), source.get(name))
        for name, value in values.items()
    ]
    return sorted(made, key=lambda point: point.value)


def _errors(name: str, part: Part, networks: Networks) -> tuple[float, ...]:
    """Of a group or a teacher, in percent; empty where no validation accuracy was logged."""
    measured = networks.groups[name].students if name in networks.groups else (name,)
    logged = [networks.curves.get(each, ()) for each in measured]
    if part == "validation" and not all(curves and all(curves) for curves in logged):
        return ()
    return tuple(map(percent, values_of(networks.accuracy(name, part))))


def _teacher(name: str, networks: Networks) -> Iterator[tuple[Part, float]]:
    parts: tuple[Part, ...] = ("test", "validation")
    for part in parts:
        yield from ((part, error) for error in _errors(name, part, networks))


def _caption(option: str, shown: Sequence[Point], of: str) -> str:
    parts = [f"Error against {option}, whose values are evenly spaced, not to scale: test error"]
    if any(point.validation for point in shown):
        parts.append(", and validation error at the end of training (mean over the last twentieth of the epochs)")
    parts.append("; means with their 95 % intervals where there are three values, a small dot for each.")
    if any(point.source is not None for point in shown):
        parts.append(f" Crosses are the source's ({of} error).")
    return "".join(parts)
