"""What is recorded of a step, and what is not, on a card that is played: a graph replays what was called in its capture."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.training import recorded_graph
from pipeline.training.recorded_graph import RecordedGraph, record

Step = Callable[..., tuple[Tensor, ...]]


class Card:
    """Plays `torch.cuda`: in a capture nothing is computed, a replay computes it."""

    def __init__(self) -> None:
        self.captured: Callable[[], object] | None = None
        self.capturing = self.is_empty = False

    @contextlib.contextmanager
    def capture(self, *_: Any, **__: Any) -> Iterator[None]:
        self.capturing = True
        yield
        self.capturing = False

    def replay(self) -> None:
        if self.captured is not None and not self.is_empty:
            self.captured()

    def wait_stream(self, _: Any) -> None:
        pass

    def play(self, step: Step) -> Step:
        """The step as a card has it."""

        def call(*given: Tensor) -> tuple[Tensor, ...]:
            if not self.capturing:
                return step(*given)
            values = tuple(torch.empty_like(value) for value in step(*(tensor.clone() for tensor in given)))

            def compute() -> None:
                for value, made in zip(values, step(*given), strict=True):
                    value.copy_(made)

            self.captured = compute
            return values

        return call


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card()
    for name, stand_in in (
        ("device", lambda _: contextlib.nullcontext()),
        ("stream", lambda _: contextlib.nullcontext()),
        ("current_stream", lambda _: made),
        ("CUDAGraph", lambda: made),
        ("graph", made.capture),
    ):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(recorded_graph, "_open_stream", lambda _: made)
    monkeypatch.setattr(recorded_graph, "_open_pool", lambda _: None)
    return made


def step(weights: Tensor, statistics: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """A gradient and a loss; statistics are gathered in place."""
    statistics.mul_(0.9).add_(rows.mean(0), alpha=0.1)
    products = rows @ weights
    return rows.T @ products, products.square().sum() + statistics.sum()


def tensors(seed: int) -> list[Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return [torch.randn(*size, generator=drawn) for size in ((3,), (3,), (5, 3))]


def test_a_replay_is_the_step_on_what_it_is_given(card: Card) -> None:
    kept, first, later = tensors(0)[:2], tensors(0)[2], tensors(1)[2]
    before = [tensor.clone() for tensor in kept]
    recorded = record(card.play(step), [*kept, first], 2)
    assert isinstance(recorded, RecordedGraph)
    assert all(torch.equal(tensor, its) for tensor, its in zip(kept, before, strict=True))
    for rows in (later, first):
        expected = step(before[0], before[1], rows)  # which gathers, too
        found = recorded(*kept, rows)
        assert all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))
        assert torch.allclose(kept[1], before[1])


def test_a_graph_in_which_nothing_is_leaves_the_step_as_it_is(card: Card, caplog: pytest.LogCaptureFixture) -> None:
    """As where it was captured on another card: its values are right, once."""
    card.is_empty = True
    given, played = tensors(0), card.play(step)
    before = given[1].clone()
    assert record(played, given, 2) is played
    assert torch.equal(given[1], before)
    assert caplog.messages == ["steps are not replayed as a CUDA graph: a replay gives other numbers"]


def test_a_step_that_differs_from_call_to_call_is_left_as_it_is(card: Card, caplog: pytest.LogCaptureFixture) -> None:
    calls = iter(range(100))

    def other(weights: Tensor, rows: Tensor) -> tuple[Tensor]:
        return (rows @ weights * (1 + next(calls)),)

    given, played = [tensors(0)[0], tensors(0)[2]], card.play(other)
    assert record(played, given, 1) is played
    assert "a replay gives other numbers" in caplog.text


def test_a_gradient_that_is_rounding_alone_is_no_difference(card: Card) -> None:
    calls = iter(range(100))

    def noisy(weights: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((8,), 1e-9) * (1 + 0.1 * next(calls)), (rows @ weights).sum()

    assert isinstance(record(card.play(noisy), [tensors(0)[0], tensors(0)[2]], 1), RecordedGraph)


def test_first_numbers_that_are_not_finite_are_told(card: Card, caplog: pytest.LogCaptureFixture) -> None:
    given, played = tensors(0), card.play(step)
    given[0][0] = float("inf")
    assert record(played, given, 2) is played
    assert "their first numbers are not finite" in caplog.text


def test_memory_that_fills_up_while_it_is_compared_leaves_all_as_it_was(
    card: Card, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB\nmore")

    monkeypatch.setattr(recorded_graph, "_compare", fail)
    given, played = tensors(0), card.play(step)
    before = given[1].clone()
    assert record(played, given, 2) is played
    assert torch.equal(given[1], before)
    assert caplog.messages == ["steps are not replayed as a CUDA graph: CUDA out of memory. Tried to allocate 1 GiB"]


def test_a_record_draws_nothing_of_the_run(card: Card) -> None:
    def noisy(weights: Tensor, rows: Tensor) -> tuple[Tensor]:
        return (rows @ weights + 1e-9 * torch.rand(5),)

    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    record(card.play(noisy), [tensors(0)[0], tensors(0)[2]], 1)
    assert torch.equal(torch.rand(2), expected)
