"""A function of tensors on a GPU, recorded as a CUDA graph: its replay is one call, not one a kernel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pipeline.base.seeds import fork_seeded_rng

LOG = logging.getLogger(__name__)
WARM_UPS = 3  # calls before the record, in which libraries choose kernels and take their workspaces
TOLERANCE = 1e-3  # of a replay, relative to what the function itself gives: some kernels add up in another order


def record(function: Callable[..., Any], inputs: Sequence[Tensor], kept: int) -> Callable[..., Any]:
    """The function, replayed where a replay gives what it gives; else, and a line says why, as it is.

    Args:
        function: of tensors on a GPU, that draws no numbers and reads none back; it may change those that are kept.
        inputs: tensors like those to come.
        kept: so many of them, the first, are the very same at each call; the others are copied in.

    Returns:
        As the function, but for its values: each replay overwrites those of the one before.
    """
    device = inputs[0].device
    try:
        # What a graph is made on is the current device, whatever its tensors lie on; the trace that a compiler
        # made is one without gradients.
        with torch.cuda.device(device), torch.no_grad(), fork_seeded_rng(0, device):
            recorded = RecordedGraph(function, inputs, kept)
            reason = recorded.find_difference(function, inputs)
    except RuntimeError as error:
        first = error.__context__ or error  # of a capture that fails, what it ends in is no reason
        reason = (str(first) or type(first).__name__).splitlines()[0]
    else:
        if reason is None:
            return recorded
    LOG.warning("steps are not replayed as a CUDA graph: %s", reason)
    return function


@cache
def _open_stream(device: torch.device) -> torch.cuda.Stream:
    """The one for records: libraries keep a workspace for each stream that they ever saw."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@cache
def _open_pool(_device: torch.device) -> Any:
    """Memory that a device's graphs share: what one gives is read before another is replayed."""
    return torch.cuda.graph_pool_handle()


class RecordedGraph:
    """A CUDA graph with the memory that it reads and writes; arguments as `record`."""

    def __init__(self, function: Callable[..., Any], inputs: Sequence[Tensor], kept: int) -> None:
        device = inputs[0].device
        self._kept = list(inputs[:kept])
        self._room = [tensor.detach().clone() for tensor in inputs[kept:]]
        self._graph = torch.cuda.CUDAGraph()
        stream, now = _open_stream(device), torch.cuda.current_stream(device)
        stream.wait_stream(now)
        with torch.cuda.stream(stream):  # left even where a capture cannot be ended
            for _ in range(WARM_UPS):
                function(*_copy(self._kept), *self._room)
            # Other threads, which read data ahead, take memory meanwhile.
            how: Any = {"pool": _open_pool(device), "stream": stream, "capture_error_mode": "thread_local"}
            with torch.cuda.graph(self._graph, **how):
                self._values = function(*self._kept, *self._room)
        now.wait_stream(stream)

    def __call__(self, *inputs: Tensor) -> Any:
        for room, tensor in zip(self._room, inputs[len(self._kept) :], strict=True):
            room.copy_(tensor, non_blocking=True)
        self._graph.replay()
        return self._values

    def find_difference(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> str | None:
        """Why a replay does not stand for the function, as a clause; None where it does. Then all is as before."""
        before, expected_kept = _copy(self._kept), _copy(self._kept)
        expected = [*function(*expected_kept, *self._room), *expected_kept]
        for value in self._values:
            value.fill_(float("nan"))  # so that what a replay does not write shows
        try:
            found = [*self(*inputs), *self._kept]
            return _compare(found, expected)
        finally:
            for tensor, its in zip(self._kept, before, strict=True):
                tensor.copy_(its)


def _copy(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def _compare(found: Sequence[Tensor], expected: Sequence[Tensor]) -> str | None:
    """How far values are apart, beside all of them together: one may be nothing but rounding."""
    size = torch.stack([value.double().norm() for value in expected]).norm()
    apart = torch.stack([(one.double() - other.double()).norm() for one, other in zip(found, expected, strict=True)])
    if not size.isfinite():
        return "their first numbers are not finite"
    return None if bool(apart.norm() <= TOLERANCE * size) else "a replay gives other numbers"
