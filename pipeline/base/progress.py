"""Progress bars on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


class Bar(Protocol):
    """Called with the units done so far and a note to show beside the bar."""

    def __call__(self, completed: float, note: str = "") -> None: ...


@contextmanager
def progress_bar(description: str, total: float) -> Iterator[Bar]:
    """A bar on standard error while the block runs; nothing at all where that is no terminal."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(
        *columns, TextColumn("{task.fields[note]}", markup=False), console=console, disable=not sys.stderr.isatty()
    ) as bars:
        task = bars.add_task(description, total=total, note="")
        yield lambda completed, note="": bars.update(task, completed=completed, note=note)


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Pass items on, moving a bar by one for each."""
    with progress_bar(description, total) as bar:
        for done, item in enumerate(items, start=1):
            yield item
            bar(done)
