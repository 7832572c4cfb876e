"""Weights of loss terms over the epochs: one function (epochs, *, options) -> Schedule for each name."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.base.registry import Registry

__all__ = ["SCHEDULES", "Schedule"]

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
