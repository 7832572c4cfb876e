"""Loss weights over epochs, as data: pure functions of the epoch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from pipeline.registry import Registry

Schedule = Callable[[int], float]  # epoch, from 0 -> weight

SCHEDULES = Registry(
    "weight schedule",
    {name: f"pipeline.schedules:{name}" for name in ("constant", "linear", "exponential", "piecewise")},
)


def constant(epochs: int, *, value: NonNegativeFloat) -> Schedule:
    """The same weight throughout."""
    return lambda _: value


def linear(epochs: int, *, start: NonNegativeFloat, end: NonNegativeFloat) -> Schedule:
    """A straight line from `start` in the first epoch to `end` in the last."""
    span = max(1, epochs - 1)
    return lambda epoch: start + (end - start) * min(epoch, span) / span


def exponential(
    epochs: int, *, start: NonNegativeFloat, factor: PositiveFloat, floor: NonNegativeFloat = 0.0
) -> Schedule:
    """Start * factor^epoch, never below `floor`."""
    return lambda epoch: max(floor, start * factor**epoch)


def piecewise(
    epochs: int, *, points: Annotated[tuple[tuple[NonNegativeInt, NonNegativeFloat], ...], Field(min_length=1)]
) -> Schedule:
    """Straight lines between (epoch, weight) points, constant before the first and after the last."""
    ordered = sorted(points)

    def weight(epoch: int) -> float:
        if epoch <= ordered[0][0]:
            return ordered[0][1]
        for (left, before), (right, after) in pairwise(ordered):
            if epoch <= right:
                return before + (after - before) * (epoch - left) / (right - left) if right > left else after
        return ordered[-1][1]

    return weight


def schedule(weight: float | dict[str, Any], epochs: int) -> Schedule:
    """The schedule of a weight as `params.yaml` states it: a number, or `{name: linear, ...}`."""
    if isinstance(weight, dict):
        options = {key: value for key, value in weight.items() if key != "name"}
        made: Schedule = SCHEDULES.function(weight["name"])(epochs, **options)
        return made
    return constant(epochs, value=weight)
