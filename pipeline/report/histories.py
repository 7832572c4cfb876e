"""The curves of a student's networks, of every seed and all its peers, as its own (last) phase left them."""

from __future__ import annotations

from pathlib import Path

from pipeline.report.figures.loss_terms import TermCurves
from pipeline.report.metrics_files import Metrics
from pipeline.report.percent import error_percent
from pipeline.study.layout import network_folder
from pipeline.training.curves import read_curve


def read_history(student: Path, metrics: Metrics, quantity: str) -> list[list[float]]:
    """One quantity by epoch (`validation/accuracy`), a curve a network; empty curves where it was not logged."""
    alone = [[accuracy] for accuracy in metrics["test_accuracy_per_seed"]]
    return [
        read_curve(network_folder(student, number, peer) / "curves", quantity)
        for number, cohort in enumerate(metrics["test_accuracy_per_peer"] or alone)
        for peer in range(len(cohort))
    ]


def read_loss_terms(student: Path, metrics: Metrics) -> TermCurves:
    """What a student's training minimised, and its validation error meanwhile.

    Args:
        student: its folder.
        metrics: its file. The penalty `l1` stands beside its losses where it has one.
    """
    losses = {name: read_history(student, metrics, f"train/{name}") for name in (*metrics["losses"], "l1")}
    accuracies = read_history(student, metrics, "validation/accuracy")
    return TermCurves(
        {name: runs for name, runs in losses.items() if all(runs)},
        [list(map(error_percent, run)) for run in accuracies] if all(accuracies) else [],
    )
