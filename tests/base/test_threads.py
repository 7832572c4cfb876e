"""What runs in a thread beside the one that asks for it."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from pipeline.base.threads import Background


def test_functions_run_in_their_order_in_a_thread_of_their_own() -> None:
    done: list[int] = []
    names: set[str] = set()

    def note(number: int) -> None:
        names.add(threading.current_thread().name)
        done.append(number)

    with Background(2) as background:
        for number in range(20):
            background.submit(partial(note, number))
    assert done == list(range(20))
    assert names.isdisjoint({threading.current_thread().name})


def test_who_hands_over_one_too_many_waits() -> None:
    go, begun = threading.Event(), []

    def wait() -> None:
        begun.append(1)
        assert go.wait(10)

    with Background(2) as background:
        background.submit(wait)
        background.submit(wait)
        threading.Timer(0.1, go.set).start()
        assert not go.is_set()
        background.submit(wait)
        assert go.is_set()
    assert len(begun) == 3


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_one_that_fails_none_runs_and_its_error_comes_out(error: type[BaseException]) -> None:
    done: list[int] = []

    def fail() -> None:
        raise error("first")

    def run() -> None:
        with Background(3) as background:
            for function in (partial(done.append, 1), fail, partial(done.append, 2)):
                background.submit(function)

    with pytest.raises(error, match="first"):
        run()
    assert done == [1]


def test_an_error_of_the_block_is_the_one_that_is_told() -> None:
    def fail() -> None:
        raise ValueError("in the background")

    def run() -> None:
        with Background(3) as background:
            background.submit(fail)
            raise KeyError("in the block")

    with pytest.raises(KeyError, match="in the block"):
        run()
