"""One phase of students' training: their losses, and what these read of the cache and train beside the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipeline.base.errors import InputError
from pipeline.base.ranks import ALONE, Ranks
from pipeline.base.seeds import derive_seed, fork_seeded_rng
from pipeline.fields.rows import Target
from pipeline.losses.outputs import Outputs
from pipeline.losses.recipe import Recipe
from pipeline.models.network import Network
from pipeline.training.batches import Batch
from pipeline.training.feeder import Stream
from pipeline.training.fit import fit_runs
from pipeline.training.network_trainer import FitResult, History, Member
from pipeline.training.options import TrainingOptions
from pipeline.training.rows import Rows, Splits
from pipeline.training.run import Data, Plan
from pipeline.training.sample_order import PlannedOrder
from pipeline.training.trainable_part import TrainablePart
from pipeline.views.view import PLAIN, Views


class CachedField(Protocol):
    """A cached field as a training reads it."""

    @property
    def plans(self) -> Tensor | None:
        """The sample ids (plans, batches, n) of the only batches that it answers for; None: it answers for any."""
        ...

    def target(self, batch: Batch) -> Target:
        """The field's values for a batch, on the batch's device."""
        ...


@dataclass(frozen=True)
class Phase:
    """A stretch of a student's training.

    Attributes:
        recipe: its weighted loss terms.
        options: its optimiser, schedule and length.
        on_epoch: by peer, see `network_trainer.Member`; a student without peers has one.
        trainable: the part that it trains; None: all.
    """

    recipe: Recipe
    options: TrainingOptions
    on_epoch: Sequence[Callable[[History], None]] = ()
    trainable: TrainablePart | None = None


@dataclass(frozen=True)
class StudentRun:
    """One independent training of a student: a seed, or a point of a grid.

    Attributes:
        model: what `models.build_network` takes.
        phases: one after another, each from the last weights of the one before; the last is the student's own.
        seed: of initial weights, data order and dropout; students that differ in their recipe
            alone start from the same weights and see the same batches.
        what: names it in messages.
    """

    model: Mapping[str, Any]
    phases: Sequence[Phase]
    seed: int
    what: str


@dataclass(frozen=True)
class Scene:
    """What runs are trained on, and measured.

    Attributes:
        splits: the prepared data set, for the device where everything happens.
        targets: by dump name, the cached fields that the recipes read.
        views: augments the training images.
        ranks: the processes that train each run, each its rows of every batch.
    """

    splits: Splits
    targets: Mapping[str, CachedField]
    views: Views = PLAIN
    ranks: Ranks = ALONE


@dataclass
class Started:
    """A run between its phases.

    Attributes:
        run: as it is to be trained.
        networks: the student and its peers, as they are now.
        reports: by loss term, what was reported while it was prepared.
        restores: how often an epoch was taken back.
    """

    run: StudentRun
    networks: list[Network]
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    restores: int = 0


def fit_phase(started: Sequence[Started], scene: Scene, number: int, **how: Any) -> list[list[FitResult]]:
    """Train the networks of runs that are alike for the phase of this number; by run, their results."""
    recipe, splits = started[0].run.phases[number].recipe, scene.splits
    data = Data(splits.train, splits.validation, scene.views, list_streams(recipe, scene.targets))
    with ExitStack() as stack:
        return fit_runs([plan_phase(stack, each, scene, number) for each in started], data, **how)


def plan_phase(stack: ExitStack, started: Started, scene: Scene, number: int) -> Plan:
    """How one phase of a run is trained, while `stack` is open."""
    run, train = started.run, scene.splits.train
    phase, last = run.phases[number], number == len(run.phases) - 1
    seed = run.seed if last else derive_seed(run.seed, "pretrain", number)
    what = run.what if last else f"{run.what}, pretrain {number + 1}"
    order = planned_order(phase.recipe, scene.targets, phase.options, what)
    rows = partial(_read_all_rows, scene.targets, train, scene.views)
    modules, reports = phase.recipe.train_prepared(rows, derive_seed(seed, "prepared"), what)
    started.reports |= {name if last else f"pretrain-{number + 1}/{name}": each for name, each in reports.items()}
    watches = phase.on_epoch or [_ignore_history] * len(started.networks)
    with fork_seeded_rng(derive_seed(seed, "learned"), train.labels.device):
        members = [
            _build_member(stack, network, train, scene.targets, phase, watch=watch, prepared=modules)
            for network, watch in zip(started.networks, watches, strict=True)
        ]
    return Plan(members, phase.options, seed, what, phase.recipe.is_mutual, order, scene.ranks)


def list_streams(recipe: Recipe, targets: Mapping[str, CachedField]) -> list[Stream]:
    """What the recipe's terms read of disk in each step, each once."""
    fields = (targets[dump] for dump in recipe.dumps)
    return list(dict.fromkeys(field for field in fields if isinstance(field, Stream)))


def _build_member(
    stack: ExitStack,
    network: Network,
    train: Rows,
    targets: Mapping[str, CachedField],
    phase: Phase,
    *,
    watch: Callable[[History], None],
    prepared: Mapping[str, nn.Module],
) -> Member:
    """A network as a phase trains it, while `stack` is open: the part it trains, the taps that its losses read."""
    if phase.trainable is not None:
        stack.enter_context(network.train_only(phase.trainable.parameter_names(network, train.images[:2])))
    taps = stack.enter_context(network.record_taps(phase.recipe.taps))
    modules = {**_build_learned(network, train, targets, phase.recipe, taps), **prepared}
    objective = _StudentObjective(phase.recipe, targets, taps, modules)
    return Member(network, objective, nn.ModuleList(modules.values()).to(train.labels.device), watch)


def _ignore_history(history: History) -> None:
    """Do nothing: the training is not watched."""


@dataclass(frozen=True)
class _StudentObjective:
    """A recipe's weighted terms of a network's outputs for a batch; a `training.stack.Stackable`, too.

    Attributes:
        recipe: of the terms.
        fields: by dump, what the terms compare with.
        taps: where the network leaves its activations.
        modules: by term, what is trained, or was prepared, beside the network.
    """

    recipe: Recipe
    fields: Mapping[str, CachedField]
    taps: Mapping[str, Tensor]
    modules: Mapping[str, nn.Module]

    def __call__(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        outputs = Outputs(network(batch.images), batch.labels, self.taps, peers=batch.peers, modules=self.modules)
        return self.recipe(outputs, self.read_targets(batch), batch.epoch)

    def read_targets(self, batch: Batch) -> dict[str, Target]:
        """By dump, the rows of a batch."""
        return {dump: self.fields[dump].target(batch) for dump in self.recipe.dumps}

    def weights(self, epoch: int) -> dict[str, float]:
        """By term, its weight in an epoch."""
        return self.recipe.weights(epoch)

    def values(
        self, network: Network, images: Tensor, labels: Tensor, targets: Mapping[str, Target], names: Sequence[str]
    ) -> dict[str, Tensor]:
        """By term, its value without its weight."""
        return self.recipe.values(Outputs(network(images), labels, self.taps, modules=self.modules), targets, names)


def _read_all_rows(targets: Mapping[str, CachedField], train: Rows, views: Views, dump: str) -> Tensor:
    """All rows (views, samples, ...) of a dump with one array."""
    ids = torch.arange(len(train), device=train.labels.device)
    empty = train.images[:0], train.labels[:0]
    batches = (Batch(ids, torch.full_like(ids, view), *empty, 0, 0) for view in range(views.count))
    rows = [targets[dump].target(batch) for batch in batches]
    assert all(isinstance(row, Tensor) for row in rows)
    return torch.stack(rows)  # type: ignore[arg-type]


def samples_per_epoch(splits: Splits, targets: Mapping[str, CachedField], dumps: Iterable[str]) -> int:
    """Training samples an epoch, for a recipe that reads these dumps."""
    plans = (targets[dump].plans for dump in dumps)
    return next((len(PlannedOrder(plan)) for plan in plans if plan is not None), len(splits.train))


def planned_order(
    recipe: Recipe, targets: Mapping[str, CachedField], options: TrainingOptions, what: str
) -> PlannedOrder | None:
    """The batch plan that the recipe's fields were made for; None where any order will do.

    Raises:
        InputError: two fields of different plans, a batch size that is not the plan's, or options with an order.
    """
    planned = {dump: plans for dump in recipe.dumps if (plans := targets[dump].plans) is not None}
    if not planned:
        return None
    first, *others = planned
    for other in others:
        if not torch.equal(planned[first], planned[other]):
            raise InputError(
                f"{what}: dumps {first!r} and {other!r}",
                expected="one batch plan",
                found="two",
                fix="dump them with the same batch_size, plans, shuffle, last and plan_seed",
            )
    size = planned[first].shape[2]
    if options.batch_size != size or options.drop_last:
        raise InputError(
            f"{what}: batch_size",
            expected=f"{size} and no drop_last, as in the batch plan of dump {first!r}",
            found=f"{options.batch_size}{' with drop_last' if options.drop_last else ''}",
        )
    if options.order is not None:
        raise InputError(f"{what}: order", expected=f"none, since dump {first!r} brings a batch plan", found="one")
    return PlannedOrder(planned[first])


@torch.no_grad()
def _build_learned(
    network: Network, train: Rows, targets: Mapping[str, CachedField], recipe: Recipe, taps: Mapping[str, Tensor]
) -> dict[str, nn.Module]:
    """What the recipe's terms learn beside the student, for the shapes of two samples."""
    ids = torch.arange(min(2, len(train)), device=train.labels.device)
    batch = Batch(ids, torch.zeros_like(ids), train.images[ids], train.labels[ids], 0, 0)
    network.eval()
    outputs = Outputs(network(batch.images), batch.labels, taps)
    return recipe.build_learned(outputs, lambda dump: targets[dump].target(batch))
