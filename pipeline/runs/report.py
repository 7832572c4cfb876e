"""Metrics, curves, caches and students -> data/report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.base.files import write_bytes, write_json
from pipeline.cache import Cache
from pipeline.datasets.dataset import Dataset, load_dataset
from pipeline.models.network import Network
from pipeline.models.network_files import load_network
from pipeline.report.build import build_report
from pipeline.report.claims import Claim
from pipeline.report.grid_sweeps import derive_sweeps
from pipeline.report.groups import group_students
from pipeline.report.histories import read_history, read_loss_terms
from pipeline.report.metrics_files import STUDENT_KEYS, TEACHER_KEYS, Metrics, find_labels_only, select_best_taught
from pipeline.report.metrics_pictures import PictureOptions, draw_metrics
from pipeline.report.notes import list_doubts
from pipeline.report.page import Report
from pipeline.report.pictures.canvas import Picture, describe_spelled_letters
from pipeline.report.pictures.dump_choice import FEATURES, MOST_STUDENTS, Choice, choose_dumps
from pipeline.report.pictures.from_caches import (
    draw_affinity_picture,
    draw_feature_picture,
    draw_hint_pictures,
    draw_multichannel_picture,
)
from pipeline.report.published import Published
from pipeline.report.table import COLUMNS, PAGES_ALONE
from pipeline.runs.caches import open_dump
from pipeline.runs.metrics_files import read_metrics
from pipeline.runs.networks import find_network
from pipeline.runs.result import Result, Table
from pipeline.runs.stage_work import in_study_folder, open_stage_work, record_seconds
from pipeline.study.layout import Layout
from pipeline.study.report_section import ReportParams, SweepParams
from pipeline.study.sections import Study
from pipeline.training.curves import read_curve

Students = Mapping[str, Metrics]
ACCURACY = "validation/accuracy"


@in_study_folder
def write_report(study: Study) -> Result:
    """Put teachers and students into one table with pictures (report.md, report.html)."""
    layout = Layout(Path())
    with record_seconds("report"), open_stage_work(layout, "report", layout.report()) as work:
        teachers = {name: _read_metrics(study, "teacher", name, TEACHER_KEYS) for name in study.teachers_run_here}
        students = {name: _read_metrics(study, "student", name, STUDENT_KEYS) for name in study.students}
        made = _build(study, teachers, students)
        _write(made, work.out)
    write_json(layout.metrics("report", "summary"), made.summary())
    shown = [column for column in COLUMNS if column not in PAGES_ALONE]
    table = Table("", shown, [row.cells_of(shown) for row in made.rows])
    return Result(
        made.summary(),
        text=(table, f"{layout.report() / 'report.html'}"),
        warnings=tuple(list_doubts(students, teachers)),
    )


def _read_metrics(study: Study, kind: Literal["teacher", "student"], name: str, keys: Iterable[str]) -> dict[str, Any]:
    """The metrics file of a teacher or student."""
    layout = Layout(Path())
    fix = layout.how_to_train(kind, study.find_stage_name(name))
    return read_metrics(layout.metrics(f"{kind}s", name), kind, fix, keys)


def _build(study: Study, teachers: Mapping[str, Metrics], students: Students) -> Report:
    layout, wanted = Layout(Path()), study.report
    curves = {name: read_history(layout.student(name), metrics, ACCURACY) for name, metrics in students.items()}
    curves |= _teacher_curves(wanted, teachers)
    chosen = choose_dumps(study)
    groups = group_students(students, wanted.groups, wanted.unit)
    pictures, spelt = _draw_caches(study, chosen, students)
    return build_report(
        teachers,
        students,
        groups,
        baseline=wanted.baseline,
        among=wanted.anova,
        curves=curves,
        published=_published(wanted),
        claims=[Claim(name, **claim.model_dump()) for name, claim in wanted.claims.items()],
        pictures=[*draw_metrics(teachers, students, groups, curves, _picture_options(study, students)), *pictures],
        more_notes=(*chosen.left_out, *spelt),
        title=wanted.title or _name_folder(layout.root.resolve()),
    )


def _name_folder(folder: Path) -> str:
    """A study's name where it states none: its folder's, unless a clone may call that anything."""
    is_root = any((folder / mark).exists() for mark in (".git", ".dvc"))
    return "Report" if is_root else folder.name or "Report"


def _write(made: Report, folder: Path) -> None:
    for name, picture in made.pictures.items():
        write_bytes(folder / name, picture)
    write_json(folder / "statistics.json", made.numbers)
    write_bytes(folder / "report.md", made.markdown().encode())
    write_bytes(folder / "report.html", made.html().encode())


def _teacher_curves(report: ReportParams, teachers: Iterable[str]) -> dict[str, list[list[float]]]:
    """Validation accuracy by epoch of the teachers whose is asked for: the others are no dependency."""
    folders = {name: Layout(Path()).teacher(name) / "curves" for name in teachers if name in report.validated_names}
    return {name: [read_curve(folder, ACCURACY)] for name, folder in folders.items()}


def _published(report: ReportParams) -> Published | None:
    given = report.published
    if given is None:
        return None
    return Published(given.metric, "error" if given.error else "accuracy", given.error or given.accuracy)


def _picture_options(study: Study, students: Students) -> PictureOptions:
    """What the study's report draws beyond what every report does."""
    layout, wanted = Layout(Path()), study.report
    return PictureOptions(
        datasets={name: str(student.dataset) for name, student in study.students.items()},
        published=_published(wanted),
        sweeps={**_derive_sweeps(study), **wanted.sweeps},
        terms={name: read_loss_terms(layout.student(name), students[name]) for name in wanted.terms},
        whole=wanted.curves == "whole",
    )


def _derive_sweeps(study: Study) -> dict[str, SweepParams]:
    """The sweeps that the study's grids are, of members that are compared as themselves."""
    grouped = {name for names in study.report.groups.values() for name in names}
    made: dict[str, SweepParams] = {}
    for grid, members in study.grids.items():
        made |= derive_sweeps(grid, {name: values for name, values in members.items() if name not in grouped})
    return made


def _draw_caches(study: Study, chosen: Choice, students: Students) -> tuple[list[Picture], list[str]]:
    """The chosen dumps, read with the data and the students that they need; and what their pictures cannot show."""
    if not chosen.dumps:
        return [], []
    layout, views = Layout(Path()), study.views.views()
    sets = {name: str(study.dumps[name].dataset) for name in chosen.dumps}
    loaded = {name: load_dataset(layout.prepared(name), resident=False) for name in dict.fromkeys(sets.values())}
    data = {name: loaded[sets[name]] for name in chosen.dumps}
    caches = {name: open_dump(study, name, data[name]) for name in chosen.dumps}
    made: list[Picture] = []
    if chosen.feature_map is not None:
        made.append(_draw_features(study, chosen.feature_map, caches, data, students))
    for name, learnt in chosen.affinities.items():
        pupils = {student: (_first_network(study, student), options) for student, options in learnt.items()}
        made.append(draw_affinity_picture(name, caches[name], data[name], pupils, views))
    for name in chosen.hints:
        made += draw_hint_pictures(name, caches[name], data[name], views)
    for name in chosen.multichannel:
        made.append(draw_multichannel_picture(name, caches[name], data[name], views))
    return made, list(describe_spelled_letters(name for dataset in loaded.values() for name in dataset.classes))


def _draw_features(
    study: Study, dump: str, caches: Mapping[str, Cache], data: Mapping[str, Dataset], students: Students
) -> Picture:
    """The teacher's features of a dump beside those of the students that did best."""
    fingerprint = data[dump].fingerprint
    baselines = study.report.baselines or (find_labels_only(students),)
    baseline = next((name for name in baselines if name and students[name]["dataset"] == fingerprint), None)
    best = select_best_taught(students, fingerprint, baseline, MOST_STUDENTS)
    networks = {each: _first_network(study, each) for each in best}
    return draw_feature_picture(dump, caches[dump], data[dump], networks, study.views.views(), tap=FEATURES)


def _first_network(study: Study, student: str) -> Network:
    """A student's network of its first seed."""
    folder, fix = find_network(study, student, 0)
    return load_network(folder, torch.device("cpu"), fix)[0]
