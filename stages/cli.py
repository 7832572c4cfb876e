"""What every command shares: its options, its exit codes, the study it works on."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from pipeline.cache.codecs import Codec, Format
    from pipeline.runs.result import Result
    from pipeline.study.sections import Study

T = TypeVar("T")

ParamsFile = Annotated[
    Path, typer.Option("--params", help="The study's parameters; paths in them start at its folder.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:NUMBER.")]
CacheArgument = Annotated[str, typer.Argument(help="A cache: its folder, or a URL (https://, s3://, dvc://, ...).")]
StorageOptions = Annotated[
    list[str] | None, typer.Option("--storage", help="KEY=VALUE for the URL's file system; may be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
DEFAULT_PARAMS = Path("params.yaml")


def main(command: Callable[..., Any]) -> None:
    """Run a Typer application or one command function, with the project's exit codes.

    0 done; 2 bad input, one line on standard error; 1 a bug, with its traceback.
    """
    # OpenMP's threads wait by spinning, on the core that the other run needs: measured, two
    # trainings on two cores took 9 to 120 times longer a step; with a short spin 1.5 to 2 times,
    # and a lone one 1.0 to 1.2 times. Read when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # MKL promises the same bits from run to run only in this mode (memory may be aligned otherwise).
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    from pipeline.base.errors import InputError
    from pipeline.base.files import explain_os_error
    from pipeline.base.user_folders import set_matplotlib_folder

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


def single(command: Callable[..., Any]) -> typer.Typer:
    """An application of one command, for `python -m stages.NAME`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    return app


def refuse(error: Exception) -> None:
    """Print one line and exit with 2."""
    print(printable(f"error: {error}"), file=sys.stderr)
    sys.exit(2)


def notice(text: str) -> None:
    """Print one line that people should see, whatever becomes of the output."""
    print(printable(f"note: {text}"), file=sys.stderr)


class Notices(logging.Handler):
    """Prints what the library logs, each line once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if line not in self._said:
            self._said.add(line)
            notice(line)


@contextmanager
def notices() -> Iterator[None]:
    """While it is open, what the library has to say stands on standard error."""
    handler, log = Notices(), logging.getLogger("pipeline")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def warn(text: str) -> None:
    """Print one line about what is allowed, and hardly meant."""
    print(printable(f"warning: {text}"), file=sys.stderr)


def printable(text: str) -> str:
    """One line that does nothing to a terminal: names in a stranger's cache may hold anything."""
    from pipeline.base.plain_text import escape_unprintable

    line = escape_unprintable(text)
    return line.encode(sys.stdout.encoding or "ascii", "backslashreplace").decode(sys.stdout.encoding or "ascii")


def open_study(params: Path) -> Study:
    """Validate a study and go to its folder, where its paths start."""
    from pipeline.runs import open_study as read_study

    study = read_study(params)
    os.chdir(study.folder)
    return study


def show(result: Result) -> None:
    """Print what a run tells: text on standard output, notes and warnings on standard error."""
    from pipeline.runs.result import Table

    for line in result.notes:
        notice(line)
    for line in result.warnings:
        warn(line)
    for part in result.text:
        if isinstance(part, Table):
            table(part.title, part.columns, part.rows)
        else:
            typer.echo(printable(part))


def storage_options(given: list[str] | None) -> dict[str, str]:
    """What `--storage KEY=VALUE` says.

    Raises:
        InputError: no KEY=VALUE.
    """
    from pipeline.base.errors import InputError

    pairs = [item.partition("=") for item in given or ()]
    for key, equals, value in pairs:
        if not key or not equals:
            raise InputError("--storage", expected="KEY=VALUE", found=f"{key}{equals}{value}")
    return {key: value for key, _, value in pairs}


def refuse_existing(target: Path) -> None:
    """A cache is written to a new place, never over something else or into another cache.

    Raises:
        InputError: something is there already, or the place lies in a cache.
    """
    from pipeline.base.errors import InputError

    try:
        there = bool(target.lstat())
    except OSError as error:  # a name, say, that the file system does not take
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise InputError(
                str(target), expected="a folder that can be made", found=str(error.strerror), fix="choose another"
            ) from None
        there = False
    around = next((folder for folder in target.absolute().parents if (folder / "manifest.json").exists()), None)
    if around is not None:
        raise InputError(
            str(target),
            expected="a place outside of any cache",
            found=f"the cache {around} around it",
            fix="choose another",
        )

    if there:
        raise InputError(str(target), expected="a new folder", found="something that is there", fix="choose another")


def refuse_codec(codec: Codec | None, store: Format) -> None:
    """Raise InputError for a compression that a store does not have; None leaves the choice open."""
    from pipeline.base.errors import InputError
    from pipeline.cache.codecs import CODECS

    if codec is not None and codec not in CODECS[store]:
        raise InputError("--codec", expected=f"one of {', '.join(CODECS[store])} for {store}", found=codec)


@contextmanager
def work_beside(target: Path) -> Iterator[Path]:
    """Unfinished work for an output outside of the study's layout: hidden beside it, gone when it is done or refused.

    It stays where the same command may go on from it: after a kill, a full disk or a network's failure.

    Raises:
        InputError: no folder can be made there, or another process works there.
    """
    from pipeline.base.errors import InputError, NotNowError
    from pipeline.base.files import explain_os_error, hold_lock, remove_path

    folder = target.absolute().parent / f".{target.name}.work"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error) or InputError(
            str(target), expected="a folder that can be made", found=str(error.strerror), fix="choose another"
        ) from None
    try:
        with hold_lock(folder / "lock"):
            yield folder / "work"
    except NotNowError:
        raise
    except InputError:
        remove_path(folder)
        raise
    remove_path(folder)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table, as wide as it needs where the output is no terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(printable(title)), title_justify="left", show_header=any(columns))
    for column in columns:
        made.add_column(Text(printable(column)))
    for row in rows:
        made.add_row(*(Text(printable(str(cell))) for cell in row))
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(made)
