"""One network in training: its steps, what an epoch leaves behind, and the state that must survive a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pipeline.base.errors import InputError
from pipeline.base.ranks import ALONE
from pipeline.models.network import Network
from pipeline.training.batches import Batch
from pipeline.training.dropout import Masks
from pipeline.training.options import TrainingOptions
from pipeline.training.rows import Rows, evaluate
from pipeline.training.shared_batches import SharedBatches

History = list[dict[str, float]]  # one row an epoch: its losses, rate and validation scores

# The weighted terms of one step; their sum is minimised.
Objective = Callable[[Network, Batch], Mapping[str, Tensor]]


TRACKS = "track_running_stats"  # of a normalisation that gathers statistics while it trains


class NotFiniteError(InputError):
    """A loss or a weight is NaN or infinite."""


@dataclass
class BestState:
    """The state to keep: that of the best epoch so far (the earliest of equals)."""

    accuracy: float = -1.0
    epoch: int = -1
    state: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class FitResult:
    """A finished training of one network.

    Attributes:
        history: one row an epoch.
        last: state dict after the last epoch; the network holds it too.
        best: state dict after the epoch of best validation accuracy; the last where there is
            no validation part.
        best_epoch: that epoch's number, from 1.
        restores: how often an epoch was taken back since it had ended in numbers that are not finite.
    """

    history: History
    last: dict[str, Tensor]
    best: dict[str, Tensor]
    best_epoch: int
    restores: int = 0


@dataclass(frozen=True)
class Member:
    """A network to train, alone or with peers.

    Attributes:
        network: trained in place, on the device of its parameters.
        objective: the weighted loss terms of a batch.
        learned: is trained beside the network, for the objective's sake.
        on_epoch: sees the history after each epoch, and once when a run resumes.
    """

    network: Network
    objective: Objective
    learned: nn.Module = field(default_factory=nn.Module)
    on_epoch: Callable[[History], None] = lambda _: None


class Trainee:
    """A member with its optimiser, schedule and history.

    Args:
        member: the network and its loss.
        options: optimiser, schedule and length.
        epochs: of the whole training.
        what: names it in messages.
    """

    def __init__(self, member: Member, options: TrainingOptions, epochs: int, what: str) -> None:
        self.network, self.objective, self.learned = member.network, member.objective, member.learned
        self.on_epoch, self.options, self.what = member.on_epoch, options, what
        # What is frozen (parts that a phase leaves alone, a discriminator) is no optimiser's.
        self.trainable = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.parameters = [*self.trainable, *(p for p in self.learned.parameters() if p.requires_grad)]
        buffers = (buffer for buffer in self.network.buffers() if buffer.is_floating_point())
        # All of these must stay finite: running statistics may overflow where no loss does.
        self.finite = [*self.parameters, *buffers]
        self.norms = [module for module in self.network.modules() if getattr(module, TRACKS, False)]
        self.optimizer = options.optimizer(self.parameters)
        self.scheduler = options.scheduler(self.optimizer, epochs)
        self.history: History = []
        self.best = BestState()
        self.masks = Masks([], [], torch.device("cpu"))  # of its dropout; a run hands out its own
        self.shares: SharedBatches | None = None  # where several processes train it
        self._losses: list[Tensor] = []
        self._names: list[str] = []

    def step(self, batch: Batch) -> None:
        """One step on one batch."""
        terms = dict(self.objective(self.network, batch))
        if self.options.l1:
            terms["l1"] = self._weigh_sizes()
        for parameter in self.parameters:  # a tenth of the time of `zero_grad`
            parameter.grad = None
        values = torch.stack(list(terms.values()))
        if values.requires_grad:
            values.sum().backward()  # type: ignore[no-untyped-call]
            if self.shares is not None:
                self.shares.add_gradients(self.trainable)
        if not self._names:
            self.refuse_idle(terms)
        self.optimizer.step()
        self.note_losses(list(terms), values.detach())

    def _weigh_sizes(self) -> Tensor:
        """The L1 term; of several processes, whose gradients are added up, each has a share in its gradient."""
        term: Tensor = self.options.l1 * torch.stack([parameter.abs().sum() for parameter in self.trainable]).sum()
        if self.shares is None:
            return term
        part = term / self.shares.ranks.count
        return part + (term - part).detach()

    def note_losses(self, names: list[str], values: Tensor) -> None:
        """Take down the terms (T,) of a step, or those of several (steps, T).

        They are read only when the epoch ends: a read stalls the device's queue.
        """
        self._names = names
        self._losses.append(values.view(-1, len(names)))

    def refuse_idle(self, terms: Iterable[str]) -> None:
        """Raise InputError where the first step has no gradient for any part of the network that is trained."""
        if all(parameter.grad is None for parameter in self.trainable):
            raise InputError(
                f"{self.what}: losses {', '.join(terms)}",
                expected="such as depend on the part of the network that is trained",
                found="none that does",
                fix="train another part, or read another tap",
            )

    @torch.no_grad()
    def peer_logits(self, batch: Batch) -> Tensor:
        """The logits (B, classes) that the network's peers learn from, in training mode as in its own steps.

        The running statistics of batch normalisations are left as they are: only steps change them.
        """
        for norm in self.norms:
            setattr(norm, TRACKS, False)
        try:
            logits: Tensor = self.network(batch.images)
        finally:
            for norm in self.norms:
                setattr(norm, TRACKS, True)
        return logits

    def mean_losses(self, first_step: int) -> dict[str, float]:
        """The epoch's row so far: the mean of each loss term over its steps.

        Args:
            first_step: the number, from 0, of the epoch's first step in the whole training.

        Raises:
            NotFiniteError: a loss, or a weight after the last step, is NaN or infinite.
        """
        table = torch.cat(self._losses).double().cpu().numpy()  # (steps, terms)
        self._losses = []
        refuse_non_finite(table, self._names, first_step, self.what)
        finite = bool(torch.stack([tensor.isfinite().all() for tensor in self.finite]).all())
        if self.shares is not None:  # running statistics of one's own rows may overflow in one process alone
            finite = all(self.shares.ranks.exchange(finite))
        if not finite:
            # The last step's update is in no loss yet.
            raise NotFiniteError(
                f"{self.what}: weights after epoch {len(self.history) + 1}",
                expected="finite numbers",
                found="NaN or inf",
                fix="lower the learning rate, or let `on_nan: restore` do so",
            )
        row = {"train/loss": float(table.sum(1).mean()), "lr": float(self.optimizer.param_groups[0]["lr"])}
        return row | {f"train/{name}": float(mean) for name, mean in zip(self._names, table.mean(0), strict=True)}

    def finish_epoch(self, row: dict[str, float], validation: Rows) -> None:
        """Measure, keep the best state, step the learning rate, add the row to the history."""
        if self.shares is not None:
            if self.options.batch_norm == "local":
                self.shares.average_statistics(self.network)
            self.shares.refuse_difference([self.network, self.learned], row, self.what)
        epoch = len(self.history)
        accuracy = float(epoch)  # without validation each epoch counts as better than the one before
        watched = row["train/loss"]
        if len(validation):
            ranks = ALONE if self.shares is None else self.shares.ranks
            correct, watched = evaluate(self.network, validation, ranks)
            accuracy = float(correct.double().mean())
            row |= {"validation/accuracy": accuracy, "validation/loss": watched}
        if accuracy > self.best.accuracy:
            self.best = BestState(accuracy, epoch, copy_state(self.network))
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(watched)
        else:
            self.scheduler.step()
        self.history.append(row)

    def divide_rate(self, by: float) -> None:
        """Divide the learning rate, now and for the schedule to come."""
        for group in self.optimizer.param_groups:
            group["lr"] /= by
        if not isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.base_lrs = [rate / by for rate in self.scheduler.base_lrs]

    def state(self, *, whole: bool = True) -> dict[str, Any]:
        """All that must survive a kill, sharing memory with what is trained.

        Args:
            whole: with what the steps of an epoch leave alone.
        """
        steps = {
            "network": self.network.state_dict(),
            "learned": self.learned.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        return {**steps, **self._slow_state()} if whole else steps

    def _slow_state(self) -> dict[str, Any]:
        """What changes between epochs alone."""
        return {"scheduler": self.scheduler.state_dict(), "history": self.history, "best": vars(self.best)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.network.load_state_dict(state["network"])
        self.learned.load_state_dict(state["learned"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._losses = []
        if "history" in state:
            self._restore_slow(state)

    def _restore_slow(self, state: Mapping[str, Any]) -> None:
        self.scheduler.load_state_dict(state["scheduler"])
        self.history[:] = state["history"]
        self.best = BestState(**state["best"])

    def result(self, restores: int) -> FitResult:
        """The finished training."""
        return FitResult(self.history, copy_state(self.network), self.best.state, self.best.epoch + 1, restores)


def refuse_non_finite(table: NDArray[np.float64], names: list[str], first_step: int, what: str) -> None:
    """Name the first step and term of (steps, terms) losses that is NaN or infinite."""
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        step, term = bad[0]
        raise NotFiniteError(
            f"{what}: loss term {names[term]!r} at step {first_step + step + 1}",
            expected="a finite number",
            found=str(table[step, term]),
            fix="lower the learning rate or the term's weight, or let `on_nan: restore` go back",
        )


def copy_state(network: nn.Module) -> dict[str, Tensor]:
    """The network's state dict as it is now, in memory: what a device holds is what is trained."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
