"""Trainings that several processes share, and one alone: the same ones, in float64. `torchrun -m tests.shared_training`.

    python -m tests.shared_training SCENE CASES OUT [EPOCHS]

SCENE is a folder in which `make_scene` has made one (or will), CASES are names of `TRAININGS` with commas; what each
ends with is written to OUT by the first process.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import cache
from pipeline.base.ranks import Ranks, find_ranks
from pipeline.datasets.dataset import load_dataset
from pipeline.fields import load_field
from pipeline.losses.recipe import Recipe
from pipeline.student import Checkpoints, train_cohort
from pipeline.student_phase import Phase
from pipeline.training.optimizers import plateau, sgd
from pipeline.training.options import Restore, TrainingOptions
from pipeline.training.result import TrainedStudent
from tests.cached_scene import CASES, HINT, Scene
from tests.exact_training import MLP, options, run_of, train_in_float64
from tests.scenes import CPU

NORMED = {"name": "mlp", "widths": [12, 9], "dropout": 0.2, "binary": {"form": "weights"}}
CNN = {"name": "cnn", "widths": [3, 4, 8], "dropout": 0.3}


@dataclass(frozen=True)
class Training:
    """A case of `CASES`, a network, and what else there is."""

    case: str
    model: Mapping[str, Any] = field(default_factory=lambda: MLP)
    changes: Mapping[str, Any] = field(default_factory=dict)
    peers: int = 1
    hinted: bool = False

    def phases(self, epochs: int) -> list[Phase]:
        """Its phases; the last has so many epochs."""
        terms, _, changes = CASES[self.case]
        made: TrainingOptions = options(**{**changes, **self.changes})
        made = replace(made, epochs=None if made.steps else epochs)
        first = [Phase(Recipe((HINT("hints"),)), options(epochs=1))] if self.hinted else []
        return [*first, Phase(Recipe(terms), made)]


TRAININGS: dict[str, Training] = {
    "dropout": Training("several"),
    "convolutions": Training("fp32 logits of hdf5", CNN),
    "normalised": Training("no field", NORMED),
    "affinities": Training("affinities and rows"),
    "a short batch": Training("a short batch"),
    "views": Training("drawn views"),
    "peers": Training("no field", changes={"batch_size": 100}, peers=2),
    "penalty": Training(
        "hints", changes={"l1": 1e-3, "optimizer": partial(sgd, lr=0.1, momentum=0.9, weight_decay=1e-3)}
    ),
    "phases": Training("no field", hinted=True),
    "plateau": Training("no field", changes={"scheduler": partial(plateau, patience=1), "on_nan": Restore()}),
    "half an epoch": Training("half an epoch"),
}


def open_scene(folder: Path) -> Scene:
    """What `make_scene` has made in a folder."""
    caches = {each.name: cache.open(each) for each in sorted(folder.iterdir()) if (each / "manifest.json").exists()}
    return Scene(load_dataset(folder / "digits", resident=False), caches)


def train_shared(scene: Scene, name: str, ranks: Ranks, *, epochs: int = 3, **how: Any) -> list[TrainedStudent]:
    """One of the trainings, by these processes."""
    training = TRAININGS[name]
    phases = training.phases(epochs)
    dumps = {dump for phase in phases for term in phase.recipe.terms for dump in term.reads.values()}
    fields = {dump: load_field(scene.caches[dump], CPU) for dump in dumps}
    views = CASES[training.case][1]
    run = run_of(3, *phases, model=training.model)
    (made,) = train_cohort(scene.splits(False), fields, [run], views=views, peers=training.peers, ranks=ranks, **how)
    return made


def collect(trained: list[TrainedStudent]) -> list[dict[str, Any]]:
    """What trainings are compared by: the curves, and the last weights of each network."""
    return [{"history": each.fitted.history, "state": dict(each.state("last"))} for each in trained]


def main(folder: str, names: str, out: str, epochs: str = "3", checkpoint: str = "") -> None:
    """Train, and write down what became of it."""
    with pytest.MonkeyPatch.context() as patch:
        train_in_float64(patch)
        scene, ranks = open_scene(Path(folder)), find_ranks()
        how: dict[str, Any] = {"checkpoints": Checkpoints(Path(checkpoint), 0.0)} if checkpoint else {}
        found = {
            name: collect(train_shared(scene, name, ranks, epochs=int(epochs), **how)) for name in names.split(",")
        }
    if ranks.is_first:
        torch.save(found, out)
    ranks.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
