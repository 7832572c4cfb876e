"""The order of a training's samples: drawn anew each epoch, over all of them or in blocks, or that of a batch plan."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from pydantic import PositiveInt
from torch import Tensor

from pipeline.base.seeds import derive_seed


class Order(Protocol):
    """The sample ids of each epoch, in the order in which batches take them.

    Its length is the number of samples an epoch.
    """

    def __len__(self) -> int: ...

    def ids(self, epoch: int) -> Tensor:
        """(n,) int64 on the CPU; called once for each epoch, in turn."""
        ...

    def count_chunks(self, chunk_rows: int) -> int:
        """Chunks of so many samples, of which no more need be at hand for none to be fetched twice an epoch."""
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

    def count_chunks(self, chunk_rows: int) -> int:
        return -(-self.samples // chunk_rows)

    def state(self) -> Tensor:
        return self.generator.get_state()

    def restore(self, state: Tensor) -> None:
        self.generator.set_state(state)


class BlockOrder:
    """All samples: some blocks of consecutive ids at a time, in random order, their samples shuffled together.

    A pure function of its arguments and the epoch.

    Args:
        samples: their number.
        seed: of the draws.
        rows: samples of a block; the last one has what is left.
        window: at most so many blocks are shuffled together.
    """

    def __init__(self, samples: int, seed: int, *, rows: int, window: int) -> None:
        self.samples, self.seed, self.rows, self.window = samples, seed, rows, window

    def __len__(self) -> int:
        return self.samples

    def ids(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        blocks = -(-self.samples // self.rows)
        windows = -(-blocks // self.window)
        # Windows of equal numbers of blocks, to one: a small last one would be a few batches of few classes.
        window_of_block = torch.randperm(blocks, generator=generator) * windows // blocks
        shuffled = torch.randperm(self.samples, generator=generator)
        # A stable sort keeps the random order inside each window.
        return shuffled[torch.argsort(window_of_block[shuffled // self.rows], stable=True)]

    def count_chunks(self, chunk_rows: int) -> int:
        # A block may begin and end amid chunks; then the next window may need one of them again.
        return min(-(-self.samples // chunk_rows), self.window * (-(-self.rows // chunk_rows) + 1))

    def state(self) -> None:
        return None

    def restore(self, state: None) -> None:
        pass


class PlannedOrder:
    """The batches of a plan: epoch e sees plan e mod plans.

    Args:
        plans: sample ids (plans, batches, n); -1 fills up a short last batch.
    """

    def __init__(self, plans: Tensor) -> None:
        self.plans = plans.cpu()
        self._samples = int((self.plans[0] >= 0).sum())

    def __len__(self) -> int:
        return self._samples

    def ids(self, epoch: int) -> Tensor:
        plan = self.plans[epoch % len(self.plans)].flatten()
        return plan[plan >= 0]

    def count_chunks(self, chunk_rows: int) -> int:
        return -(-int(self.plans.max() + 1) // chunk_rows)

    def state(self) -> None:
        return None

    def restore(self, state: None) -> None:
        pass


def shuffle_samples(samples: int, seed: int) -> Order:
    """All samples are shuffled together."""
    return RandomOrder(samples, seed)


# 65,536 rows are shuffled together: 512 batches of 128, and 64 to 512 MB of decoded hints of 1 to 8 KB a row. 1,024
# consecutive ones are several chunks of such a field, so that hardly any decoding falls on chunks that two blocks
# share. More rows in fewer blocks would do for reading, but images often lie sorted by class: 64 blocks mix many.
def shuffle_blocks(samples: int, seed: int, *, rows: PositiveInt = 1024, window: PositiveInt = 64) -> Order:
    """Blocks of `rows` consecutive samples come in random order, the samples of `window` of them shuffled together."""
    return BlockOrder(samples, seed, rows=rows, window=window)
