"""Metrics and curves -> data/report."""

from __future__ import annotations

from pathlib import Path

import typer

from stages import cli


def report(params: cli.ParamsFile = cli.DEFAULT_PARAMS) -> None:
    """Put teachers and students into one table with pictures (report.md, report.html)."""
    study = cli.open_study(params)
    from rich.console import Console
    from rich.table import Table

    from pipeline import report as room
    from pipeline.curves import read_curve
    from pipeline.files import locked, publish, read_json, remove, write_bytes, write_json
    from pipeline.layout import Layout

    layout, fix = Layout(Path()), "run `dvc repro`"
    with cli.timed("report"), locked(layout.work("report.lock")):
        made = room.build(
            {name: read_json(layout.metrics("teachers", name), fix) for name in study.teachers},
            {name: read_json(layout.metrics("students", name), fix) for name in study.students},
            {
                name: [
                    read_curve(layout.student(name) / f"seed-{k}/curves", "validation/accuracy")
                    for k in range(spec.seeds)
                ]
                for name, spec in study.students.items()
            },
            study.report.baseline,
        )
        work = layout.work("report")
        remove(work)
        for name, picture in made.pictures.items():
            write_bytes(work / name, picture)
        write_bytes(work / "report.md", made.markdown().encode())
        write_bytes(work / "report.html", made.html().encode())
        publish(work, layout.report())
        write_json(layout.metrics("report", "summary"), made.summary())
    table = Table(*room.COLUMNS)
    for row in made.rows:
        table.add_row(*row.cells())
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    console.print(table)
    typer.echo(f"{layout.report() / 'report.html'}")


if __name__ == "__main__":
    cli.main(report)
