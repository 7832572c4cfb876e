"""What of a training's data lies on its device: chosen by sizes and a budget alone."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.base.errors import InputError
from pipeline.datasets.dataset import Dataset, write_images
from pipeline.training import rows
from pipeline.training.feeder import AHEAD
from pipeline.training.memory import Source, choose_streamed, describe_choice, plan_memory
from pipeline.training.rows import Splits, count_evaluation_batch, evaluate, measure_images

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


@pytest.mark.parametrize(
    ("shape", "batch"),
    [
        ((1, 28, 28), 1000),
        ((3, 32, 32), 1000),
        ((3, 64, 64), 1000),
        ((3, 96, 96), 606),
        ((3, 224, 224), 111),
        ((3, 8000, 8000), 1),
    ],
)
def test_an_evaluation_s_batch_depends_on_the_images_alone(shape: tuple[int, int, int], batch: int) -> None:
    assert count_evaluation_batch(shape) == batch


@pytest.mark.parametrize("in_a_file", [False, True])
def test_an_evaluation_has_batches_of_that_size(
    tmp_path: Path, in_a_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.zeros((10, 1, 4, 4), np.uint8)
    labels = np.arange(10) % 2
    file = write_images(tmp_path / "images.npy", images.shape, [images])
    dataset = Dataset(file if in_a_file else images, labels, (3, 3), ("a", "b"), np.arange(10))
    splits = Splits.from_dataset(dataset, torch.device("cpu"), streamed=in_a_file)
    seen: list[int] = []

    class Watching(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            seen.append(len(batch))
            return torch.zeros(len(batch), 2)

    monkeypatch.setattr(rows, "EVALUATION_BYTES", 4 * 16 * 3 + 4)
    evaluate(Watching(), splits.test)
    assert seen == [3, 3, 1]
    assert measure_images(dataset, batch_size=1).batch_bytes == 3 * 16
