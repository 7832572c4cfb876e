"""The order of a training's samples: drawn anew each epoch, or that of a batch plan."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Order(Protocol):
    """The sample ids of each epoch, in the order in which batches take them.

    Its length is the number of samples an epoch.
    """

    def __len__(self) -> int: ...

    def ids(self, epoch: int) -> Tensor:
        """(n,) int64 on the CPU; called once for each epoch, in turn."""
        ...

    def state(self) -> Any:
        """What must survive a kill, for a checkpoint."""
        ...

    def restore(self, state: Any) -> None: ...


class RandomOrder:
    """All samples, in an order drawn for each epoch.

    Args:
        samples: their number.
        seed: of the draws.
    """

    def __init__(self, samples: int, seed: int) -> None:
        self.samples, self.generator = samples, torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.samples

    def ids(self, epoch: int) -> Tensor:  # noqa: ARG002 - drawn from a generator that goes on
        return torch.randperm(self.samples, generator=self.generator)

    def state(self) -> Tensor:
        return self.generator.get_state()

    def restore(self, state: Tensor) -> None:
        self.generator.set_state(state)


class PlannedOrder:
    """The batches of a plan: epoch e sees plan e mod plans.

    Args:
        plans: sample ids (plans, batches, n); -1 fills up a short last batch.
    """

    def __init__(self, plans: Tensor) -> None:
        self.plans = plans.cpu()

    def __len__(self) -> int:
        return int((self.plans[0] >= 0).sum())

    def ids(self, epoch: int) -> Tensor:
        plan = self.plans[epoch % len(self.plans)].flatten()
        return plan[plan >= 0]

    def state(self) -> None:
        return None

    def restore(self, state: None) -> None:
        pass
