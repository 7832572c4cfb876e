"""Blocks of samples: every sample once, window by window, whatever the sizes."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.seeds import derive_seed
from pipeline.models.network import Network
from pipeline.runs.training import training_options as read_training_options
from pipeline.study.sections import TrainingParams
from pipeline.training.batches import Batch
from pipeline.training.network_trainer import History
from pipeline.training.rows import Splits
from pipeline.training.sample_order import BlockOrder, RandomOrder, shuffle_blocks, shuffle_samples
from tests.training.test_training import ce, same, splits, train, training_options

__all__ = ["splits"]  # a fixture
BLOCKS = partial(shuffle_blocks, rows=20, window=4)

SIZES = [
    (samples, rows, window)
    for samples in (1, 7, 64, 1000)
    for rows in (1, 3, 64, 5000)
    for window in (1, 2, 16, 10_000)
]


@pytest.mark.parametrize(("samples", "rows", "window"), SIZES)
def test_each_epoch_has_every_sample_once(samples: int, rows: int, window: int) -> None:
    order = BlockOrder(samples, 3, rows=rows, window=window)
    assert len(order) == samples
    for epoch in range(3):
        assert torch.equal(order.ids(epoch).sort().values, torch.arange(samples))


def open_blocks(ids: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """At each place, the number of blocks of which a sample came, or comes just there, and another is still to come."""
    blocks, first = np.unique(ids // rows, return_index=True)
    last = len(ids) - 1 - np.unique((ids // rows)[::-1], return_index=True)[1]
    change = np.bincount(first, minlength=len(ids) + 1) - np.bincount(last + 1, minlength=len(ids) + 1)
    assert len(blocks) == -(-len(ids) // rows)
    return np.cumsum(change)[:-1]


@pytest.mark.parametrize(("samples", "rows", "window"), SIZES)
def test_no_more_blocks_than_a_window_are_read_at_once(samples: int, rows: int, window: int) -> None:
    order = BlockOrder(samples, 3, rows=rows, window=window)
    assert all(open_blocks(order.ids(epoch).numpy(), rows).max() <= window for epoch in range(3))


@pytest.mark.parametrize(("blocks", "sizes"), [(65, [33, 32]), (64, [64]), (3, [3]), (130, [44, 43, 43])])
def test_windows_have_as_many_blocks_to_one(blocks: int, sizes: list[int]) -> None:
    ids = BlockOrder(blocks * 50, 3, rows=50, window=64).ids(0)
    windows = np.split(ids.numpy() // 50, np.cumsum(sizes)[:-1] * 50)
    assert [len(np.unique(window)) for window in windows] == sizes


def test_a_window_is_shuffled_as_a_whole_and_so_are_the_blocks() -> None:
    """Of 4 samples in 2 blocks, every order is as likely as any other that keeps to its windows."""
    for window, possible in ((2, 24), (1, 8)):
        order = BlockOrder(4, 3, rows=2, window=window)
        drawn = Counter(tuple(order.ids(epoch).tolist()) for epoch in range(4800))
        assert len(drawn) == possible
        assert max(abs(count - 4800 / possible) for count in drawn.values()) < 5 * (4800 / possible) ** 0.5


def test_an_order_is_a_function_of_seed_and_epoch() -> None:
    order = BlockOrder(1000, 3, rows=10, window=5)
    fourth = order.ids(4)
    assert torch.equal(fourth, BlockOrder(1000, 3, rows=10, window=5).ids(4))  # with no epoch before it
    assert torch.equal(fourth, order.ids(4))
    others = BlockOrder(1000, 2, rows=10, window=5), BlockOrder(1000, 3, rows=10, window=6)
    assert not any(torch.equal(fourth, other) for other in (order.ids(5), *(other.ids(4) for other in others)))


@pytest.mark.parametrize("chunk_rows", [1, 7, 10, 64, 5000])
@pytest.mark.parametrize("order", [BlockOrder(1000, 3, rows=10, window=5), BlockOrder(1003, 3, rows=64, window=3)])
def test_so_many_chunks_at_hand_are_fetched_once(order: BlockOrder, chunk_rows: int) -> None:
    room, held, fetched = order.count_chunks(chunk_rows), list[int](), 0
    for chunk in (order.ids(2) // chunk_rows).tolist():
        if chunk in held:
            held.remove(chunk)
        else:
            fetched += 1
        held = [*held, chunk][-room:]  # the least recently used is given up
    chunks = -(-order.samples // chunk_rows)
    shared = -(-order.samples // order.rows)  # a chunk that lies across two blocks may be needed in two windows
    assert fetched <= chunks + (shared if order.rows % chunk_rows else 0)
    assert RandomOrder(1000, 3).count_chunks(chunk_rows) == -(-1000 // chunk_rows)


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [50, 50, 50, 50, 30]), (True, [50, 50, 50, 50])])
def test_batches_are_cut_from_the_order(splits: Splits, drop_last: bool, sizes: list[int]) -> None:
    seen: list[Tensor] = []

    def watch(network: Network, batch: Batch) -> dict[str, Tensor]:
        seen.append(batch.ids)
        return ce(network, batch)

    how = training_options(epochs=2, drop_last=drop_last, order=BLOCKS)
    train(splits, how, seed=5, objective=watch)
    order = BLOCKS(len(splits.train), derive_seed(5, "order"))
    assert [len(ids) for ids in seen] == sizes * 2
    for epoch, ids in enumerate(torch.split(torch.cat(seen), sum(sizes))):
        assert torch.equal(ids, order.ids(epoch)[: sum(sizes)])


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_killed_training_in_blocks_resumes_with_the_same_result(
    tmp_path: Path, splits: Splits, stop_after: int
) -> None:
    how, path = training_options(order=BLOCKS), tmp_path / "checkpoint.pt"

    def kill(history: History) -> None:
        if len(history) == stop_after + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(splits, how, checkpoint=path, checkpoint_seconds=0, on_epoch=kill)
    resumed = train(splits, how, checkpoint=path)[1]
    assert same(resumed, train(splits, how)[1])
    assert not same(resumed, train(splits, training_options())[1])


def test_shuffled_is_what_is_done_by_default(splits: Splits) -> None:
    assert same(*(train(splits, training_options(order=order))[1] for order in (None, shuffle_samples)))


def test_the_options_reach_the_order() -> None:
    def order_of(params: Any) -> Any:
        made = read_training_options(TrainingParams(order=params)).order
        return made and made(1000, 3)

    assert order_of("shuffled") is None
    plain, small = order_of("blocks"), order_of({"name": "blocks", "rows": 16, "window": 4})
    assert (plain.rows, plain.window, small.rows, small.window) == (1024, 64, 16, 4)
    assert isinstance(shuffle_samples(10, 3), RandomOrder)
    assert torch.equal(small.ids(2), BlockOrder(1000, 3, rows=16, window=4).ids(2))
