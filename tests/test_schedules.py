from __future__ import annotations

import pytest
from torch import nn
from torch.optim import Optimizer

from pipeline.optimizers import LR_SCHEDULES, OPTIMIZERS, plateau
from pipeline.schedules import exponential, linear, piecewise, schedule


def test_linear_reaches_both_ends() -> None:
    weight = linear(5, start=1.0, end=3.0)
    assert [weight(epoch) for epoch in range(5)] == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert linear(1, start=1.0, end=3.0)(0) == 1.0


def test_exponential_stops_at_its_floor() -> None:
    weight = exponential(9, start=8.0, factor=0.5, floor=1.5)
    assert [weight(epoch) for epoch in range(4)] == [8.0, 4.0, 2.0, 1.5]


def test_piecewise_goes_through_its_points() -> None:
    weight = piecewise(20, points=((10, 0.0), (2, 1.0), (6, 3.0)))
    assert [weight(epoch) for epoch in (0, 2, 4, 6, 8, 10, 15)] == [1.0, 1.0, 2.0, 3.0, 1.5, 0.0, 0.0]


def test_a_number_is_a_constant_schedule() -> None:
    assert [schedule(0.25, 3)(epoch) for epoch in (0, 2)] == [0.25, 0.25]
    assert schedule({"name": "linear", "start": 0.0, "end": 1.0}, 2)(1) == 1.0


def optimizer(lr: float = 1.0) -> Optimizer:
    made: Optimizer = OPTIMIZERS.function("sgd")(nn.Linear(1, 1).parameters(), lr=lr)
    return made


def test_learning_rate_schedules_step_every_epoch() -> None:
    def rates(name: str, epochs: int, **options: object) -> list[float]:
        rated = optimizer()
        scheduler = LR_SCHEDULES.function(name)(rated, epochs, **options)
        found = []
        for _ in range(epochs):
            found.append(rated.param_groups[0]["lr"])
            rated.step()
            scheduler.step()
        return found

    assert rates("constant", 3) == [1.0, 1.0, 1.0]
    assert rates("step", 4, every=2, factor=0.1) == pytest.approx([1.0, 1.0, 0.1, 0.1])
    assert rates("step", 4, milestones=(1, 3), factor=0.5) == pytest.approx([1.0, 0.5, 0.5, 0.25])
    assert rates("cosine", 3, final=0.0) == pytest.approx([1.0, 0.75, 0.25])


def test_plateau_waits_for_its_patience() -> None:
    rated = optimizer()
    scheduler = plateau(rated, 9, factor=0.1, patience=2)
    for loss in (1.0, 1.0, 1.0):
        scheduler.step(loss)
    assert rated.param_groups[0]["lr"] == 1.0
    scheduler.step(1.0)
    assert rated.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {"lr": 0.5, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        ("adam", {"lr": 0.5, "betas": (0.5, 0.99), "eps": 1e-3, "weight_decay": 0.1}),
        ("adamw", {"lr": 0.5, "betas": (0.5, 0.99), "eps": 1e-3, "weight_decay": 0.1}),
    ],
)
def test_every_option_reaches_the_optimizer(name: str, options: dict[str, object]) -> None:
    made = OPTIMIZERS.function(name)(nn.Linear(1, 1).parameters(), **options)
    assert {key: made.param_groups[0][key] for key in options} == options
