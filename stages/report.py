"""Metrics, curves, caches and students -> data/report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stages import cli

if TYPE_CHECKING:
    from pipeline.models.network import Network
    from pipeline.report.drawing import Asked
    from pipeline.report.pictures.canvas import Picture
    from pipeline.report.pictures.choice import Choice
    from pipeline.report.published import Published
    from pipeline.study.layout import Layout
    from pipeline.study.report_section import ReportParams
    from pipeline.study.sections import Study


def report(params: cli.ParamsFile = cli.DEFAULT_PARAMS) -> None:
    """Put teachers and students into one table with pictures (report.md, report.html)."""
    study = cli.open_study(params)
    from pipeline.base.files import write_bytes, write_json
    from pipeline.report.build import build
    from pipeline.report.claims import Claim
    from pipeline.report.drawing import drawn
    from pipeline.report.groups import grouped
    from pipeline.report.histories import history
    from pipeline.report.metrics import STUDENT_KEYS, TEACHER_KEYS
    from pipeline.report.notes import doubts
    from pipeline.report.pictures.choice import choice
    from pipeline.report.table import COLUMNS
    from pipeline.study.layout import Layout
    from stages.run import workshop

    layout = Layout(Path())
    with cli.timed("report"), workshop(layout, "report", layout.report()) as work:
        run_here = [name for name, teacher in study.teachers.items() if teacher.external is None]
        teachers = {name: _metrics(layout, "teacher", name, TEACHER_KEYS) for name in run_here}
        students = {name: _metrics(layout, "student", name, STUDENT_KEYS) for name in study.students}
        logged = "validation/accuracy"
        curves = {name: history(layout.student(name), metrics, logged) for name, metrics in students.items()}
        curves |= _teachers_curves(study.report, teachers)
        chosen = choice(study)
        groups = grouped(students, study.report.groups, study.report.unit)
        pictures, spelt = _pictures(study, chosen, students)
        made = build(
            teachers,
            students,
            groups,
            baseline=study.report.baseline,
            among=study.report.anova,
            curves=curves,
            published=_published(study.report),
            claims=[Claim(name, **claim.model_dump()) for name, claim in study.report.claims.items()],
            pictures=[*drawn(teachers, students, groups, curves, _asked(study, students)), *pictures],
            more_notes=(*chosen.left_out, *spelt),
        )
        for name, picture in made.pictures.items():
            write_bytes(work.out / name, picture)
        write_json(work.out / "statistics.json", made.numbers)
        write_bytes(work.out / "report.md", made.markdown().encode())
        write_bytes(work.out / "report.html", made.html().encode())
    write_json(layout.metrics("report", "summary"), made.summary())
    cli.table("", COLUMNS, (row.cells() for row in made.rows))
    for doubt in doubts(students, teachers):
        cli.warn(doubt)
    typer.echo(f"{layout.report() / 'report.html'}")


def _metrics(layout: Layout, kind: str, name: str, keys: Iterable[str]) -> dict[str, Any]:
    """The metrics file of a teacher or student."""
    from pipeline.base.files import read_json

    fix = layout.how_to_make(f"train-{kind}-{name}", f"train-{kind} {name}")
    made: dict[str, Any] = read_json(layout.metrics(f"{kind}s", name), fix, keys)
    return made


def _teachers_curves(report: ReportParams, teachers: Iterable[str]) -> dict[str, list[list[float]]]:
    """Validation accuracy by epoch of the teachers whose is asked for: the others are no dependency."""
    from pipeline.study.layout import Layout
    from pipeline.training.curves import read_curve

    folders = {name: Layout(Path()).teacher(name) / "curves" for name in teachers if name in report.validated}
    return {name: [read_curve(folder, "validation/accuracy")] for name, folder in folders.items()}


def _published(report: ReportParams) -> Published | None:
    from pipeline.report.published import Published

    given = report.published
    if given is None:
        return None
    return Published(given.of, "error" if given.error else "accuracy", given.error or given.accuracy)


def _asked(study: Study, students: Mapping[str, Mapping[str, Any]]) -> Asked:
    """What the study's report draws beyond what every report does."""
    from pipeline.report.drawing import Asked
    from pipeline.report.histories import loss_terms
    from pipeline.study.layout import Layout

    layout, wanted = Layout(Path()), study.report
    return Asked(
        datasets={name: str(student.dataset) for name, student in study.students.items()},
        published=_published(wanted),
        sweeps=wanted.sweeps,
        terms={name: loss_terms(layout.student(name), students[name]) for name in wanted.terms},
        whole=wanted.curves == "whole",
    )


def _pictures(
    study: Study, chosen: Choice, students: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Picture], list[str]]:
    """The chosen dumps, read with the data and the students that they need; and what their pictures cannot show."""
    if not chosen.dumps:
        return [], []
    from pipeline.datasets.record import load
    from pipeline.report.metrics import best_taught, labels_only
    from pipeline.report.pictures.canvas import letters_spelt
    from pipeline.report.pictures.choice import FEATURES, MOST_STUDENTS
    from pipeline.report.pictures.gather import affinity_picture, feature_picture, hint_pictures, multichannel_picture
    from pipeline.study.layout import Layout
    from stages.run import open_dump

    layout, views = Layout(Path()), study.views.views()
    sets = {name: str(study.dumps[name].dataset) for name in chosen.dumps}
    data = {name: load(layout.prepared(name), resident=False) for name in dict.fromkeys(sets.values())}
    caches = {name: open_dump(study, name, data[sets[name]]) for name in chosen.dumps}
    made: list[Picture] = []
    if chosen.feature_map is not None:
        name, dataset = chosen.feature_map, data[sets[chosen.feature_map]]
        baseline = study.report.baseline or labels_only(students)
        shown = {each: _first(each) for each in best_taught(students, dataset.fingerprint, baseline, MOST_STUDENTS)}
        made.append(feature_picture(name, caches[name], dataset, shown, views, tap=FEATURES))
    for name, learnt in chosen.affinities.items():
        pupils = {student: (_first(student), options) for student, options in learnt.items()}
        made.append(affinity_picture(name, caches[name], data[sets[name]], pupils, views))
    for name in chosen.hints:
        made += hint_pictures(name, caches[name], data[sets[name]], views)
    for name in chosen.multichannel:
        made.append(multichannel_picture(name, caches[name], data[sets[name]], views))
    return made, list(letters_spelt(name for dataset in data.values() for name in dataset.classes))


def _first(student: str) -> Network:
    """A student's network of its first seed."""
    import torch

    from pipeline.models.saved import load_network
    from pipeline.study.layout import Layout

    layout = Layout(Path())
    fix = layout.how_to_make(f"train-student-{student}", f"train-student {student}")
    return load_network(layout.student(student) / "seed-0", torch.device("cpu"), fix)[0]


if __name__ == "__main__":
    cli.main(report)
