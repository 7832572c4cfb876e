"""The metrics of all stages -> the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.pictures.canvas import Picture
from pipeline.report.comparing import section
from pipeline.report.groups import Group, compare
from pipeline.report.metrics import Metrics, labels_only
from pipeline.report.notes import notes
from pipeline.report.numbers import numbers
from pipeline.report.page import Report
from pipeline.report.table import rows


def build(
    teachers: Mapping[str, Metrics],
    students: Mapping[str, Metrics],
    groups: Sequence[Group],
    *,
    baseline: str | None = None,
    among: Sequence[str] | None = None,
    pictures: Iterable[Picture] = (),
    more_notes: Iterable[str] = (),
) -> Report:
    """Put the metrics of all stages together.

    Args:
        teachers, students: the metrics files, by name, in the order to show.
        groups: of the students, as `grouped` makes them.
        baseline: the student that the others are compared with; by default the first that learns
            from labels alone.
        among: the groups of the analysis of variance; None: all.
        pictures: of the metrics, and of what is cached.
        more_notes: what they leave out.
    """
    compared = compare(groups, baseline or labels_only(students), among)
    baselines = compared.baseline.students if compared.baseline else ()
    pictures = list(pictures)
    return Report(
        rows=tuple(rows(teachers, students, baselines)),
        notes=(*notes(students, baselines, teachers), *more_notes),
        statistics=tuple(section(compared)),
        numbers=numbers(compared, students),
        pictures={picture.name: picture.png for picture in pictures},
        captions={picture.name: picture.caption for picture in pictures if picture.caption},
    )
