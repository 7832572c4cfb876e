"""The sweeps that a grid of students is, without being asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.study.grid import shorten_keys
from pipeline.study.report_section import SweepParams


def derive_sweeps(grid: str, members: Mapping[str, Mapping[str, Any]]) -> dict[str, SweepParams]:
    """A sweep for each key of a grid that has several numbers; students of one number stand side by side in it.

    Args:
        grid: its name.
        members: by student, its values by key: `{"kd-weight-0_1": {"losses.tsne.weight": 0.1}}`. Each student is
            compared as itself, not as a part of a group.

    Returns:
        By name, such as `kd-weight`. Keys with a value that is no number of at least 0 have none.
    """
    keys = list(dict.fromkeys(key for values in members.values() for key in values))
    called = dict(zip(keys, shorten_keys(keys), strict=True))
    values = {key: {name: its[key] for name, its in members.items() if key in its} for key in keys}
    return {
        f"{grid}-{called[key]}": SweepParams(option=key, values={name: float(value) for name, value in each.items()})
        for key, each in values.items()
        if all(map(_can_be_placed, each.values())) and len(set(each.values())) > 1
    }


def _can_be_placed(value: object) -> bool:
    """Whether a sweep has a place for it."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
