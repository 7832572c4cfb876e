"""The `teachercache` command: one subcommand a file."""

from __future__ import annotations

import typer

from stages import cli
from stages.dump_logits import dump_logits
from stages.graph import graph
from stages.prepare import prepare
from stages.report import report
from stages.train_student import train_student
from stages.train_teacher import train_teacher

app = typer.Typer(
    name="teachercache",
    help="Train a teacher once, cache what it knows, train any number of students from the cache alone.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (graph, prepare, train_teacher, dump_logits, train_student, report):
    app.command()(command)


def main() -> None:
    """The console script."""
    cli.main(app)


if __name__ == "__main__":
    main()
