"""Progress bars on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pipeline.base.ranks import find_ranks

T = TypeVar("T")


class Bar(Protocol):
    """Called with the units done so far and a note to show beside the bar."""

    def __call__(self, completed: float, note: str = "") -> None: ...


@contextmanager
def progress_bar(description: str, total: float, *, done: float = 0, in_bytes: bool = False) -> Iterator[Bar]:
    """A bar on standard error while the block runs; nothing at all where that is no terminal.

    Args:
        description: what is done.
        total: its units.
        done: those done before.
        in_bytes: a unit is a byte: MB, and MB/s.
    """
    counts: list[ProgressColumn] = [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn()]
    columns = TextColumn("{task.description}", markup=False), BarColumn(), *counts, TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(
        *columns,
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=not (sys.stderr.isatty() and find_ranks().is_first),
    ) as bars:
        task = bars.add_task(description, total=total, completed=int(done), note="")
        yield lambda completed, note="": bars.update(task, completed=completed, note=note)


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Pass items on, moving a bar by one for each."""
    with progress_bar(description, total) as bar:
        for done, item in enumerate(items, start=1):
            yield item
            bar(done)
