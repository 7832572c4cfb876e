"""The training engine that teachers and students share: tensors in, no DataLoader.

A step picks rows by index on the device, or finds them gathered from disk, runs the network, sums
the objective's terms and steps the optimiser. Nothing is read back from the device inside an epoch.
The networks of a cohort see the same batches, and are stepped in turn.
"""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.base.errors import InputError
from pipeline.base.files import write_bytes
from pipeline.base.seeds import derive_seed, fork_seeded_rng
from pipeline.models.network import Network
from pipeline.models.weights import UNREADABLE
from pipeline.training.batches import Batch, iterate_batches
from pipeline.training.feeder import Stream
from pipeline.training.network_trainer import FitResult, History, Member, NotFiniteError, Objective, Trainee
from pipeline.training.options import TrainingOptions
from pipeline.training.rows import Rows
from pipeline.training.sample_order import Order, RandomOrder
from pipeline.views.view import PLAIN, Views

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def fit(
    network: Network,
    train: Rows,
    validation: Rows,
    objective: Objective,
    *,
    learned: nn.Module | None = None,
    on_epoch: Callable[[History], None] = lambda _: None,
    **how: Any,
) -> FitResult:
    """Train a network, keeping the state that was best on validation: a cohort of one.

    Args:
        network, objective, learned, on_epoch: see `network_trainer.Member`.
        train, validation: rows for the network's device; validation may be empty.
        how: see `fit_cohort`.
    """
    member = Member(network, objective, learned or nn.Module(), on_epoch)
    return fit_cohort([member], train, validation, **how)[0]


def fit_cohort(
    members: Sequence[Member],
    train: Rows,
    validation: Rows,
    *,
    options: TrainingOptions,
    seed: int,
    what: str,
    mutual: bool = False,
    views: Views = PLAIN,
    order: Order | None = None,
    streams: Sequence[Stream] = (),
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 10.0,
) -> list[FitResult]:
    """Train networks on the same batches, in turn, keeping for each the state that was best on validation.

    Args:
        members: the networks and their losses.
        train, validation: rows for the networks' device; validation may be empty.
        options: optimiser, schedule and length; each network has an optimiser of its own.
        seed: of the data order and of dropout.
        what: names the run in messages ("student 'small'").
        mutual: each step is shown the others' logits as they are at that moment (`Batch.peers`).
        views: augments the training images; validation images are shown as they are.
        order: that of a batch plan, instead of the one that the options make.
        streams: what the objectives read of disk, to be gathered ahead.
        checkpoint: where unfinished training is kept; a run that finds it goes on from there
            and ends with the same bytes.
        checkpoint_seconds: at least this long between two checkpoints.

    Raises:
        InputError: a loss is NaN or infinite (the step and the term are named) and the options do not
            say what to do about it, or the batches do not suit the network.
    """
    order = order or (options.order or RandomOrder)(len(train), derive_seed(seed, "order"))
    for member in members:
        check_batches(member.network, len(order), options, what)
    epochs = options.count_epochs(len(order))
    trainees = [Trainee(member, options, epochs, what) for member in members]
    cohort = _Cohort(trainees, order, options, mutual, streams)
    with fork_seeded_rng(derive_seed(seed, "dropout"), train.labels.device):
        if checkpoint is not None and checkpoint.exists():
            cohort.load(checkpoint)
            cohort.report_histories()
        saved = time.monotonic()
        while cohort.epoch < epochs:
            cohort.train_epoch(train, validation, views)
            cohort.report_histories()
            if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
                cohort.save(checkpoint)
                saved = time.monotonic()
    if checkpoint is not None:  # so that a run of several seeds that is killed keeps the finished ones
        cohort.save(checkpoint)
    return [trainee.result(cohort.restores) for trainee in cohort.trainees]


def check_batches(network: nn.Module, samples: int, options: TrainingOptions, what: str) -> None:
    """Refuse batch sizes that leave no step, or one sample to a batch normalisation."""
    if not options.steps_per_epoch(samples):
        raise InputError(
            f"{what}: batch_size",
            expected=f"at most the {samples} training images",
            found=str(options.batch_size),
            fix="lower it or leave drop_last out",
        )
    alone = options.batch_size == 1 or (samples % options.batch_size == 1 and not options.drop_last)
    if alone and any(isinstance(module, BATCH_NORMS) for module in network.modules()):
        raise InputError(
            f"{what}: batch_size",
            expected="at least 2 samples in every batch (batch normalisation)",
            found=f"a batch of one ({samples} images in batches of {options.batch_size})",
            fix="choose another batch_size or set drop_last: true",
        )


class _Cohort:
    """Networks that are trained together, epoch by epoch."""

    def __init__(
        self,
        trainees: list[Trainee],
        order: Order,
        options: TrainingOptions,
        mutual: bool,
        streams: Sequence[Stream],
    ) -> None:
        self.trainees, self.order, self.options, self.mutual = trainees, order, options, mutual
        self.streams = streams
        self.restores = 0

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.trainees[0].history)

    def report_histories(self) -> None:
        """Hand each trainee's history to its watcher."""
        for trainee in self.trainees:
            trainee.on_epoch(trainee.history)

    def train_epoch(self, train: Rows, validation: Rows, views: Views) -> None:
        """One pass over the data; where `on_nan` is set, taken back and tried again if it ends in NaN."""
        before = copy.deepcopy(self._state()) if self.options.on_nan else None
        first_step = self.epoch * self.options.steps_per_epoch(len(self.order))
        while True:
            self._run_steps(train, views)
            try:
                rows = [trainee.mean_losses(first_step) for trainee in self.trainees]
            except NotFiniteError as error:
                if before is None or self.options.on_nan is None:
                    raise
                if self.restores >= self.options.on_nan.at_most:
                    raise NotFiniteError(f"{error}; on_nan has gone back {self.restores} times, and gives up") from None
                before = self._take_back(before, self.options.on_nan.divide)
                continue
            for trainee, row in zip(self.trainees, rows, strict=True):
                trainee.finish_epoch(row, validation)
            return

    def _run_steps(self, train: Rows, views: Views) -> None:
        """The epoch's batches: every network steps on each, in turn."""
        for trainee in self.trainees:
            trainee.network.train()
        steps = self.options.count_steps(self.epoch, len(self.order))
        size = self.options.batch_size
        made = iterate_batches(train, self.order, size, steps, self.epoch, views=views, streams=self.streams)
        with closing(made) as batches:
            for batch in batches:
                if self.mutual:
                    self._mutual_step(batch)
                else:
                    for trainee in self.trainees:
                        trainee.step(batch)

    def _mutual_step(self, batch: Batch) -> None:
        """Each network learns from the others' current logits: those before it have stepped on this batch already."""
        logits = [trainee.peer_logits(batch) for trainee in self.trainees]
        for number, trainee in enumerate(self.trainees):
            others = torch.stack([*logits[:number], *logits[number + 1 :]])
            trainee.step(replace(batch, peers=others))
            if trainee is not self.trainees[-1]:  # no later network reads the last one's
                logits[number] = trainee.peer_logits(batch)

    def _take_back(self, before: dict[str, Any], divide: float) -> dict[str, Any]:
        """Put the state before the epoch back, with a smaller learning rate; that is the new state before it."""
        self._restore(before)
        self.restores += 1
        for trainee in self.trainees:
            trainee.divide_rate(divide)
        return copy.deepcopy(self._state())

    def _state(self) -> dict[str, Any]:
        device = next(self.trainees[0].network.parameters()).device
        return {
            "trainees": [trainee.state() for trainee in self.trainees],
            "order": self.order.state(),
            "dropout": torch.get_rng_state(),
            "dropout_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "restores": self.restores,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        for trainee, its in zip(self.trainees, state["trainees"], strict=True):
            trainee.restore(its)
        self.order.restore(state["order"])
        self.restores = state["restores"]
        torch.set_rng_state(state["dropout"])
        if state["dropout_cuda"] is not None:
            torch.cuda.set_rng_state(state["dropout_cuda"], next(self.trainees[0].network.parameters()).device)

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        buffer = io.BytesIO()
        torch.save(self._state(), buffer)
        write_bytes(path, buffer.getbuffer())

    def load(self, path: Path) -> None:
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
        self._restore(state)
