"""Students trained in float64, in whatever way: what is more than rounding shows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline import student, student_phase
from pipeline.models import build
from pipeline.student import train_cohort
from pipeline.student_phase import Phase, StudentRun
from pipeline.training import stack
from pipeline.training.optimizers import adam, constant
from pipeline.training.options import TrainingOptions
from pipeline.training.result import TrainedStudent
from pipeline.views.view import PLAIN, Views
from tests.cached_scene import Scene

MLP = {"name": "mlp", "widths": [12], "dropout": 0.2}


def train_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float64 throughout, so that what is not rounding shows; and every network is stacked, on a processor, too."""
    real = build.draw_network
    monkeypatch.setattr(student, "draw_network", lambda *args, **how: real(*args, **how).double())
    monkeypatch.setattr(stack, "MOST_WEIGHTS_ON_CPU", 10**9)
    monkeypatch.setattr(stack, "CONVOLUTIONS", ())
    build_learned = student_phase._build_learned
    monkeypatch.setattr(
        student_phase,
        "_build_learned",
        lambda *args: {name: made.double() for name, made in build_learned(*args).items()},
    )


def options(**changes: Any) -> TrainingOptions:
    made = {"optimizer": partial(adam, lr=0.01), "scheduler": constant, "epochs": 3, "batch_size": 64}
    return TrainingOptions(**{**made, **changes})


def run_of(seed: int, *phases: Phase, model: Any = MLP) -> StudentRun:
    return StudentRun(model, phases, seed, f"student 's', seed {seed}")


def train(scene: Scene, runs: Sequence[StudentRun], views: Views = PLAIN, **how: Any) -> list[TrainedStudent]:
    terms = [each for run in runs for phase in run.phases for each in phase.recipe.terms]
    fields = scene.fields(how.pop("streamed", False), *{dump for each in terms for dump in each.reads.values()})
    return [only for (only,) in train_cohort(scene.splits(False), fields, runs, views=views, **how)]


def refuse_difference(one: TrainedStudent, other: TrainedStudent, tolerance: float = 1e-9) -> None:
    """Raise AssertionError unless both are the same, up to the rounding of float64."""
    assert len(one.fitted.history) == len(other.fitted.history)
    for row, its in zip(one.fitted.history, other.fitted.history, strict=True):
        assert list(row) == list(its)
        for name, value in row.items():
            assert value == pytest.approx(its[name], rel=tolerance, abs=tolerance), name
    assert one.fitted.best_epoch == other.fitted.best_epoch
    assert one.restores == other.restores
    assert one.prepared.keys() == other.prepared.keys()
    for select in ("best", "last"):
        states: tuple[dict[str, Tensor], ...] = (dict(one.state(select)), dict(other.state(select)))
        assert states[0].keys() == states[1].keys()
        for name in states[0]:
            torch.testing.assert_close(states[0][name], states[1][name], rtol=tolerance, atol=tolerance)
