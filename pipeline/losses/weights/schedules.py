"""Loss weights over epochs, as data: pure functions of the epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from pipeline.losses.weights import SCHEDULES, Schedule


def constant(epochs: int, *, value: NonNegativeFloat) -> Schedule:
    """The same weight throughout."""
    return lambda _: value


def linear(epochs: int, *, start: NonNegativeFloat, end: NonNegativeFloat) -> Schedule:
    """A straight line from `start` in the first epoch to `end` in the last."""
    return lambda epoch: start + (end - start) * phase_share(epoch, epochs)


def cosine(epochs: int, *, start: NonNegativeFloat, end: NonNegativeFloat = 0.0) -> Schedule:
    """Half a cosine from `start` in the first epoch to `end` in the last."""
    return lambda epoch: end + (start - end) * (1 + math.cos(math.pi * phase_share(epoch, epochs))) / 2


def exponential(
    epochs: int, *, start: NonNegativeFloat, factor: PositiveFloat, floor: NonNegativeFloat = 0.0
) -> Schedule:
    """Start * factor^epoch, never below `floor`."""

    def weight(epoch: int) -> float:
        try:
            return max(floor, start * factor**epoch)
        except OverflowError:
            return math.inf if start else floor

    return weight


def warm_up(epochs: int, *, value: NonNegativeFloat, over: NonNegativeInt, start: NonNegativeFloat = 0.0) -> Schedule:
    """A straight line from `start` in the first epoch to `value` in epoch `over` (from 0), and that from there on."""
    return lambda epoch: start + (value - start) * epoch / over if epoch < over else value


def piecewise(
    epochs: int,
    *,
    points: Annotated[tuple[tuple[NonNegativeFloat, NonNegativeFloat], ...], Field(min_length=1)],
    unit: Literal["epoch", "share"] = "epoch",
) -> Schedule:
    """Straight lines between (epoch, weight) points, constant before the first and after the last.

    Args:
        epochs: of the phase.
        points: their first number an epoch from 0; or, by `unit: share`, a share of the phase: 0 is its first
            epoch, 1 its last.
        unit: which of the two.

    Raises:
        ValueError: a share above 1.
    """
    if unit == "epoch":
        return lambda epoch: interpolate(points, epoch)
    if max(place for place, _ in points) > 1:
        raise ValueError("points: expected shares of the phase, from 0 to 1")
    return lambda epoch: interpolate(points, phase_share(epoch, epochs))


def interpolate(points: Sequence[tuple[float, float]], place: float) -> float:
    """The value at `place` of straight lines between (place, value) points; of two at one place, the first's."""
    ordered = sorted(points, key=lambda point: point[0])  # their order at one place says which way the step goes
    if place <= ordered[0][0]:
        return ordered[0][1]
    for (left, before), (right, after) in pairwise(ordered):
        if place <= right:
            return before + (after - before) * (place - left) / (right - left) if right > left else after
    return ordered[-1][1]


def phase_share(epoch: int, epochs: int) -> float:
    """How much of a phase is over: 0 in its first epoch, 1 in its last."""
    span = max(1, epochs - 1)
    return min(epoch, span) / span


def build_schedule(weight: float | dict[str, Any], epochs: int) -> Schedule:
    """The schedule of a weight as `params.yaml` states it: a number, or `{name: linear, ...}`."""
    options: dict[str, Any] = dict(weight) if isinstance(weight, dict) else {"name": "constant", "value": weight}
    schedule: Schedule = SCHEDULES.import_function(options.pop("name"))(epochs, **options)
    return schedule
