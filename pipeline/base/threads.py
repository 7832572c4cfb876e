"""Work in threads whose results are taken in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(threads: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """What threads make of each item, in order; at most `ahead` items are begun before their turn."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(threads.submit(function, item))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class Background:
    """Runs functions one after the other in a thread of its own; after one that fails, none.

    What a function raises comes out of a later call, at the latest at the end of the block.

    Args:
        most: functions that wait or run; who hands over one more waits.
    """

    def __init__(self, most: int) -> None:
        self._most, self._failed = most, False
        self._threads = ThreadPoolExecutor(1, "background")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self.finish()
        finally:
            self._threads.shutdown()

    def submit(self, function: Callable[[], None]) -> None:
        """Have a function run after those before it."""
        while len(self._waiting) >= self._most:
            self._waiting.popleft().result()
        self._waiting.append(self._threads.submit(self._run, function))

    def finish(self) -> None:
        """Wait for all of them."""
        while self._waiting:
            self._waiting.popleft().result()

    def _run(self, function: Callable[[], None]) -> None:
        if self._failed:  # it may go on from what the one that failed was to do
            return
        try:
            function()
        except BaseException:
            self._failed = True
            raise
