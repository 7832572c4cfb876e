"""What each loss term of a student weighs in each epoch."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.losses.weights.schedules import build_schedule
from pipeline.report.metrics_files import Metrics, list_phases

Weights = Mapping[str, list[float]]  # of one phase: by loss term, one weight an epoch


def collect_changing_weights(students: Mapping[str, Metrics]) -> dict[str, list[Weights]]:
    """The weights of every phase, by the names of the students that have them, one under another.

    Only of students with a weight that changes within a phase.
    """
    every = {name: compute_weights(metrics) for name, metrics in students.items()}
    changing = {name: made for name, made in every.items() if any(map(_is_changing, made))}
    alike: dict[str, list[str]] = {}
    for name, made in changing.items():
        alike.setdefault(repr(made), []).append(name)
    return {"\n".join(names): changing[names[0]] for names in alike.values()}


def compute_weights(student: Metrics) -> list[Weights]:
    """The weights of every phase, the student's own last."""
    return [
        {name: list(map(build_schedule(term["weight"], epochs), range(epochs))) for name, term in phase.items()}
        for phase, epochs in zip(list_phases(student), student["phase_epochs"], strict=True)
    ]


def _is_changing(phase: Weights) -> bool:
    return any(len(set(weights)) > 1 for weights in phase.values())
