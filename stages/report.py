"""Metrics and curves -> data/report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stages import cli

if TYPE_CHECKING:
    from pipeline.report import Row


def report(params: cli.ParamsFile = cli.DEFAULT_PARAMS) -> None:
    """Put teachers and students into one table with pictures (report.md, report.html)."""
    study = cli.open_study(params)
    from pipeline import report as room
    from pipeline.curves import read_curve
    from pipeline.files import read_json, write_bytes, write_json
    from pipeline.layout import Layout
    from stages.run import workshop

    layout, fix = Layout(Path()), "run `dvc repro`"
    with cli.timed("report"), workshop(layout, "report", layout.report()) as work:
        teachers, students = (
            {name: read_json(layout.metrics(kind, name), fix, keys) for name in names}
            for kind, names, keys in (
                ("teachers", [n for n, t in study.teachers.items() if t.external is None], room.TEACHER_KEYS),
                ("students", study.students, room.STUDENT_KEYS),
            )
        )
        curves = {
            name: [
                read_curve(layout.student(name) / f"seed-{number}/curves", "validation/accuracy")
                for number in range(len(metrics["test_accuracy_per_seed"]))
            ]
            for name, metrics in students.items()
        }
        made = room.build(teachers, students, curves, study.report.baseline)
        for name, picture in made.pictures.items():
            write_bytes(work.out / name, picture)
        write_bytes(work.out / "report.md", made.markdown().encode())
        write_bytes(work.out / "report.html", made.html().encode())
    write_json(layout.metrics("report", "summary"), made.summary())
    _show(made.rows)
    typer.echo(f"{layout.report() / 'report.html'}")


def _show(rows: tuple[Row, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    from pipeline.report import COLUMNS

    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row.cells())
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


if __name__ == "__main__":
    cli.main(report)
