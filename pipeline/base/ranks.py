"""The processes that one command runs as, where torchrun starts several: which one this is, and how they agree."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.base.errors import InputError, NotNowError
from pipeline.base.meeting import agree_on_round

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

T = TypeVar("T")

MEETING = timedelta(hours=1)  # until all have begun to work together
PATIENCE = timedelta(days=30)  # one may work for long while others wait; torchrun itself ends all where one has ended


@dataclass(frozen=True)
class Ranks:
    """One process among those of its command.

    Attributes:
        number: its own, from 0; the first one writes what there is one of.
        count: of all.
        local: its number on this machine.
    """

    number: int = 0
    count: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether it writes, and tells, what there is one of."""
        return self.number == 0

    @property
    def are_several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def take_share(self, items: Sequence[T]) -> list[T]:
        """Every `count`-th of the items, from its own number on."""
        return list(items[self.number :: self.count])

    def wait(self) -> None:
        """Go on when all are here."""
        if self.are_several:
            _talk(lambda group: group.barrier())

    def agree(self, find: Callable[[], T]) -> T:
        """What the first one finds, for all; the others do not look. Plain picklable values."""
        if not self.are_several:
            return find()
        found: list[Any] = [find() if self.is_first else None]
        _talk(lambda group: group.broadcast_object_list(found, src=0))
        made: T = found[0]
        return made

    def collect(self, value: T) -> list[T]:
        """Every one's value, in their order, for the first; for the others nothing."""
        if not self.are_several:
            return [value]
        found: list[Any] | None = [None] * self.count if self.is_first else None
        _talk(lambda group: group.gather_object(value, found, dst=0))
        return found or []

    def exchange(self, value: T) -> list[T]:
        """Every one's value, in their order, for all."""
        if not self.are_several:
            return [value]
        found: list[Any] = [None] * self.count
        _talk(lambda group: group.all_gather_object(found, value))
        return found

    def add_tensor(self, tensor: Tensor) -> None:
        """Replace a tensor by the sum of everyone's."""
        _talk(lambda group: group.all_reduce(tensor))

    def gather_tensors(self, room: list[Tensor], tensor: Tensor) -> None:
        """Fill the room with everyone's tensors, all of one shape."""
        _talk(lambda group: group.all_gather(room, tensor))


ALONE = Ranks()


def find_ranks() -> Ranks:
    """As torchrun says in the environment; one process alone where it says nothing.

    Raises:
        InputError: what it says makes no sense.
    """
    told = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # others set ranks for whole machines, where one process runs
        return ALONE
    try:
        number, count, local = (int(value or 0) for value in told.values())
    except ValueError:
        number, count, local = -1, 0, 0
    if not 0 <= number < count:
        raise InputError("RANK, WORLD_SIZE, LOCAL_RANK", expected="as torchrun sets them", found=str(told))
    return Ranks(number, count, local)


def _begin_group(group: ModuleType) -> None:
    """Meet the others where torchrun says; after a restart not where those met that are no more."""
    store, number, count = next(group.rendezvous("env://", timeout=MEETING))
    name = agree_on_round(group.PrefixStore("meeting", store), number, count, MEETING.total_seconds())
    place = group.PrefixStore(name, store)
    group.init_process_group(_choose_backend(), store=place, rank=number, world_size=count, timeout=PATIENCE)
    atexit.register(group.destroy_process_group)  # its threads end the process with an abort where they still run


def _choose_backend() -> str:
    """What carries tensors: between processors gloo, between GPUs NCCL."""
    import torch

    if not torch.cuda.is_available():
        return "gloo"
    torch.cuda.set_device(find_ranks().local % torch.cuda.device_count())
    return "cpu:gloo,cuda:nccl"


def _talk(what: Callable[[ModuleType], object]) -> None:
    """Have torch's process group do something, and begin it where there is none yet."""
    import torch.distributed as group  # a second, which a lone process need not spend

    try:
        if not group.is_initialized():
            _begin_group(group)
        what(group)
    except (RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise NotNowError(
            "the other processes of this command",
            expected="all of them at work",
            found=reason,
            fix="see what the one says that ended first; run again: finished pieces and checkpoints are taken up",
        ) from error
