"""One training run: a network, or several that step in turn on the same batches, with all that must survive a kill."""

from __future__ import annotations

import copy
import io
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.base.errors import InputError
from pipeline.base.files import write_bytes
from pipeline.base.ranks import ALONE, Ranks
from pipeline.base.seeds import derive_seed, fork_seeded_rng
from pipeline.models.weights import UNREADABLE
from pipeline.training.batches import Batch, iterate_batches
from pipeline.training.dropout import counted_dropout
from pipeline.training.feeder import Stream
from pipeline.training.network_trainer import FitResult, Member, NotFiniteError, Trainee
from pipeline.training.options import TrainingOptions
from pipeline.training.rows import Rows
from pipeline.training.sample_order import Order, RandomOrder
from pipeline.training.shared_batches import SharedBatches, share_network
from pipeline.views.view import PLAIN, Views

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Data:
    """What a run is trained on.

    Attributes:
        train, validation: rows for the networks' device; validation may be empty.
        views: augments the training images; validation images are shown as they are.
        streams: what the objectives read of disk, to be gathered ahead.
    """

    train: Rows
    validation: Rows
    views: Views = PLAIN
    streams: Sequence[Stream] = ()


@dataclass(frozen=True)
class Plan:
    """How one run is trained.

    Attributes:
        members: the networks and their losses.
        options: optimiser, schedule and length; each network has an optimiser of its own.
        seed: of the data order and of dropout.
        what: names the run in messages ("student 'small'").
        mutual: each step is shown the others' logits as they are at that moment (`Batch.peers`).
        order: that of a batch plan, instead of the one that the options make.
        ranks: the processes that train it, each its rows of every batch.
    """

    members: Sequence[Member]
    options: TrainingOptions
    seed: int
    what: str
    mutual: bool = False
    order: Order | None = None
    ranks: Ranks = ALONE


class Run:
    """A run in training, epoch by epoch.

    Args:
        plan: how it is trained.
        data: on what.

    Raises:
        InputError: the batches do not suit a network.
    """

    def __init__(self, plan: Plan, data: Data) -> None:
        self.plan, self.data, self.options = plan, data, plan.options
        samples = len(data.train)
        self.order = plan.order or (plan.options.order or RandomOrder)(samples, derive_seed(plan.seed, "order"))
        for member in plan.members:
            check_batches(member.network, len(self.order), plan.options, plan.what, plan.ranks)
        self.epochs = plan.options.count_epochs(len(self.order))
        self.trainees = [Trainee(member, plan.options, self.epochs, plan.what) for member in plan.members]
        self.restores = 0

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.trainees[0].history)

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.options.steps or self.epochs * self.options.steps_per_epoch(len(self.order))

    @property
    def first_step(self) -> int:
        """The number, from 0, of the next epoch's first step in the whole training."""
        return self.epoch * self.options.steps_per_epoch(len(self.order))

    @property
    def dropout_seeds(self) -> list[int]:
        """That of each network's masks; the first of several has those that a lone one would have."""
        return [derive_seed(self.plan.seed, "dropout", *([peer] if peer else [])) for peer in range(len(self.trainees))]

    @contextmanager
    def open(self) -> Iterator[None]:
        """While it is open, the networks' chance is this run's own: that of dropout, and that of torch's generators."""
        device = self.data.train.labels.device
        with ExitStack() as stack:
            for trainee, seed in zip(self.trainees, self.dropout_seeds, strict=True):
                trainee.masks = stack.enter_context(counted_dropout(trainee.network, seed, device))
                if self.plan.ranks.are_several:
                    stack.enter_context(self._share(trainee))
            stack.enter_context(fork_seeded_rng(derive_seed(self.plan.seed, "dropout"), device))
            yield

    @contextmanager
    def _share(self, trainee: Trainee) -> Iterator[None]:
        """While it is open, a network is computed by several processes."""
        shares = SharedBatches(self.plan.ranks, derive_seed(self.plan.seed, "shares", self.trainees.index(trainee)))
        trainee.shares = trainee.masks.shares = trainee.network.shares = shares
        synchronised = self.options.batch_norm == "synchronised"
        try:
            with share_network(trainee.network, shares, self.plan.what, synchronised=synchronised):
                yield
        finally:
            trainee.shares = trainee.network.shares = None

    def report_histories(self) -> None:
        """Hand each trainee's history to its watcher."""
        for trainee in self.trainees:
            trainee.on_epoch(trainee.history)

    def train_epoch(self) -> None:
        """One pass over the data; where `on_nan` is set, taken back and tried again if it ends in NaN."""
        before = self.remember()
        self.run_steps()
        self.end_epoch(before)

    def end_epoch(self, before: dict[str, Any] | None) -> None:
        """What follows an epoch's steps: its row in the history, or another try from the state before it.

        Raises:
            NotFiniteError: it ended in numbers that are not finite, and nothing (more) is to be done about it.
        """
        while True:
            try:
                rows = [trainee.mean_losses(self.first_step) for trainee in self.trainees]
            except NotFiniteError as error:
                if before is None or self.options.on_nan is None:
                    raise
                if self.restores >= self.options.on_nan.at_most:
                    raise NotFiniteError(f"{error}; on_nan has gone back {self.restores} times, and gives up") from None
                before = self._take_back(before, self.options.on_nan.divide)
                self.run_steps()
                continue
            for trainee, row in zip(self.trainees, rows, strict=True):
                trainee.finish_epoch(row, self.data.validation)
            return

    def run_steps(self) -> None:
        """The epoch's batches: every network steps on each, in turn."""
        first_step = self.first_step
        for trainee in self.trainees:
            trainee.network.train()
        with closing(self._batches()) as batches:
            for batch in batches:
                for trainee in self.trainees:
                    trainee.masks.begin_step(first_step + batch.number)
                if self.plan.mutual:
                    self.step_mutually(batch)
                else:
                    for trainee in self.trainees:
                        trainee.step(batch)

    def _batches(self) -> Generator[Batch, None, None]:
        data, steps = self.data, self.options.count_steps(self.epoch, len(self.order))
        ids, size = self.order.ids(self.epoch), self.options.batch_size
        return iterate_batches(data.train, ids, size, steps, self.epoch, views=data.views, streams=data.streams)

    def step_mutually(self, batch: Batch) -> None:
        """Each network learns from the others' current logits: those before it have stepped on this batch already."""
        logits = [trainee.peer_logits(batch) for trainee in self.trainees]
        for number, trainee in enumerate(self.trainees):
            others = torch.stack([*logits[:number], *logits[number + 1 :]])
            trainee.step(replace(batch, peers=others))
            if trainee is not self.trainees[-1]:  # no later network reads the last one's
                logits[number] = trainee.peer_logits(batch)

    def remember(self) -> dict[str, Any] | None:
        """A copy of the state, where the options may want it back."""
        return _copy(self.state(whole=False)) if self.options.on_nan else None

    def _take_back(self, before: dict[str, Any], divide: float) -> dict[str, Any]:
        """Put the state before the epoch back, with a smaller learning rate; that is the new state before it."""
        self.restore(before)
        self.restores += 1
        for trainee in self.trainees:
            trainee.divide_rate(divide)
        made: dict[str, Any] = _copy(self.state(whole=False))
        return made

    def state(self, *, whole: bool = True) -> dict[str, Any]:
        """All that must survive a kill, sharing memory with what is trained.

        Args:
            whole: with what an epoch's steps leave alone (the best state so far).
        """
        device = self.data.train.labels.device
        return {
            "trainees": [trainee.state(whole=whole) for trainee in self.trainees],
            "order": self.order.state(),
            "dropout": torch.get_rng_state(),
            "dropout_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "restores": self.restores,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for trainee, its in zip(self.trainees, state["trainees"], strict=True):
            trainee.restore(its)
        self.order.restore(state["order"])
        self.restores = state["restores"]
        torch.set_rng_state(state["dropout"])
        if state["dropout_cuda"] is not None:
            torch.cuda.set_rng_state(state["dropout_cuda"], self.data.train.labels.device)

    def results(self) -> list[FitResult]:
        """The finished training of each network."""
        return [trainee.result(self.restores) for trainee in self.trainees]


def _copy(state: Any) -> Any:
    """A copy of a state; of a tensor that is a row of others, of that row alone."""
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: _copy(value) for key, value in state.items()}
    return [_copy(value) for value in state] if isinstance(state, list) else copy.copy(state)


def check_batches(network: nn.Module, samples: int, options: TrainingOptions, what: str, ranks: Ranks = ALONE) -> None:
    """Refuse batch sizes that leave no step, one sample to a batch normalisation, or nothing to a process."""
    if not options.steps_per_epoch(samples):
        raise InputError(
            f"{what}: batch_size",
            expected=f"at most the {samples} training images",
            found=str(options.batch_size),
            fix="lower it or leave drop_last out",
        )
    last = 0 if options.drop_last else samples % options.batch_size
    fewest = min(options.batch_size, last or options.batch_size)
    if ranks.are_several and fewest < 2 * ranks.count:
        raise InputError(
            f"{what}: batch_size",
            expected=f"at least {2 * ranks.count} samples in every batch, two for each process",
            found=f"a batch of {fewest} ({samples} images in batches of {options.batch_size})",
            fix="start fewer processes, choose another batch_size or set drop_last: true",
        )
    alone = options.batch_size == 1 or (samples % options.batch_size == 1 and not options.drop_last)
    if alone and any(isinstance(module, BATCH_NORMS) for module in network.modules()):
        raise InputError(
            f"{what}: batch_size",
            expected="at least 2 samples in every batch (batch normalisation)",
            found=f"a batch of one ({samples} images in batches of {options.batch_size})",
            fix="choose another batch_size or set drop_last: true",
        )


def save_checkpoint(runs: Sequence[Run], path: Path) -> None:
    """Write the state of runs that are trained together, whole or not at all."""
    buffer = io.BytesIO()
    torch.save([run.state() for run in runs], buffer)
    write_bytes(path, buffer.getbuffer())


def load_checkpoint(runs: Sequence[Run], path: Path) -> None:
    """Go on from a checkpoint."""
    try:
        # Our own file in .work, and still only tensors and plain values are ever loaded.
        states = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise InputError(
            f"checkpoint {path}",
            expected="unfinished training",
            found=f"a damaged file ({type(error).__name__})",
            fix="delete it; the training then starts from the beginning, with the same result",
        ) from None
    for run, state in zip(runs, states, strict=True):
        run.restore(state)
