"""Which choice is surely faster, with times that are made up; and real steps that fail."""

from __future__ import annotations

import pytest

from pipeline.training.step_times import StepTime, choose_fastest, summarise_seconds

FAILED = StepTime(failure="no such kernel")


def spread(median: float, around: float = 0.5) -> StepTime:
    return StepTime(median, median - around, median + around)


@pytest.mark.parametrize(
    ("others", "fastest"),
    [
        ({}, None),
        ({"a": spread(12)}, None),
        ({"a": spread(8)}, "a"),
        ({"a": spread(8), "b": spread(7), "c": spread(9)}, "b"),
        ({"a": spread(9.2)}, None),  # 9.7 is within 9.5 to 10.5
        ({"a": spread(9)}, None),  # touches
        ({"a": spread(5, 4.6), "b": spread(8)}, "b"),  # the lowest median, and nothing sure
        ({"a": FAILED}, None),
        ({"a": FAILED, "b": spread(8)}, "b"),
    ],
)
def test_only_what_is_faster_by_more_than_the_noise_is_chosen(others: dict[str, StepTime], fastest: str | None) -> None:
    assert choose_fastest({"present": spread(10), **others}, "present") == fastest


def test_where_the_present_one_fails_the_fastest_of_the_others_is_chosen() -> None:
    assert choose_fastest({"present": FAILED, "a": spread(90), "b": spread(80)}, "present") == "b"
    assert choose_fastest({"present": FAILED, "a": FAILED}, "present") is None


def test_times_are_told_by_median_and_quartiles() -> None:
    assert summarise_seconds([5.0, 1.0, 3.0, 100.0, 2.0]) == StepTime(3.0, 2.0, 5.0)
