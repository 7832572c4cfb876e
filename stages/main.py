"""The `teachercache` command: one subcommand a file."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from stages import cli
from stages.cache_convert import convert
from stages.cache_create import create
from stages.cache_diff import diff
from stages.cache_inspect import inspect
from stages.cache_merge import merge
from stages.cache_pull import pull
from stages.cache_push import push
from stages.cache_sign import sign
from stages.cache_verify import verify
from stages.cost import cost
from stages.dump import dump
from stages.dump_affinities import dump_affinities
from stages.dump_field import dump_command
from stages.dump_hints import dump_hints
from stages.dump_logits import dump_logits
from stages.dump_multichannel import dump_multichannel
from stages.export import export
from stages.fidelity import fidelity
from stages.graph import graph
from stages.plan import plan
from stages.predict import predict
from stages.prepare import prepare
from stages.report import report
from stages.train_student import train_student
from stages.train_teacher import train_teacher
from stages.tune import tune


class Commands(TyperGroup):
    """The commands, and `dump-FIELD` of a field that has none of its own."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        field = cmd_name.removeprefix("dump-")
        found = super().get_command(ctx, cmd_name)
        if found is not None or field == cmd_name:
            return found
        from pipeline.dumps import FIELDS  # loads pydantic: not for --help

        if field not in FIELDS.entries:
            return None
        return get_command(cli.single(dump_command(field, f"Compute field {field}, once, and seal it in a cache.")))


app = typer.Typer(
    name="teachercache",
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    graph,
    plan,
    prepare,
    train_teacher,
    dump,
    dump_logits,
    dump_hints,
    dump_affinities,
    dump_multichannel,
    train_student,
    report,
    cost,
    tune,
    fidelity,
    export,
    predict,
):
    app.command()(command)


tools = typer.Typer(name="cache", no_args_is_help=True, help="Look at caches, check, sign, convert, make, share them.")
for tool in (inspect, verify, sign, convert, diff, create, merge, push, pull):
    tools.command()(tool)
app.add_typer(tools)


def print_version(wanted: bool) -> None:
    """What `--version` does."""
    if wanted:
        from pipeline import __version__

        typer.echo(f"teachercache {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=print_version, is_eager=True)] = False,
) -> None:
    """Train a teacher once, cache what it knows, train any number of students from the cache alone."""


def main() -> None:
    """The console script."""
    cli.main(app)


if __name__ == "__main__":
    main()
