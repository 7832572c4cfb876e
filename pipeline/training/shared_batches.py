"""One training by several processes: each computes its rows of every batch, and all see all outputs.

The losses are those of whole batches, whatever they compare with whatever; gradients flow back into one's own rows, and
are added up. So the training is that of one process, but for the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.base.errors import InputError
from pipeline.base.ranks import Ranks
from pipeline.base.seeds import derive_seed, fork_seeded_rng

Norm = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - what its kinds have in common
PLAIN_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SharedBatches:
    """How the processes share the batches of a network out.

    Args:
        ranks: the processes.
        seed: of what layers draw (dropout, whose masks are counted, apart): each process draws for its own rows.
    """

    def __init__(self, ranks: Ranks, seed: int) -> None:
        self.ranks, self.seed = ranks, seed
        self.total = 0  # rows of the batch that is computed
        self._step = self._calls = 0

    def begin_step(self, step: int) -> None:
        """What is drawn from now on is of step `step` of the training, from 0."""
        self._step, self._calls = step, 0

    @contextmanager
    def draw_apart(self, device: torch.device) -> Iterator[None]:
        """While it is open, this process draws for its rows alone; after it, all draw alike again."""
        self._calls += 1
        with fork_seeded_rng(derive_seed(self.seed, self._step, self._calls, self.ranks.number), device):
            yield

    def find_rows(self, number: int) -> slice:
        """Those of a process, of the batch that is computed."""
        return slice(number * self.total // self.ranks.count, (number + 1) * self.total // self.ranks.count)

    @property
    def own(self) -> slice:
        """The rows of this process."""
        return self.find_rows(self.ranks.number)

    def cut(self, images: Tensor) -> Tensor:
        """One's own rows of a batch (B, ...), which is the one that is computed from now on."""
        self.total = len(images)
        return images[self.own]

    def join(self, values: Tensor) -> Tensor:
        """The values of the whole batch (B, ...), of those of one's own rows (b, ...)."""
        whole: Tensor = _Join.apply(values, self)
        return whole

    def gather(self, values: Tensor) -> Tensor:
        """As `join`, without gradients."""
        rows = [self.find_rows(number) for number in range(self.ranks.count)]
        most = max(each.stop - each.start for each in rows)
        padded = values.new_zeros((most, *values.shape[1:]))
        padded[: len(values)] = values
        room = [torch.empty_like(padded) for _ in rows]
        self.ranks.gather_tensors(room, padded)
        return torch.cat([part[: each.stop - each.start] for part, each in zip(room, rows, strict=True)])

    def add_up(self, tensors: Sequence[Tensor | None]) -> None:
        """Replace each by the sum of all processes' ones, in place."""
        own = [tensor for tensor in tensors if tensor is not None]
        if not own:
            return
        flat = torch.cat([tensor.flatten() for tensor in own])
        self.ranks.add_tensor(flat)
        for tensor, part in zip(own, torch.split(flat, [tensor.numel() for tensor in own]), strict=True):
            tensor.copy_(part.view_as(tensor))

    @torch.no_grad()
    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give each the sum of all processes' gradients; one that nobody's rows reach stays without."""
        reached = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32)
        self.ranks.add_tensor(reached)
        own = [parameter for parameter, count in zip(parameters, reached.tolist(), strict=True) if count]
        for parameter in own:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.add_up([parameter.grad for parameter in own])

    @torch.no_grad()
    def average_statistics(self, network: nn.Module) -> None:
        """Give all the mean of everyone's running statistics."""
        buffers = [buffer for module in network.modules() for buffer in _list_statistics(module)]
        self.add_up(buffers)
        for buffer in buffers:
            buffer.div_(self.ranks.count)

    def refuse_difference(self, modules: Sequence[nn.Module], row: Mapping[str, float], what: str) -> None:
        """Raise InputError where the processes' weights, or an epoch's losses, are no longer the same."""
        states = [tensor for module in modules for tensor in module.state_dict().values()]
        sums = [*(float(tensor.double().sum()) for tensor in states), *row.values()]
        found = self.ranks.exchange(sums)
        if any(each != found[0] for each in found):
            raise InputError(
                what,
                expected="the same weights and losses in all processes",
                found="others",
                fix="give all the same machines, packages and number of threads (OMP_NUM_THREADS); or, where a layer "
                "or a loss of your own draws numbers or keeps rows that it sees, train it in one process",
            )


class _Join(torch.autograd.Function):
    """All rows of a batch; the gradient of one's own is its part of that of all, which every process knows."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, shares: SharedBatches) -> Tensor:
        ctx.own = shares.own
        return shares.gather(values.detach())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.own], None


class _Sum(torch.autograd.Function):
    """The sum over all processes; each has a part in all of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        total = values.detach().clone()
        ranks.add_tensor(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone()
        ctx.ranks.add_tensor(total)
        return total, None


@contextmanager
def share_network(network: nn.Module, shares: SharedBatches, what: str, *, synchronised: bool) -> Iterator[None]:
    """While it is open, batch normalisations know the whole batch (`synchronised`), or one's own rows.

    Raises:
        InputError: they are to know the whole batch, and one is of a kind that is not known here.
    """
    norms = [module for module in network.modules() if getattr(module, "track_running_stats", False)]
    with ExitStack() as stack:
        for norm in norms if synchronised else ():
            if type(norm) not in PLAIN_NORMS or not isinstance(norm, Norm):
                raise InputError(
                    f"{what}: layer {type(norm).__name__}",
                    expected="a batch normalisation of torch's own, to be synchronised",
                    found=type(norm).__module__,
                    fix="set `batch_norm: local`, or train it in one process",
                )
            norm.forward = partial(_normalise, norm, shares.ranks)  # type: ignore[method-assign]
            stack.callback(delattr, norm, "forward")
        yield


def _normalise(norm: Norm, ranks: Ranks, inputs: Tensor) -> Tensor:
    """The normalisation of one's own rows by the moments of the whole batch, as torch's by those of its inputs."""
    if not norm.training:
        return type(norm).forward(norm, inputs)
    wide = inputs if inputs.dtype == torch.float64 else inputs.float()
    dims = [0, *range(2, inputs.dim())]
    shape = [1, -1] + [1] * (inputs.dim() - 2)
    numbers = wide.new_tensor([wide.numel() / max(1, wide.shape[1])])
    sums: Tensor = _Sum.apply(torch.cat([wide.sum(dims), numbers]), ranks)
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = wide - mean.view(shape)
    variance: Tensor = _Sum.apply(centred.square().sum(dims), ranks) / count
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        _track(norm, mean.detach(), variance.detach() * count / (count - 1))
    made = centred * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.affine:
        made = made * norm.weight.view(shape) + norm.bias.view(shape)
    return made.to(inputs.dtype)


@torch.no_grad()
def _track(norm: Norm, mean: Tensor, variance: Tensor) -> None:
    """Move running statistics towards those of a batch."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    rate = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), rate)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), rate)


def _list_statistics(module: nn.Module) -> list[Tensor]:
    found = (getattr(module, name, None) for name in ("running_mean", "running_var"))
    return [buffer for buffer in found if isinstance(buffer, Tensor)]
