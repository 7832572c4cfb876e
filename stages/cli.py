"""What every command shares: its exit codes, and how it prints."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pipeline.base.table import Table
    from pipeline.runs import Result


def main(command: Callable[..., Any]) -> None:
    """Run a Typer application or one command function, with the project's exit codes.

    0 done; 2 bad input, one line on standard error; 1 a bug, with its traceback.
    """
    from pipeline.base.environment import set_library_defaults
    from pipeline.base.errors import InputError
    from pipeline.base.files import explain_os_error
    from pipeline.base.full_memory import explain_lack_of_memory
    from pipeline.base.user_cache import set_matplotlib_folder

    set_library_defaults()
    set_matplotlib_folder()
    app = command if isinstance(command, typer.Typer) else single(command)
    try:
        with notices():
            app()
    except InputError as error:
        refuse(error)
    except OSError as error:
        known = explain_os_error(error)
        if known is None:
            raise
        refuse(known)
    except (RuntimeError, MemoryError) as error:
        known = explain_lack_of_memory(error)
        if known is None:
            raise
        refuse(known)


def single(command: Callable[..., Any]) -> typer.Typer:
    """An application of one command, for `python -m stages.NAME`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    return app


def refuse(error: Exception) -> None:
    """Print one line and exit with 2; each of several processes has a line, since each may have its error."""
    print(printable(f"error: {error}"), file=sys.stderr)
    sys.exit(2)


def notice(text: str) -> None:
    """Print one line that people should see, whatever becomes of the output."""
    print(printable(f"note: {text}"), file=sys.stderr)


class Notices(logging.Handler):
    """Prints what the library logs, each line once: what a run warns of, and what else is to be known."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        from pipeline.base.ranks import find_ranks

        line = record.getMessage()
        if line not in self._said and find_ranks().is_first:  # of several processes, each has the same to say
            self._said.add(line)
            doubtful = record.levelno >= logging.WARNING and record.name.startswith("pipeline.runs.")
            (warn if doubtful else notice)(line)


@contextmanager
def notices() -> Iterator[None]:
    """While it is open, what the library has to say stands on standard error."""
    handler, log = Notices(), logging.getLogger("pipeline")
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)


def warn(text: str) -> None:
    """Print one line about what is allowed, and hardly meant."""
    print(printable(f"warning: {text}"), file=sys.stderr)


def printable(text: str) -> str:
    """One line that does nothing to a terminal: names in a stranger's cache may hold anything."""
    from pipeline.base.plain_text import escape_unprintable

    line = escape_unprintable(text)
    return line.encode(sys.stdout.encoding or "ascii", "backslashreplace").decode(sys.stdout.encoding or "ascii")


def show(result: Result, *, as_json: bool = False, sort_keys: bool = False) -> None:
    """Print what a run tells: text (or values as JSON) on standard output, notes and warnings on standard error."""
    from pipeline.base.ranks import find_ranks
    from pipeline.base.table import Table

    if not find_ranks().is_first:
        return
    for line in result.notes:
        notice(line)
    for line in result.warnings:
        warn(line)
    if as_json:
        typer.echo(json.dumps(result.values, indent=2, sort_keys=sort_keys))
        return
    for part in result.text:
        if isinstance(part, Table):
            print_table(part)
        else:
            typer.echo(printable(part))


def echo_json(values: Iterable[Any]) -> None:
    """Print a JSON array value by value: only one of them is text at a time."""
    for number, each in enumerate(values):
        typer.echo(("[" if number == 0 else ",\n ") + json.dumps(each, allow_nan=False), nl=False)
    typer.echo("]")


def storage_options(given: list[str] | None) -> dict[str, str]:
    """What `--storage KEY=VALUE` says; see `_read_pairs`."""
    return _read_pairs("--storage", given)


def read_terms(given: list[str] | None) -> dict[str, str]:
    """What `--terms KEY=VALUE` says; see `_read_pairs`."""
    return _read_pairs("--terms", given)


def read_expectations(given: list[str] | None) -> dict[str, str]:
    """What `--expect KEY=VALUE` says; see `_read_pairs`."""
    return _read_pairs("--expect", given)


def _read_pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """What an option that may be repeated says as KEY=VALUE.

    Raises:
        InputError: no KEY=VALUE.
    """
    from pipeline.base.errors import InputError

    pairs = [item.partition("=") for item in given or ()]
    for key, equals, value in pairs:
        if not key or not equals:
            raise InputError(option, expected="KEY=VALUE", found=f"{key}{equals}{value}")
    return {key: value for key, _, value in pairs}


def read_sample(sample: str | None, seed: int | None, *, without: Mapping[str, bool]) -> float | None:
    """The share that `--sample` asks for, as `1%` or `0.01`; None: it is not given.

    Args:
        sample, seed: as they are given.
        without: options that do not go with it, and whether they are given.

    Raises:
        InputError: it is no share, 0, or more than all; it has an option beside it, or `--seed` stands alone.
    """
    from pipeline.base.errors import InputError

    if sample is None:
        if seed is not None:
            raise InputError("--seed", expected="--sample with it", found="--seed alone")
        return None
    if others := [option for option, is_given in without.items() if is_given]:
        expected = "a quick look, which notes and repairs nothing"
        raise InputError("--sample", expected=expected, found=f"{others[0]} with it")
    try:
        share = float(sample.removesuffix("%")) / (100 if sample.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        expected = "a share such as 1% or 0.01, more than 0 and at most 100%"
        raise InputError("--sample", expected=expected, found=ascii(sample))
    return share


def print_table(table: Table) -> None:
    """Print a table, as wide as it needs where the output is no terminal."""
    from rich import table as rich_table
    from rich.console import Console
    from rich.text import Text

    title = Text(printable(table.title))
    made = rich_table.Table(title=title, title_justify="left", show_header=any(table.columns))
    for column in table.columns:
        made.add_column(Text(printable(column)))
    for row in table.rows:
        made.add_row(*(Text(printable(str(cell))) for cell in row))
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(made)
