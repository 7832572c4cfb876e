"""What of a training's data lies on its device: chosen by sizes and a budget alone."""

from __future__ import annotations

import logging

import pytest

from pipeline.base.errors import InputError
from pipeline.training.feeder import AHEAD
from pipeline.training.memory import Source, choose_streamed, describe_choice, plan_memory

IMAGES, LOGITS, HINTS = Source("images", 12_300_000_000, 1000), Source("l", 400_000_000, 10), Source("h", 10**10, 500)
ALL = [IMAGES, LOGITS, HINTS]


@pytest.mark.parametrize(
    ("budget", "streamed"),
    [
        (sum(each.bytes for each in ALL), []),
        (sum(each.bytes for each in ALL) - 1, [IMAGES]),
        (10_400_000_000 + AHEAD * 1000, [IMAGES]),
        (10_400_000_000 + AHEAD * 1000 - 1, [IMAGES, HINTS]),  # buffers count, too
        (400_000_000 + AHEAD * 1500, [IMAGES, HINTS]),
        (400_000_000, ALL),
        (1510, ALL),
    ],
)
def test_small_things_come_first(budget: int, streamed: list[Source]) -> None:
    assert choose_streamed(ALL, budget) == set(streamed)
    assert choose_streamed(ALL[::-1], budget) == set(streamed)


def test_a_budget_smaller_than_one_batch_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"--memory .*at least one batch of images, l, h: 1,510 bytes, found 1,509 bytes; give"
    ):
        choose_streamed(ALL, 1509)
    assert not choose_streamed([], 0)


def test_the_choice_is_said_where_there_is_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not plan_memory(ALL, 10**12)
        assert not caplog.messages
        plan_memory(ALL, 10**9)
    assert caplog.messages == ["images 12.3 GB: streamed; l 0.4 GB: on the device; h 10.0 GB: streamed"]
    assert describe_choice([LOGITS], frozenset()) == "l 0.4 GB: on the device"
