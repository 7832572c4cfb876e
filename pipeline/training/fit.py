"""The training engine that teachers and students share: tensors in, no DataLoader.

A step picks rows by index on the device, or finds them gathered from disk, runs the network, sums
the objective's terms and steps the optimiser. Nothing is read back from the device inside an epoch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.base.errors import InputError
from pipeline.base.ranks import ALONE, Ranks
from pipeline.models.network import Network
from pipeline.training.network_trainer import FitResult, History, Member, Objective
from pipeline.training.options import TrainingOptions
from pipeline.training.rows import Rows
from pipeline.training.run import Data, Plan, Run, load_checkpoint, save_checkpoint
from pipeline.training.stack import NotStackableError, Stack, find_obstacle, find_untraceable, is_worth_tracing
from pipeline.views.view import PLAIN, Views

LOG = logging.getLogger(__name__)
CHECKPOINT_SECONDS = 10.0


def fit(
    network: Network,
    train: Rows,
    validation: Rows,
    objective: Objective,
    *,
    options: TrainingOptions,
    seed: int,
    what: str,
    learned: nn.Module | None = None,
    on_epoch: Callable[[History], None] = lambda _: None,
    views: Views = PLAIN,
    ranks: Ranks = ALONE,
    **how: Any,
) -> FitResult:
    """Train one network, keeping the state that was best on validation.

    Args:
        network, objective, learned, on_epoch: see `network_trainer.Member`.
        train, validation, views: see `run.Data`.
        options, seed, what, ranks: see `run.Plan`.
        how: see `fit_runs`.
    """
    plan = Plan([Member(network, objective, learned or nn.Module(), on_epoch)], options, seed, what, ranks=ranks)
    ((fitted,),) = fit_runs([plan], Data(train, validation, views), **how)
    return fitted


def fit_runs(
    plans: Sequence[Plan],
    data: Data,
    *,
    checkpoint: Path | None = None,
    checkpoint_seconds: float | None = None,
) -> list[list[FitResult]]:
    """Train independent runs, together where they are alike enough for it, keeping each network's best state.

    No run's result depends on the others, beyond the rounding of its numbers.

    Args:
        plans: of the runs. Several have the options of one number of steps, and no peers.
        data: that all of them are trained on.
        checkpoint: where unfinished training is kept; who finds it goes on from there
            and ends with the same bytes.
        checkpoint_seconds: at least this long between two checkpoints; None: as long as is usual.

    Returns:
        For each run, the result of each of its networks.

    Raises:
        InputError: a loss is NaN or infinite (the step and the term are named) and the options do not
            say what to do about it, or the batches do not suit a network.
    """
    stack = _stack_runs(plans, data) if len(plans) > 1 else None
    if stack is not None:
        return _train([*stack.runs], stack.open(), stack.train_epoch, checkpoint, checkpoint_seconds)
    fitted = []
    for number, plan in enumerate(plans):
        run = Run(plan, data)
        stack = _trace_run(run)
        open_run, train_epoch = (run.open(), run.train_epoch) if stack is None else (stack.open(), stack.train_epoch)
        # A stack's file, of the same runs, is none of theirs: on another day they may have been stacked.
        path = checkpoint if checkpoint is None or len(plans) == 1 else checkpoint.with_suffix(f".{number}.pt")
        fitted += _train([run], open_run, train_epoch, path, checkpoint_seconds)
    return fitted


def _stack_runs(plans: Sequence[Plan], data: Data) -> Stack | None:
    """The runs stacked; None, and a line that says why, where they cannot be."""
    reason = find_obstacle(plans, data.train.labels.device)
    if reason is None:
        try:
            stack = Stack([Run(plan, data) for plan in plans])
            stack.prepare()
        except NotStackableError as error:
            reason = str(error)
        except torch.OutOfMemoryError:
            reason = "they do not fit the device together"
        else:
            return stack
    LOG.warning("%s, and %d more: one after the other: %s", plans[0].what, len(plans) - 1, reason)
    return None


def _trace_run(run: Run) -> Stack | None:
    """A lone run whose steps are traced, where that pays or where they are to be compiled.

    Raises:
        InputError: they are to be compiled, and cannot be.
    """
    if run.options.compile:
        return compile_run(run)
    if not is_worth_tracing(run):
        return None
    try:
        stack = Stack([run])
        stack.prepare()
    except NotStackableError:
        return None
    return stack


def compile_run(run: Run) -> Stack:
    """A lone run whose steps are compiled.

    Raises:
        InputError: they cannot be.
    """
    reason = find_untraceable([run.plan])
    if reason is None:
        try:
            stack = Stack([run])
            stack.prepare()
        except NotStackableError as error:
            reason = str(error)
        else:
            return stack
    expected = "a training whose steps can be traced"
    raise InputError(f"{run.plan.what}: compile", expected=expected, found=reason, fix="leave `compile` out")


def _train(
    runs: Sequence[Run],
    chance: AbstractContextManager[None],
    train_epoch: Callable[[], None],
    checkpoint: Path | None,
    checkpoint_seconds: float | None,
) -> list[list[FitResult]]:
    """Train runs, that go on together, from the beginning or from a checkpoint to their end."""
    pause = CHECKPOINT_SECONDS if checkpoint_seconds is None else checkpoint_seconds
    with chance:
        ranks = runs[0].plan.ranks
        if checkpoint is not None and ranks.agree(checkpoint.exists):
            load_checkpoint(runs, checkpoint)
            _report(runs)
        saved = time.monotonic()
        while runs[0].epoch < runs[0].epochs:
            train_epoch()
            _report(runs)
            if checkpoint is not None and ranks.is_first and time.monotonic() - saved >= pause:
                save_checkpoint(runs, checkpoint)
                saved = time.monotonic()
    if (
        checkpoint is not None and ranks.is_first
    ):  # so that what is killed in a later phase, or another run, keeps the finished ones
        save_checkpoint(runs, checkpoint)
    return [run.results() for run in runs]


def _report(runs: Sequence[Run]) -> None:
    for run in runs:
        run.report_histories()
