"""The student: trained from tensors and cached fields alone. Nothing here can run a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipeline.base.errors import InputError
from pipeline.base.seeds import derive_seed, fork_seeded_rng
from pipeline.fields.rows import Target
from pipeline.losses.outputs import Outputs
from pipeline.losses.recipe import Recipe
from pipeline.models.build import draw_network
from pipeline.models.network import Network
from pipeline.models.size import count_bits
from pipeline.models.weights import load_into
from pipeline.training.batches import Batch
from pipeline.training.feeder import Stream
from pipeline.training.fit import fit_cohort
from pipeline.training.network_trainer import FitResult, History, Member, Objective
from pipeline.training.options import TrainingOptions
from pipeline.training.result import Select, TrainedStudent
from pipeline.training.rows import Rows, Splits, evaluate
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


def train_student(
    splits: Splits,
    targets: Mapping[str, CachedField],
    recipe: Recipe,
    *,
    options: TrainingOptions,
    on_epoch: Callable[[History], None] = lambda _: None,
    pretrain: Sequence[Phase] = (),
    **how: Any,
) -> TrainedStudent:
    """Train one student of one seed, without peers, and measure it on the test part.

    Args:
        recipe, options, on_epoch: of its own phase.
        pretrain: phases before.
        splits, targets, how: see `train_cohort`.
    """
    return train_cohort(splits, targets, [*pretrain, Phase(recipe, options, [on_epoch])], **how)[0]


def train_cohort(
    splits: Splits,
    targets: Mapping[str, CachedField],
    phases: Sequence[Phase],
    *,
    model: Mapping[str, Any],
    seed: int,
    what: str,
    peers: int = 1,
    initial: Mapping[str, Tensor] | None = None,
    views: Views = PLAIN,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 10.0,
) -> list[TrainedStudent]:
    """Train a student of one seed, with its peers, and measure each on the test part.

    Args:
        splits: the prepared data set, for the device where everything happens.
        targets: by dump name, the cached fields that the recipes read.
        phases: one after another, each from the last weights of the one before; the last is the student's own.
        model: what `models.build_network` takes.
        seed: of initial weights, data order and dropout; students that differ in their recipe
            alone start from the same weights and see the same batches.
        peers: students of this model that are trained together, from weights of their own.
        initial: the state dict that a student starts from instead of weights drawn from its seed.
        what, views, checkpoint, checkpoint_seconds: see `training.fit_cohort`.

    Raises:
        InputError: see `training.fit_cohort`; or a part to train, fields or initial weights that do not fit.
    """
    networks = _start_networks(
        model, splits, seed=seed, peers=peers, initial=initial, what=f"{what}: weights to start from"
    )
    restores = 0
    reports: dict[str, dict[str, Any]] = {}
    for number, phase in enumerate(phases):
        last = number == len(phases) - 1
        results, found = _fit_phase(
            networks,
            splits,
            targets,
            phase,
            seed=seed if last else derive_seed(seed, "pretrain", number),
            what=what if last else f"{what}, pretrain {number + 1}",
            views=views,
            checkpoint=_phase_checkpoint(checkpoint, None if last else number),
            checkpoint_seconds=checkpoint_seconds,
        )
        restores += results[0].restores
        reports |= found if last else {f"pretrain-{number + 1}/{term}": report for term, report in found.items()}
    return [
        TrainedStudent(
            result,
            _test_epochs(network, result, splits),
            network.parameter_count(),
            count_bits(network),
            reports,
            restores,
        )
        for network, result in zip(networks, results, strict=True)
    ]


def _start_networks(
    model: Mapping[str, Any],
    splits: Splits,
    *,
    seed: int,
    peers: int,
    initial: Mapping[str, Tensor] | None,
    what: str,
) -> list[Network]:
    """The networks of one seed as they are before the first phase."""
    device = splits.train.labels.device
    # The first of several peers has the weights that a lone student would have.
    seeds = [derive_seed(seed, "init", *([peer] if peer else [])) for peer in range(peers)]
    networks = [draw_network(model, splits.shape, splits.classes, seed=each, device=device) for each in seeds]
    if initial is not None:
        for network in networks:
            load_into(network, dict(initial), what)
    return networks


def _phase_checkpoint(checkpoint: Path | None, pretrain: int | None) -> Path | None:
    """Where the unfinished training of a phase is kept: a file of its own for each phase before the last."""
    if checkpoint is None or pretrain is None:
        return checkpoint
    return checkpoint.with_suffix(f".pretrain-{pretrain}.pt")


def _test_epochs(network: Network, fitted: FitResult, splits: Splits) -> dict[Select, Tensor]:
    """Which test rows are classified correctly after the best and the last epoch."""
    correct = {}
    states: dict[Select, dict[str, Tensor]] = {"last": fitted.last, "best": fitted.best}
    for select, state in states.items():
        network.load_state_dict(state)
        correct[select] = evaluate(network, splits.test)[0]
    return correct


def _fit_phase(
    networks: Sequence[Network],
    splits: Splits,
    targets: Mapping[str, CachedField],
    phase: Phase,
    *,
    seed: int,
    what: str,
    views: Views,
    **how: Any,
) -> tuple[list[FitResult], dict[str, dict[str, Any]]]:
    """Train the networks for one phase; their results, and by loss term what was reported while it was prepared."""
    recipe, device = phase.recipe, splits.train.labels.device
    plans = planned_order(recipe, targets, phase.options, what)
    modules, reports = recipe.train_prepared(
        partial(_read_all_rows, targets, splits.train, views), derive_seed(seed, "prepared"), what
    )
    with ExitStack() as stack:
        with fork_seeded_rng(derive_seed(seed, "learned"), device):
            members = [
                _build_member(stack, network, splits.train, targets, phase, watch=watch, prepared=modules)
                for network, watch in zip(networks, phase.on_epoch or [_ignore_history] * len(networks), strict=True)
            ]
        fitted = fit_cohort(
            members,
            splits.train,
            splits.validation,
            options=phase.options,
            seed=seed,
            what=what,
            mutual=recipe.is_mutual,
            views=views,
            order=plans,
            streams=_list_streams(recipe, targets),
            **how,
        )
    return fitted, reports


def _list_streams(recipe: Recipe, targets: Mapping[str, CachedField]) -> list[Stream]:
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
    objective = _build_objective(phase.recipe, targets, taps, modules)
    return Member(network, objective, nn.ModuleList(modules.values()).to(train.labels.device), watch)


def _ignore_history(history: History) -> None:
    """Do nothing: the training is not watched."""


def _build_objective(
    recipe: Recipe, targets: Mapping[str, CachedField], taps: Mapping[str, Tensor], modules: Mapping[str, nn.Module]
) -> Objective:
    """The recipe's weighted terms of a network's outputs for a batch."""

    def objective(network: Network, batch: Batch) -> dict[str, Tensor]:
        outputs = Outputs(network(batch.images), batch.labels, taps, peers=batch.peers, modules=modules)
        return recipe(outputs, {dump: targets[dump].target(batch) for dump in recipe.dumps}, batch.epoch)

    return objective


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
