"""The student: trained from tensors and cached fields alone. Nothing here can run a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from pipeline.cached import Target
from pipeline.errors import InputError
from pipeline.losses.recipe import Recipe
from pipeline.losses.step import Outputs
from pipeline.models.build import build
from pipeline.models.network import Network
from pipeline.orders import Planned
from pipeline.rows import Rows, Splits, evaluate, per_class_accuracy
from pipeline.seeds import derive, seeded
from pipeline.statistics import summary
from pipeline.training import Batch, Fitted, History, Regime, fit
from pipeline.views.view import PLAIN, Views

Select = Literal["best", "last"]


class Field(Protocol):
    """A cached field, as the steps of a training ask for it."""

    @property
    def plans(self) -> Tensor | None:
        """The sample ids (plans, batches, n) of the only batches that it answers for; None: it answers for any."""
        ...

    def target(self, batch: Batch) -> Target:
        """What the field says of a batch, on the batch's device."""
        ...


@dataclass(frozen=True)
class Phase:
    """A stretch of a student's training before the one that counts.

    Attributes:
        recipe: its weighted loss terms.
        regime: its optimiser, schedule and length.
        on_epoch: see `training.fit`.
    """

    recipe: Recipe
    regime: Regime
    on_epoch: Callable[[History], None] = lambda _: None


@dataclass(frozen=True)
class Trained:
    """One student of one seed.

    Attributes:
        fitted: the curves, and the last and best state.
        right: which test rows it classifies rightly, (n,) bool, by "best" and "last".
        parameters: trainable numbers.
    """

    fitted: Fitted
    right: Mapping[Select, Tensor]
    parameters: int

    def accuracy(self, select: Select) -> float:
        """Test accuracy in [0, 1]."""
        return float(self.right[select].double().mean())

    def state(self, select: Select) -> Mapping[str, Tensor]:
        """The state dict of the best or the last epoch."""
        return self.fitted.best if select == "best" else self.fitted.last

    def epoch(self, select: Select) -> int:
        """The number, from 1, of the best or the last epoch."""
        return self.fitted.best_epoch if select == "best" else len(self.fitted.history)

    def scores(self, select: Select, test: Rows) -> dict[str, Any]:
        """What a network's card says of its test accuracy."""
        return {"select": select, "epoch": self.epoch(select), **per_class_accuracy(self.right[select], test)}


RULES: dict[Select, str] = {
    "best": "the epoch of best validation accuracy, the earliest of equals; the last where there is no validation part",
    "last": "the last epoch",
}


def results(runs: Sequence[Trained], select: Select) -> dict[str, Any]:
    """The metrics of one student over its seeds, as JSON.

    Args:
        runs: one a seed.
        select: which epoch is reported; the other is given beside it.
    """
    kinds: tuple[Select, ...] = ("best", "last")
    accuracy = {kind: [run.accuracy(kind) for run in runs] for kind in kinds}
    return {
        "test_accuracy": asdict(summary(accuracy[select])),
        "test_accuracy_per_seed": accuracy[select],
        "select": select,
        "rule": RULES[select],
        **{
            kind: {"test_accuracy": asdict(summary(accuracy[kind])), "epochs": [run.epoch(kind) for run in runs]}
            for kind in kinds
        },
        "parameters": runs[0].parameters,
        "bytes": sum(tensor.nbytes for tensor in runs[0].state(select).values()),
    }


def train_student(
    splits: Splits,
    targets: Mapping[str, Field],
    recipe: Recipe,
    *,
    model: Mapping[str, Any],
    regime: Regime,
    seed: int,
    what: str,
    pretrain: Sequence[Phase] = (),
    views: Views = PLAIN,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 10.0,
    on_epoch: Callable[[History], None] = lambda _: None,
) -> Trained:
    """Train one student of one seed and measure it on the test part.

    Args:
        splits: the prepared data set, on the device where everything happens.
        targets: by dump name, the cached fields that the recipes read.
        recipe: the weighted loss terms.
        model: what `models.build` takes.
        regime: optimiser, schedule and length.
        seed: of initial weights, data order and dropout; students that differ in their recipe
            alone start from the same weights and see the same batches.
        pretrain: phases before; each goes on from the last weights of the one before.
        what, views, checkpoint, checkpoint_seconds, on_epoch: see `training.fit`.
    """
    device = splits.train.labels.device
    with seeded(derive(seed, "init"), device):
        network = build(model, splits.shape, splits.classes).to(device)
    for number, phase in enumerate([*pretrain, Phase(recipe, regime, on_epoch)]):
        last = number == len(pretrain)
        own = seed if last else derive(seed, "pretrain", number)
        beside = checkpoint and (checkpoint if last else checkpoint.with_suffix(f".pretrain-{number}.pt"))
        fitted = _fit(
            network,
            splits,
            targets,
            phase,
            seed=own,
            what=what if last else f"{what}, pretrain {number + 1}",
            views=views,
            checkpoint=beside,
            checkpoint_seconds=checkpoint_seconds,
        )
    right = {}
    states: dict[Select, dict[str, Tensor]] = {"last": fitted.last, "best": fitted.best}
    for select, state in states.items():
        network.load_state_dict(state)
        right[select] = evaluate(network, splits.test)[0]
    return Trained(fitted, right, network.parameter_count())


def _fit(
    network: Network, splits: Splits, targets: Mapping[str, Field], phase: Phase, *, seed: int, **how: Any
) -> Fitted:
    """One phase of a training."""
    recipe, device = phase.recipe, splits.train.labels.device
    plans = order_of(recipe, targets, phase.regime, how["what"])
    with network.tapping(recipe.taps) as taps:
        with seeded(derive(seed, "learned"), device):
            learned = _learned(network, splits.train, targets, recipe, taps)

        def objective(network: Network, batch: Batch) -> dict[str, Tensor]:
            outputs = Outputs(network(batch.images), batch.labels, taps, learned)
            rows = {dump: targets[dump].target(batch) for dump in recipe.dumps}
            return recipe(outputs, rows, batch.epoch)

        return fit(
            network,
            splits.train,
            splits.validation,
            objective,
            regime=phase.regime,
            seed=seed,
            order=plans,
            learned=nn.ModuleDict(learned).to(device),
            on_epoch=phase.on_epoch,
            **how,
        )


def samples_of(splits: Splits, targets: Mapping[str, Field], dumps: Iterable[str]) -> int:
    """Training samples an epoch, for a recipe that reads these dumps."""
    plans = (targets[dump].plans for dump in dumps)
    return next((len(Planned(plan)) for plan in plans if plan is not None), len(splits.train))


def order_of(recipe: Recipe, targets: Mapping[str, Field], regime: Regime, what: str) -> Planned | None:
    """The batch plan that the recipe's fields were made for; None where any order will do.

    Raises:
        InputError: two fields of different plans, or a batch size that is not the plan's.
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
    if regime.batch_size != size or regime.drop_last:
        raise InputError(
            f"{what}: batch_size",
            expected=f"{size} and no drop_last, as in the batch plan of dump {first!r}",
            found=f"{regime.batch_size}{' with drop_last' if regime.drop_last else ''}",
        )
    return Planned(planned[first])


@torch.no_grad()
def _learned(
    network: Network, train: Rows, targets: Mapping[str, Field], recipe: Recipe, taps: Mapping[str, Tensor]
) -> dict[str, nn.Module]:
    """What the recipe's terms learn beside the student, for the shapes of two samples."""
    ids = torch.arange(min(2, len(train)), device=train.labels.device)
    batch = Batch(ids, torch.zeros_like(ids), train.images[ids], train.labels[ids], 0, 0)
    network.eval()
    outputs = Outputs(network(batch.images), batch.labels, taps)
    return recipe.learned(outputs, lambda dump: targets[dump].target(batch))
