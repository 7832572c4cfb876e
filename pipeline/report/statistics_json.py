"""The statistics as JSON: every number that the report's pages round or leave out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.base.statistics import FEWEST_VALUES, summarize
from pipeline.report.groups import Comparisons, Group
from pipeline.report.metrics_files import Metrics
from pipeline.report.significance import LEVEL, compute_interval


def collect_statistics(
    compared: Comparisons, students: Mapping[str, Metrics], more: Mapping[str, Any]
) -> dict[str, Any]:
    """`statistics.json`: what is null has its `reason` beside it.

    Args:
        compared: all comparisons.
        students: the metrics, by name, for the rule of the reported epoch.
        more: the numbers of what the study says of its source, by key.
    """
    return {
        "level": LEVEL,
        "fewest": FEWEST_VALUES,
        "reported_epoch": {name: metrics["rule"] for name, metrics in students.items()},
        "groups": {group.name: _collect_group(group) for group in compared.groups},
        "baseline": _name_baselines(compared),
        "against_baseline": {name: asdict(paired) for name, paired in compared.against.items()},
        "anova": [asdict(analysis) for analysis in compared.analyses],
        **more,
    }


def _name_baselines(compared: Comparisons) -> str | dict[str, list[str]] | None:
    """The one that all others are compared with, or each with those that are compared with it."""
    if not compared.baselines:
        return None
    if len(compared.baselines) == 1 and not compared.uncompared:
        return compared.baselines[0].group.name
    return {each.group.name: list(each.others) for each in compared.baselines}


def _collect_group(group: Group) -> dict[str, Any]:
    made, ends = summarize(group.values), compute_interval(group.values)
    low, high = ends or (None, None)
    return {
        "students": list(group.students),
        "datasets": list(group.datasets),
        "unit": group.unit,
        "values": list(group.values),
        **asdict(made),
        "low": low,
        "high": high,
        "reason": None if ends else f"fewer than {FEWEST_VALUES} values",
    }
