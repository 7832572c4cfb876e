"""The metrics of all stages -> the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.report.claims import Claim, build_claims_section, judge_claim
from pipeline.report.groups import Group, compare_groups
from pipeline.report.metrics_files import AccuracyCurves, Metrics, find_labels_only
from pipeline.report.network_results import Measurements
from pipeline.report.notes import write_notes
from pipeline.report.page import Report, ReportSection
from pipeline.report.pictures.canvas import Picture
from pipeline.report.published import Published, build_source_section, collect_source_numbers, compare_with_source
from pipeline.report.statistics_json import collect_statistics
from pipeline.report.statistics_section import build_statistics_section
from pipeline.report.table import build_rows


def build_report(
    teachers: Mapping[str, Metrics],
    students: Mapping[str, Metrics],
    groups: Sequence[Group],
    *,
    baseline: str | Mapping[str, Sequence[str]] | None = None,
    among: Sequence[str] | None = None,
    curves: Mapping[str, AccuracyCurves] | None = None,
    published: Published | None = None,
    claims: Sequence[Claim] = (),
    pictures: Iterable[Picture] = (),
    more_notes: Iterable[str] = (),
    title: str = "Report",
) -> Report:
    """Build the report from the metrics of all stages.

    Args:
        teachers, students: the metrics files, by name, in the order to show.
        groups: of the students, as `group_students` makes them.
        baseline: the student that the others are compared with, or by such student the groups that are; by default
            the first that learns from labels alone.
        among: the groups of the analysis of variance; None: all.
        curves: validation accuracy by epoch, by student (of every seed and of all its peers) or teacher.
        published: the source's numbers.
        claims: of the source.
        pictures: of the metrics, and of what is cached.
        more_notes: what they leave out.
        title: the study's name.

    Raises:
        InputError: a published number or a claim is about validation accuracies that nobody logged.
    """
    compared = compare_groups(groups, baseline or find_labels_only(students), among)
    networks = Measurements({group.name: group for group in groups}, teachers, curves or {})
    sections, more = _build_source_sections(published, claims, networks)
    pictures = list(pictures)
    return Report(
        rows=tuple(build_rows(teachers, students, compared.baseline_students)),
        notes=(*write_notes(students, compared.baselines, teachers), *more_notes),
        sections=(ReportSection("Statistics", tuple(build_statistics_section(compared))), *sections),
        numbers=collect_statistics(compared, students, more),
        pictures={picture.name: picture.png for picture in pictures},
        captions={picture.name: picture.caption for picture in pictures if picture.caption},
        title=title,
    )


def _build_source_sections(
    published: Published | None, claims: Sequence[Claim], networks: Measurements
) -> tuple[list[ReportSection], dict[str, Any]]:
    """The sections about a study's source, and their numbers by key; none of what the study does not state."""
    sections: list[ReportSection] = []
    made: dict[str, Any] = {}
    if published:
        found = compare_with_source(published, networks)
        sections.append(build_source_section(published, found))
        made["published"] = collect_source_numbers(published, found)
    if claims:
        verdicts = [judge_claim(claim, networks) for claim in claims]
        sections.append(build_claims_section(verdicts))
        made["claims"] = {each.claim.name: each.numbers() for each in verdicts}
    return sections, made
