"""The student: trained from tensors and cached fields alone. Nothing here can run a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.base.ranks import ALONE, Ranks
from pipeline.base.seeds import derive_seed
from pipeline.losses.recipe import Recipe
from pipeline.models.build import draw_network
from pipeline.models.network import Network
from pipeline.models.size import count_bits
from pipeline.models.weights import load_into
from pipeline.student_phase import CachedField, Phase, Scene, Started, StudentRun, fit_phase, samples_per_epoch
from pipeline.training.network_trainer import FitResult, History
from pipeline.training.options import TrainingOptions
from pipeline.training.result import Select, TrainedStudent
from pipeline.training.rows import Splits, evaluate
from pipeline.views.view import PLAIN, Views


@dataclass(frozen=True)
class Checkpoints:
    """Where unfinished training is kept.

    Attributes:
        path: of the last phase; those before have files beside it.
        seconds: at least so long between two of them; None: as long as is usual.
    """

    path: Path | None = None
    seconds: float | None = None

    def of_phase(self, group: int, phase: int | None) -> Path | None:
        """The file of a group of runs in a phase before the last (None: in the last)."""
        if self.path is None:
            return None
        path = self.path.with_suffix(f".group-{group}.pt") if group else self.path
        return path if phase is None else path.with_suffix(f".pretrain-{phase}.pt")


def train_student(
    splits: Splits,
    targets: Mapping[str, CachedField],
    recipe: Recipe,
    *,
    model: Mapping[str, Any],
    options: TrainingOptions,
    seed: int,
    what: str,
    on_epoch: Callable[[History], None] = lambda _: None,
    pretrain: Sequence[Phase] = (),
    **how: Any,
) -> TrainedStudent:
    """Train one student of one seed, without peers, and measure it on the test part.

    Args:
        recipe, options, on_epoch: of its own phase.
        pretrain: phases before.
        model, seed, what: see `StudentRun`.
        splits, targets, how: see `train_cohort`.
    """
    run = StudentRun(model, [*pretrain, Phase(recipe, options, [on_epoch])], seed, what)
    return train_cohort(splits, targets, [run], **how)[0][0]


def train_cohort(
    splits: Splits,
    targets: Mapping[str, CachedField],
    runs: Sequence[StudentRun],
    *,
    peers: int = 1,
    initial: Mapping[str, Tensor] | None = None,
    views: Views = PLAIN,
    checkpoints: Checkpoints = Checkpoints(),
    ranks: Ranks = ALONE,
) -> list[list[TrainedStudent]]:
    """Train independent students, those that are alike together, each with its peers; measure each on the test part.

    No student's result depends on the other runs, beyond the rounding of its numbers.

    Args:
        splits: the prepared data set, for the device where everything happens.
        targets: by dump name, the cached fields that the recipes read.
        runs: what is trained.
        peers: students of this model that are trained together in each run, from weights of their own.
        initial: the state dict that students start from instead of weights drawn from their seeds.
        views: augments the training images.
        checkpoints: where unfinished training is kept.
        ranks: the processes that train each run together; all have the result.

    Returns:
        For each run, the student and its peers.

    Raises:
        InputError: see `training.fit_runs`; or a part to train, fields or initial weights that do not fit.
    """
    scene = Scene(splits, targets, views, ranks)
    trained: dict[int, list[TrainedStudent]] = {}
    for group, numbers in enumerate(_group_alike(runs, splits, targets)):
        started = [start_run(runs[number], splits, peers, initial) for number in numbers]
        trained |= dict(zip(numbers, _train_phases(started, scene, checkpoints, group), strict=True))
    return [trained[number] for number in range(len(runs))]


def _group_alike(runs: Sequence[StudentRun], splits: Splits, targets: Mapping[str, CachedField]) -> list[list[int]]:
    """The runs' numbers, those together that may differ in no more than seeds, optimisers, schedules and weights."""
    groups: dict[str, list[int]] = {}
    for number, run in enumerate(runs):
        phases = [
            _describe_structure(each, samples_per_epoch(splits, targets, each.recipe.dumps)) for each in run.phases
        ]
        groups.setdefault(repr((dict(run.model), phases)), []).append(number)
    return list(groups.values())


def _describe_structure(phase: Phase, samples: int) -> list[Any]:
    """What runs of one group have in common: what is computed, and when."""
    options, terms = phase.options, phase.recipe.terms
    # A term without weight is not computed: what it would be (NaN, perhaps) must not reach its run.
    weighed = [[bool(term.weight(epoch)) for epoch in range(options.count_epochs(samples))] for term in terms]
    length = options.epochs, options.steps, options.batch_size, options.drop_last, bool(options.l1), options.compile
    return [
        length,
        phase.trainable,
        [(term.name, term.loss, dict(term.options), term.dumps) for term in terms],
        weighed,
    ]


def _train_phases(
    started: Sequence[Started], scene: Scene, checkpoints: Checkpoints, group: int
) -> list[list[TrainedStudent]]:
    """Train runs that are alike, phase by phase; for each run, the student and its peers."""
    count = len(started[0].run.phases)
    results: list[list[FitResult]] = []
    for number in range(count):
        place = None if number == count - 1 else number
        path = checkpoints.of_phase(group, place)
        results = fit_phase(started, scene, number, checkpoint=path, checkpoint_seconds=checkpoints.seconds)
        for each, (first, *_) in zip(started, results, strict=True):
            each.restores += first.restores
    return [
        [
            TrainedStudent(
                result,
                _test_epochs(network, result, scene.splits),
                network.parameter_count(),
                count_bits(network),
                each.reports,
                each.restores,
            )
            for network, result in zip(each.networks, fitted, strict=True)
        ]
        for each, fitted in zip(started, results, strict=True)
    ]


def start_run(run: StudentRun, splits: Splits, peers: int, initial: Mapping[str, Tensor] | None) -> Started:
    """The networks of one run as they are before the first phase."""
    device = splits.train.labels.device
    # The first of several peers has the weights that a lone student would have.
    seeds = [derive_seed(run.seed, "init", *([peer] if peer else [])) for peer in range(peers)]
    networks = [draw_network(run.model, splits.shape, splits.classes, seed=each, device=device) for each in seeds]
    if initial is not None:
        for network in networks:
            load_into(network, dict(initial), f"{run.what}: weights to start from")
    return Started(run, networks)


def _test_epochs(network: Network, fitted: FitResult, splits: Splits) -> dict[Select, Tensor]:
    """Which test rows are classified correctly after the best and the last epoch."""
    correct = {}
    states: dict[Select, dict[str, Tensor]] = {"last": fitted.last, "best": fitted.best}
    for select, state in states.items():
        network.load_state_dict(state)
        correct[select] = evaluate(network, splits.test)[0]
    return correct
