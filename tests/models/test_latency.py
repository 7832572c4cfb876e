from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.models import latency
from pipeline.models.latency import WARM_UP, Latency, measure_latencies


class Clock:
    """Time that only passes of networks take."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Slow(nn.Module):
    """Takes the next of these seconds a pass, and notes that it was called."""

    def __init__(self, name: str, seconds: list[float], clock: Clock, calls: list[str]) -> None:
        super().__init__()
        self.name, self.seconds, self.clock, self.calls = name, iter(seconds), clock, calls

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(f"{self.name}{len(images)}")
        self.clock.now += next(self.seconds)
        return images


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(latency, "time", made)
    return made


def test_the_median_and_the_quartiles_without_the_warm_up(clock: Clock) -> None:
    seconds = [*[100.0] * WARM_UP, 5.0, 1.0, 2.0, 4.0, 3.0]
    passes = {"a": (Slow("a", seconds, clock, []), torch.zeros(1, 1))}
    assert measure_latencies(passes, 5) == {"a": Latency(median=3.0, low=2.0, high=4.0)}


def test_networks_are_timed_in_turn(clock: Clock) -> None:
    calls: list[str] = []
    networks = [Slow(name, [1.0 + number] * 9, clock, calls) for number, name in enumerate("ab")]
    passes = {each.name: (each, torch.zeros(batch, 1)) for each, batch in zip(networks, (1, 3), strict=True)}
    found = measure_latencies(passes, 2)
    assert calls == ["a1", "b3"] * (WARM_UP + 2)
    assert [found["a"].median, found["b"].median] == [1.0, 2.0]
