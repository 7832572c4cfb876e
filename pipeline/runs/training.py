"""From a section of params.yaml to the plain values that a training takes, and its progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate

from pipeline.base.progress import progress_bar
from pipeline.study.sections import TrainableParams, TrainingParams
from pipeline.training.curves import Curves
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
    )


def trainable_part(params: TrainableParams) -> TrainablePart:
    """The part that a phase trains."""
    return TrainablePart(params.up_to, params.only)


@contextmanager
def show_epochs(title: str, *phases: tuple[int, Sequence[Curves]]) -> Iterator[list[list[Callable[[History], None]]]]:
    """For each phase (its epochs, the curves of each network) an `on_epoch` a network that logs the curves.

    All phases move one bar, by what their first network does.
    """
    with progress_bar(title, sum(epochs for epochs, _ in phases)) as bar:

        def watch(before: int, first: Curves) -> Callable[[History], None]:
            def on_epoch(history: History) -> None:
                first(history)
                accuracy = history[-1].get("validation/accuracy") if history else None
                bar(before + len(history), f"validation {accuracy:.4f}" if accuracy is not None else "")

            return on_epoch

        done = accumulate((epochs for epochs, _ in phases), initial=0)
        yield [[watch(before, first), *others] for before, (_, (first, *others)) in zip(done, phases, strict=False)]
