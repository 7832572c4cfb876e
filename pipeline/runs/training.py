"""From a section of params.yaml to the plain values that a training takes, and its progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from pipeline.base.progress import progress_bar
from pipeline.study.sections import TrainableParams, TrainingParams
from pipeline.training.network_trainer import History
from pipeline.training.options import Restore, TrainingOptions
from pipeline.training.registries import LR_SCHEDULES, OPTIMIZERS, ORDERS
from pipeline.training.trainable_part import TrainablePart


def training_options(params: TrainingParams) -> TrainingOptions:
    """The optimiser, schedule and length of a teacher or student."""
    return TrainingOptions(
        optimizer=partial(OPTIMIZERS.import_function(params.optimizer.name), **params.optimizer.options),
        scheduler=partial(LR_SCHEDULES.import_function(params.lr_schedule.name), **params.lr_schedule.options),
        epochs=params.epochs,
        steps=params.steps,
        batch_size=params.batch_size,
        drop_last=params.drop_last,
        order=partial(ORDERS.import_function(params.order.name), **params.order.options) if params.has_order else None,
        l1=params.l1,
        on_nan=None if params.on_nan is None else Restore(params.on_nan.divide, params.on_nan.at_most),
        compile=params.compile,
        batch_norm=params.batch_norm,
    )


def trainable_part(params: TrainableParams) -> TrainablePart:
    """The part that a phase trains."""
    return TrainablePart(params.up_to, params.only)


Watch = Callable[[History], None]


def ignore_history(history: History) -> None:
    """Do nothing: another process writes the curves."""


@contextmanager
def show_epochs(
    title: str, epochs: Sequence[Sequence[int]], logs: Sequence[Sequence[Sequence[Watch]]]
) -> Iterator[list[list[list[Watch]]]]:
    """For each run, each of its phases, and each network, an `on_epoch` that hands its history to a log.

    All move one bar, by what the first network of each run does.

    Args:
        title: of the bar.
        epochs: of each run, those of its phases.
        logs: by run, phase and network, what takes the history: `Curves`, for instance.
    """
    done: dict[tuple[int, int], int] = {}
    with progress_bar(title, sum(map(sum, epochs))) as bar:

        def watch(run: int, phase: int, log: Watch) -> Watch:
            def on_epoch(history: History) -> None:
                log(history)
                done[run, phase] = len(history)
                accuracy = history[-1].get("validation/accuracy") if history else None
                bar(sum(done.values()), f"validation {accuracy:.4f}" if accuracy is not None else "")

            return on_epoch

        yield [
            [[watch(run, phase, first), *others] for phase, (first, *others) in enumerate(phases)]
            for run, phases in enumerate(logs)
        ]
