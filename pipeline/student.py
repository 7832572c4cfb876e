"""The student: trained from tensors and cached fields alone. Nothing here can run a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from pipeline.cached import Target
from pipeline.losses.recipe import Recipe
from pipeline.losses.step import Outputs
from pipeline.models.build import build
from pipeline.models.network import Network
from pipeline.rows import Rows, Splits, evaluate, per_class_accuracy
from pipeline.seeds import derive, seeded
from pipeline.statistics import summary
from pipeline.training import Batch, Fitted, History, Regime, fit
from pipeline.views.view import PLAIN, Views

Select = Literal["best", "last"]


class Field(Protocol):
    """A cached field: its rows for sample ids, each as its view shows it."""

    def rows(self, ids: Tensor, views: Tensor) -> Target:
        """(n, ...) on the ids' device, row i being that of sample ids[i] in view views[i]."""
        ...


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
    views: Views = PLAIN,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 10.0,
    on_epoch: Callable[[History], None] = lambda _: None,
) -> Trained:
    """Train one student of one seed and measure it on the test part.

    Args:
        splits: the prepared data set, on the device where everything happens.
        targets: by dump name, the cached fields that the recipe reads.
        recipe: the weighted loss terms.
        model: what `models.build` takes.
        regime: optimiser, schedule and length.
        seed: of initial weights, data order and dropout; students that differ in their recipe
            alone start from the same weights and see the same batches.
        what, views, checkpoint, checkpoint_seconds, on_epoch: see `training.fit`.
    """
    device = splits.train.labels.device
    with seeded(derive(seed, "init"), device):
        network = build(model, splits.shape, splits.classes).to(device)

    def objective(network: Network, batch: Batch) -> dict[str, Tensor]:
        outputs = Outputs(network(batch.images), batch.labels)
        rows = {dump: targets[dump].rows(batch.ids, batch.views) for dump in recipe.dumps}
        return recipe(outputs, rows, batch.epoch)

    fitted = fit(
        network,
        splits.train,
        splits.validation,
        objective,
        regime=regime,
        seed=seed,
        what=what,
        views=views,
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        on_epoch=on_epoch,
    )
    right = {}
    states: dict[Select, dict[str, Tensor]] = {"last": fitted.last, "best": fitted.best}
    for select, state in states.items():
        network.load_state_dict(state)
        right[select] = evaluate(network, splits.test)[0]
    return Trained(fitted, right, network.parameter_count())
