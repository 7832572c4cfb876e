"""Weights of loss terms over the epochs: one function (epochs, *, options) -> Schedule for each name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.base.registry import Registry

__all__ = ["SCHEDULES", "Schedule", "build_schedule"]

Schedule = Callable[[int], float]  # epoch, from 0 -> weight

SCHEDULES = Registry(
    "weight schedule",
    {
        **{
            name: f"pipeline.losses.weights.schedules:{name}"
            for name in ("constant", "linear", "exponential", "piecewise", "cosine", "warm_up")
        },
        **{name: f"pipeline.losses.weights.mentoring:{name}" for name in ("adamant", "obedient", "gullible")},
    },
)


def build_schedule(weight: float | dict[str, Any], epochs: int) -> Schedule:
    """The schedule of a weight as `params.yaml` states it: a number, or `{name: linear, ...}`."""
    options: dict[str, Any] = dict(weight) if isinstance(weight, dict) else {"name": "constant", "value": weight}
    schedule: Schedule = SCHEDULES.import_function(options.pop("name"))(epochs, **options)
    return schedule
