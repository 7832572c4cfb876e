"""The options of a training, whatever its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pipeline.training.sample_order import Order


@dataclass(frozen=True)
class Restore:
    """What to do about an epoch that ends in NaN or infinite numbers (METHODS: mentee networks): take back
    the state before it, divide the learning rate, and try again.

    Attributes:
        divide: the learning rate is divided by this.
        at_most: so often in a phase; the next time stops it.
    """

    divide: float = 100.0
    at_most: int = 10


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained, whatever its loss.

    Attributes:
        optimizer: makes one for the network's parameters.
        scheduler: makes its learning-rate schedule for a number of epochs; it steps every epoch.
        epochs, steps: how long (one of them); the last epoch of `steps` is cut short.
        batch_size: samples a step.
        drop_last: leave out an epoch's last batch where it is smaller.
        order: makes the samples' order from their number and a seed; None: all are shuffled together, unless
            the training's fields bring a batch plan.
        l1: adds l1 * sum |w| to the loss.
        on_nan: what to do about numbers that are not finite; None stops the training.
        compile: each step is one compiled graph (`traced_graph.trace`).
        batch_norm: where several processes train it, normalise by the whole batch's moments, or one's own rows'.
    """

    optimizer: Callable[[Iterable[Tensor]], Optimizer]
    scheduler: Callable[[Optimizer, int], LRScheduler | ReduceLROnPlateau]
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 128
    drop_last: bool = False
    order: Callable[[int, int], Order] | None = None
    l1: float = 0.0
    on_nan: Restore | None = None
    compile: bool = False
    batch_norm: Literal["synchronised", "local"] = "synchronised"

    def steps_per_epoch(self, samples: int) -> int:
        """Steps of one whole pass over `samples` training rows."""
        whole, left = divmod(samples, self.batch_size)
        return whole + (left > 0 and not self.drop_last)

    def count_epochs(self, samples: int) -> int:
        """Epochs, the last of them perhaps cut short."""
        if self.epochs is not None:
            return self.epochs
        return -(-(self.steps or 0) // max(1, self.steps_per_epoch(samples)))

    def count_steps(self, epoch: int, samples: int) -> int:
        """Steps of the epoch with this number, from 0."""
        per_epoch = self.steps_per_epoch(samples)
        return per_epoch if self.steps is None else min(per_epoch, self.steps - epoch * per_epoch)
