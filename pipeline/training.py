"""The training engine that teachers and students share: tensors in, no DataLoader.

A step gathers rows by index on the device, runs the network, sums the objective's terms and
steps the optimiser. Nothing is read back from the device inside an epoch.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pipeline.errors import InputError
from pipeline.files import write_bytes
from pipeline.models.network import Network
from pipeline.models.weights import UNREADABLE
from pipeline.orders import Order, Shuffled
from pipeline.rows import Rows, evaluate
from pipeline.seeds import derive, seeded
from pipeline.views.view import PLAIN, Views

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

History = list[dict[str, float]]  # one row an epoch: its losses, rate and validation scores


@dataclass(frozen=True)
class Batch:
    """What one step trains on: sample ids (B,), their views (B,), images and labels; and which step of which epoch."""

    ids: Tensor
    views: Tensor
    images: Tensor
    labels: Tensor
    epoch: int
    number: int


# The weighted terms of one step; their sum is minimised.
Objective = Callable[[Network, Batch], Mapping[str, Tensor]]


@dataclass
class Best:
    """The state to keep: that of the best epoch so far (the earliest of equals)."""

    accuracy: float = -1.0
    epoch: int = -1
    state: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """A finished training.

    Attributes:
        history: one row an epoch.
        last: state dict after the last epoch; the network holds it too.
        best: state dict after the epoch of best validation accuracy; the last where there is
            no validation part.
        best_epoch: that epoch's number, from 1.
    """

    history: History
    last: dict[str, Tensor]
    best: dict[str, Tensor]
    best_epoch: int


@dataclass(frozen=True)
class Regime:
    """How a network is trained, whatever its loss.

    Attributes:
        optimizer: makes one for the network's parameters.
        scheduler: makes its learning-rate schedule for a number of epochs; it steps every epoch.
        epochs, steps: how long (one of them); the last epoch of `steps` is cut short.
        batch_size: samples a step.
        drop_last: leave out an epoch's last batch where it is smaller.
        l1: adds l1 * sum |w| to the loss.
    """

    optimizer: Callable[[Iterable[Tensor]], Optimizer]
    scheduler: Callable[[Optimizer, int], LRScheduler | ReduceLROnPlateau]
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 128
    drop_last: bool = False
    l1: float = 0.0

    def steps_per_epoch(self, samples: int) -> int:
        """Steps of one whole pass over `samples` training rows."""
        whole, left = divmod(samples, self.batch_size)
        return whole + (left > 0 and not self.drop_last)

    def epochs_for(self, samples: int) -> int:
        """Epochs, the last of them perhaps cut short."""
        if self.epochs is not None:
            return self.epochs
        return -(-(self.steps or 0) // max(1, self.steps_per_epoch(samples)))

    def steps_in(self, epoch: int, samples: int) -> int:
        """Steps of the epoch with this number, from 0."""
        per_epoch = self.steps_per_epoch(samples)
        return per_epoch if self.steps is None else min(per_epoch, self.steps - epoch * per_epoch)


def fit(
    network: Network,
    train: Rows,
    validation: Rows,
    objective: Objective,
    *,
    regime: Regime,
    seed: int,
    what: str,
    views: Views = PLAIN,
    order: Order | None = None,
    learned: nn.Module | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 10.0,
    on_epoch: Callable[[History], None] = lambda _: None,
) -> Fitted:
    """Train a network, keeping the state that was best on validation.

    Args:
        network: trained in place, on the device of its parameters.
        train, validation: rows on that device; validation may be empty.
        objective: the weighted loss terms of a batch.
        regime: optimiser, schedule and length.
        seed: of the data order and of dropout.
        what: names the run in messages ("teacher 'big'").
        views: augments the training images; validation images are shown as they are.
        order: of the training samples; by default drawn from the seed for each epoch.
        learned: is trained beside the network, for the objective's sake.
        checkpoint: where unfinished training is kept; a run that finds it goes on from there
            and ends with the same bytes.
        checkpoint_seconds: at least this long between two checkpoints.
        on_epoch: sees the history after each epoch, and once when a run resumes.

    Raises:
        InputError: a loss is NaN or infinite (the step and the term are named), or the batches
            do not suit the network.
    """
    order = order or Shuffled(len(train), derive(seed, "order"))
    check_batches(network, len(order), regime, what)
    run = _Run(network, regime, order, learned or nn.Module())
    with seeded(derive(seed, "dropout"), train.labels.device):
        if checkpoint is not None and checkpoint.exists():
            run.restore(checkpoint)
            on_epoch(run.history)
        saved = time.monotonic()
        while len(run.history) < regime.epochs_for(len(order)):
            row = run.train_epoch(train, objective, views, what)
            run.finish_epoch(row, validation, what)
            on_epoch(run.history)
            if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
                run.save(checkpoint)
                saved = time.monotonic()
    if checkpoint is not None:  # so that a run of several seeds that is killed keeps the finished ones
        run.save(checkpoint)
    return Fitted(run.history, copied(network), run.best.state, run.best.epoch + 1)


def batches(
    train: Rows, order: Order, batch_size: int, steps: int, epoch: int, *, views: Views = PLAIN
) -> Iterator[Batch]:
    """The first `steps` batches of an epoch, in the given order."""
    ids = order.ids(epoch).to(train.labels.device)[: steps * batch_size]
    shown = views.of_epoch(ids, epoch)
    # Drawn for the whole epoch at once: in every step it would be a hundred tiny operations.
    words = None if views.identity else views.words(ids, shown)
    for number, first in enumerate(range(0, len(ids), batch_size)):
        part = slice(first, first + batch_size)
        images = train.images.index_select(0, ids[part])
        if words is not None:
            images = views.apply(images, words[part])
        yield Batch(ids[part], shown[part], images, train.labels.index_select(0, ids[part]), epoch, number)


def copied(network: nn.Module) -> dict[str, Tensor]:
    """The network's state dict as it is now."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def check_batches(network: nn.Module, samples: int, regime: Regime, what: str) -> None:
    """Refuse batch sizes that leave no step, or one sample to a batch normalisation."""
    if not regime.steps_per_epoch(samples):
        raise InputError(
            f"{what}: batch_size",
            expected=f"at most the {samples} training images",
            found=str(regime.batch_size),
            fix="lower it or leave drop_last out",
        )
    alone = regime.batch_size == 1 or (samples % regime.batch_size == 1 and not regime.drop_last)
    if alone and any(isinstance(module, BATCH_NORMS) for module in network.modules()):
        raise InputError(
            f"{what}: batch_size",
            expected="at least 2 samples in every batch (batch normalisation)",
            found=f"a batch of one ({samples} images in batches of {regime.batch_size})",
            fix="choose another batch_size or set drop_last: true",
        )


def refuse_non_finite(table: NDArray[np.float64], names: list[str], first_step: int, what: str) -> None:
    """Name the first step and term of (steps, terms) losses that is NaN or infinite."""
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        step, term = bad[0]
        raise InputError(
            f"{what}: loss term {names[term]!r} at step {first_step + step + 1}",
            expected="a finite number",
            found=str(table[step, term]),
            fix="lower the learning rate or the term's weight",
        )


class _Run:
    """All state of a training that must survive a kill, and the epoch that advances it."""

    def __init__(self, network: Network, regime: Regime, order: Order, learned: nn.Module) -> None:
        self.network = network
        self.learned = learned
        self.regime = regime
        self.optimizer = regime.optimizer(self.parameters())
        self.scheduler = regime.scheduler(self.optimizer, regime.epochs_for(len(order)))
        self.order = order
        self.history: History = []
        self.best = Best()

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained."""
        return [*self.network.parameters(), *self.learned.parameters()]

    def train_epoch(self, train: Rows, objective: Objective, views: Views, what: str) -> dict[str, float]:
        """One pass over the data: the mean of each loss term."""
        self.network.train()
        epoch, per_epoch = len(self.history), self.regime.steps_per_epoch(len(self.order))
        steps = self.regime.steps_in(epoch, len(self.order))
        losses: list[Tensor] = []
        names: list[str] = []
        for batch in batches(train, self.order, self.regime.batch_size, steps, epoch, views=views):
            terms = dict(objective(self.network, batch))
            if self.regime.l1:
                terms["l1"] = self.regime.l1 * torch.stack([p.abs().sum() for p in self.network.parameters()]).sum()
            self.optimizer.zero_grad(set_to_none=True)
            values = torch.stack(list(terms.values()))
            values.sum().backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            names = list(terms)
            losses.append(values.detach())  # read only when the epoch ends: a read stalls the device's queue
        table = torch.stack(losses).double().cpu().numpy()  # (steps, terms)
        refuse_non_finite(table, names, epoch * per_epoch, what)
        row = {"train/loss": float(table.sum(1).mean()), "lr": float(self.optimizer.param_groups[0]["lr"])}
        return row | {f"train/{name}": float(mean) for name, mean in zip(names, table.mean(0), strict=True)}

    def finish_epoch(self, row: dict[str, float], validation: Rows, what: str) -> None:
        """Measure, keep the best state, step the learning rate, add the row to the history."""
        epoch = len(self.history)
        if not torch.stack([parameter.isfinite().all() for parameter in self.parameters()]).all():
            # The last step's update is in no loss yet.
            raise InputError(
                f"{what}: weights after epoch {epoch + 1}",
                expected="finite numbers",
                found="NaN or inf",
                fix="lower the learning rate",
            )
        accuracy = float(epoch)  # without validation each epoch counts as better than the one before
        watched = row["train/loss"]
        if len(validation):
            right, watched = evaluate(self.network, validation)
            accuracy = float(right.double().mean())
            row |= {"validation/accuracy": accuracy, "validation/loss": watched}
        if accuracy > self.best.accuracy:
            self.best = Best(accuracy, epoch, copied(self.network))
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(watched)
        else:
            self.scheduler.step()
        self.history.append(row)

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        device = next(self.network.parameters()).device
        state = {
            "network": self.network.state_dict(),
            "learned": self.learned.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "order": self.order.state(),
            "dropout": torch.get_rng_state(),
            "dropout_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "history": self.history,
            "best": vars(self.best),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(path, buffer.getbuffer())

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint."""
        try:
            # Our own file in .work, and still only tensors and plain values are ever loaded.
            state = torch.load(path, map_location="cpu", weights_only=True)
        except UNREADABLE as error:
            raise InputError(
                f"checkpoint {path}",
                expected="unfinished training",
                found=f"a damaged file ({type(error).__name__})",
                fix="delete it; the training then starts from the beginning, with the same result",
            ) from None
        self.network.load_state_dict(state["network"])
        self.learned.load_state_dict(state["learned"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.order.restore(state["order"])
        device = next(self.network.parameters()).device
        torch.set_rng_state(state["dropout"])
        if state["dropout_cuda"] is not None:
            torch.cuda.set_rng_state(state["dropout_cuda"], device)
        self.history[:] = state["history"]
        best = state["best"]
        self.best = Best(best["accuracy"], best["epoch"], {k: v.to(device) for k, v in best["state"].items()})
