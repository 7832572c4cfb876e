"""A function of tensors on a GPU, recorded as a CUDA graph: its replay is one call, not one a kernel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LOG = logging.getLogger(__name__)
WARM_UPS = 3  # calls before the record, in which libraries choose kernels and take their workspaces
TOLERANCE = 1e-3  # of a replay, relative to what the function itself gives: some kernels add up in another order


def record(function: Callable[..., Any], inputs: Sequence[Tensor], kept: int) -> Callable[..., Any]:
    """The function, replayed where a replay gives what it gives; else, and a line says why, as it is.

    Args:
        function: of tensors on a GPU, that never reads a number back; it may change those that are kept in place.
        inputs: tensors like those to come.
        kept: so many of them, the first, are the very same at each call; the others are copied in.

    Returns:
        As the function, but for its values: each replay overwrites those of the one before.
    """
    try:
        recorded = RecordedGraph(function, inputs, kept)
        return recorded if recorded.is_faithful(function, inputs) else _decline(function, "it gives other numbers")
    except RuntimeError as error:
        return _decline(function, (str(error) or type(error).__name__).splitlines()[0])


def _decline(function: Callable[..., Any], reason: str) -> Callable[..., Any]:
    LOG.warning("steps are not replayed as a CUDA graph: %s", reason)
    return function


class RecordedGraph:
    """A CUDA graph with the memory that it reads and writes; arguments as `record`."""

    def __init__(self, function: Callable[..., Any], inputs: Sequence[Tensor], kept: int) -> None:
        device = inputs[0].device
        self._kept = list(inputs[:kept])
        self._room = [tensor.detach().clone() for tensor in inputs[kept:]]
        aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                function(*_copy(self._kept), *self._room)
        torch.cuda.current_stream(device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._values = function(*self._kept, *self._room)

    def __call__(self, *inputs: Tensor) -> Any:
        for room, tensor in zip(self._room, inputs[len(self._kept) :], strict=True):
            room.copy_(tensor, non_blocking=True)
        self._graph.replay()
        return self._values

    def is_faithful(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> bool:
        """Whether a replay gives what the function does, and changes the same; then all is as before."""
        before, expected_kept = _copy(self._kept), _copy(self._kept)
        expected = [*function(*expected_kept, *self._room), *expected_kept]
        found = [*self(*inputs), *self._kept]
        faithful = all(_is_near(one, other) for one, other in zip(found, expected, strict=True))
        for tensor, its in zip(self._kept, before, strict=True):
            tensor.copy_(its)
        return faithful


def _copy(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def _is_near(found: Tensor, expected: Tensor) -> bool:
    wide, other = found.double(), expected.double()
    return bool((wide - other).norm() <= TOLERANCE * other.norm() + 1e-12)
