"""The students of one option's values, as a picture shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.report.figures.sweep import SweepPoint, draw_sweep
from pipeline.report.metrics_files import Metrics
from pipeline.report.network_results import Measurements, Part, list_values
from pipeline.report.percent import error_percent
from pipeline.report.pictures.canvas import Picture
from pipeline.report.published import Published
from pipeline.study.report_section import SweepParams


def draw_sweep_picture(
    name: str,
    sweep: SweepParams,
    networks: Measurements,
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
    made = collect_points(sweep.values, networks, list_source_errors(published))
    drawn_of = [networks.groups[group] for group in sweep.values]
    taught_by = {teacher for group in drawn_of for each in group.students for teacher in students[each]["taught_by"]}
    teachers = [teacher for teacher in networks.teachers if teacher in taught_by]
    lines = {f"teacher {each} ({part})": error for each in teachers for part, error in _measure_teacher(each, networks)}
    of = published.metric if published else ""
    return Picture(
        f"sweep-{name}.png", _write_caption(sweep.option, made, of), draw_sweep(sweep.option, made, lines, of)
    )


def list_source_errors(published: Published | None) -> dict[str, float]:
    """What the source reports as errors in percent, by name."""
    if published is None:
        return {}
    return {name: value if published.kind == "error" else 100 - value for name, value in published.values.items()}


def collect_points(
    values: Mapping[str, float], networks: Measurements, source: Mapping[str, float]
) -> list[SweepPoint]:
    """The groups at their values, in increasing order; those of equal ones as they are given.

    Args:
        values: of the option, by group.
        networks: where they are measured; without validation curves they have no validation errors.
        source: by group, error in percent.
    """
    made = [
        SweepPoint(
            value,
            _measure_errors(name, "test", networks),
            _measure_errors(name, "validation", networks),
            source.get(name),
        )
        for name, value in values.items()
    ]
    return sorted(made, key=lambda point: point.value)


def _measure_errors(name: str, part: Part, networks: Measurements) -> tuple[float, ...]:
    """Of a group or a teacher, in percent; empty where no validation accuracy was logged."""
    measured = networks.groups[name].students if name in networks.groups else (name,)
    logged = [networks.curves.get(each, ()) for each in measured]
    if part == "validation" and not all(curves and all(curves) for curves in logged):
        return ()
    return tuple(map(error_percent, list_values(networks.accuracy(name, part))))


def _measure_teacher(name: str, networks: Measurements) -> Iterator[tuple[Part, float]]:
    parts: tuple[Part, ...] = ("test", "validation")
    for part in parts:
        yield from ((part, error) for error in _measure_errors(name, part, networks))


def _write_caption(option: str, shown: Sequence[SweepPoint], of: str) -> str:
    parts = [f"Error against {option}, whose values are evenly spaced, not to scale: test error"]
    if any(point.validation for point in shown):
        parts.append(", and validation error at the end of training (mean over the last twentieth of the epochs)")
    parts.append("; means with their 95 % intervals where there are three values, a small dot for each.")
    if any(point.source is not None for point in shown):
        parts.append(f" Crosses are the source's ({of} error).")
    return "".join(parts)
