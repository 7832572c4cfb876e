"""Processes that meet at a store in which earlier ones have left their names."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import pytest

from pipeline.base import meeting
from pipeline.base.meeting import agree_on_round


class Shared:
    """A store of one process."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lock = Lock()

    def set(self, key: str, value: str) -> Any:
        with self.lock:
            self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        with self.lock:
            return self.values[key]

    def check(self, keys: list[str]) -> bool:
        with self.lock:
            return all(key in self.values for key in keys)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "PAUSE", 0.002)


def meet(store: Shared, count: int, delays: dict[int, float] | None = None) -> list[str]:
    def come(number: int) -> str:
        time.sleep((delays or {}).get(number, 0.0))
        return agree_on_round(store, number, count, 20.0)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(come, range(count)))


@pytest.mark.parametrize("late", range(3))
def test_all_have_one_name_whoever_comes_last_and_another_after_each_restart(late: int) -> None:
    store = Shared()
    rounds = [meet(store, 3, {late: 0.05}) for _ in range(4)]
    assert all(len({*names}) == 1 for names in rounds)
    assert len({names[0] for names in rounds}) == 4


@pytest.mark.parametrize("gone", range(3))
def test_one_that_died_before_all_had_come_keeps_nobody(gone: int) -> None:
    """It had said who it is, and perhaps that it is there: its successor is another."""
    store = Shared()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(agree_on_round, store, number, 3, 0.1) for number in range(3) if number != gone]
        waiting.append(pool.submit(agree_on_round, store, gone, 4, 0.05))  # of four: nobody else will have come
        assert all(isinstance(each.exception(), RuntimeError) for each in waiting)
    names = meet(store, 3)
    assert len({*names}) == 1


def test_a_first_one_whose_place_is_taken_leads_no_more() -> None:
    store = Shared()
    with ThreadPoolExecutor(1) as pool:
        old = pool.submit(agree_on_round, store, 0, 2, 20.0)
        time.sleep(0.05)
        assert len({*meet(store, 2)}) == 1
        with pytest.raises(RuntimeError, match="in the place of this one"):
            old.result()


def test_nobody_waits_for_ever() -> None:
    with pytest.raises(RuntimeError, match="not all of 2 processes have come within 0 s"):
        agree_on_round(Shared(), 1, 2, 0.01)
