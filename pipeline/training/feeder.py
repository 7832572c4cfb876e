"""Batches of what does not fit a device's memory, gathered from disk ahead of the steps that need them.

One thread gathers the rows of the next batches, of all streams, from memory maps; on CUDA it copies them from pinned
memory on a stream of its own. What a step gets are tensors like those that an index would pick on the device: the same
numbers, in memory of their own, so that a training does not depend on where its data lie.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.mapped_pages import PageWatch
from pipeline.base.threads import map_ahead

AHEAD = 3  # pieces that are gathered, or being gathered, or used
PIECE_BYTES = 2 << 20  # small batches are gathered some at a time: a call costs more than their rows
MOST_BATCHES = 16  # of a piece

Arrays = Mapping[str, NDArray[Any]]  # rows of one batch, by array
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class BatchKeys:
    """Which rows a batch is of.

    Attributes:
        ids: sample ids (B,) int64.
        views: which view of each, (B,) int64.
        epoch, number: which step of which epoch, both from 0.
    """

    ids: NDArray[np.int64]
    views: NDArray[np.int64]
    epoch: int
    number: int


@runtime_checkable
class Stream(Protocol):
    """Arrays that stay on disk. Compared and hashed by identity: a step finds its rows by the stream."""

    def gather(self, batches: Sequence[BatchKeys]) -> list[Arrays]:
        """The rows of each of these batches, in memory; called in a thread."""
        ...

    def count_bytes(self, samples: int) -> int:
        """The bytes of a batch of so many samples."""
        ...

    def release_pages(self) -> None:
        """Give back what is mapped into this process's memory."""
        ...


Fed = Mapping[Stream, Tensors]  # what a step finds there, on its device


def feed(streams: Sequence[Stream], batches: Sequence[BatchKeys], device: torch.device) -> Generator[Fed, None, None]:
    """The streams' rows of each batch, on the device, gathered ahead; without streams, nothing for ever.

    Args:
        streams: whose rows.
        batches: in the order in which they are asked for; the first is the largest.
        device: where the rows are wanted.

    Raises:
        InputError: damage that is found while a thread gathers; it comes where its batch would.
    """
    if not streams:
        yield from repeat({})
    size = _count_batches_of_piece(streams, len(batches[0].ids) if batches else 0)
    pieces = [batches[first : first + size] for first in range(0, len(batches), size)]
    gather = _make_gather(streams, device)
    threads = ThreadPoolExecutor(1, "feeder")
    try:
        for piece in map_ahead(threads, gather, pieces, AHEAD):
            yield from piece.hand_over()
    finally:  # also where the epoch is given up half way: what has not begun is dropped
        threads.shutdown(cancel_futures=True)


def split_batches(rows: NDArray[Any], batches: Sequence[BatchKeys]) -> list[NDArray[Any]]:
    """The rows (n, ...) of several batches, one behind the other, by batch."""
    return np.split(rows, np.cumsum([len(batch.ids) for batch in batches])[:-1])


def fetch(stream: Stream, batch: BatchKeys, device: torch.device) -> Tensors:
    """A stream's rows of one batch, on the device, without looking ahead."""
    (fed,) = _make_gather([stream], device)([batch]).hand_over()
    return fed[stream]


@dataclass(frozen=True)
class _Piece:
    """The rows of some batches on their way to a device, and what tells that they have arrived (None: they have)."""

    batches: Sequence[Fed]
    arrived: torch.cuda.Event | None

    def hand_over(self) -> Sequence[Fed]:
        """The rows; the device's current stream waits for them, this thread does not."""
        if self.arrived is not None:
            current = torch.cuda.current_stream(self.arrived.device)
            current.wait_event(self.arrived)
            for fed in self.batches:
                for tensors in fed.values():
                    for tensor in tensors.values():
                        tensor.record_stream(current)  # its memory is not used again before this stream is done
        return self.batches


def _count_batches_of_piece(streams: Sequence[Stream], samples: int) -> int:
    size = sum(stream.count_bytes(samples) for stream in streams)
    return max(1, min(MOST_BATCHES, PIECE_BYTES // max(1, size)))


def _make_gather(streams: Sequence[Stream], device: torch.device) -> Callable[[Sequence[BatchKeys]], _Piece]:
    """The function that a thread runs for each piece."""

    def release() -> None:
        for stream in streams:
            stream.release_pages()

    watch, copies = PageWatch(release), _open_copy_stream(device)

    def gather(piece: Sequence[BatchKeys]) -> _Piece:
        found = [stream.gather(piece) for stream in streams]
        watch.check()
        with torch.cuda.stream(copies):  # nothing where there is none
            batches = [
                {stream: _move(rows[number], device) for stream, rows in zip(streams, found, strict=True)}
                for number in range(len(piece))
            ]
            return _Piece(batches, copies.record_event() if copies is not None else None)

    return gather


def _open_copy_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A stream of its own for copies to a GPU; they wait for nothing that is computed there."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _move(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Arrays as tensors on the device; each begins where a tensor of its own would, since sums may depend on that."""
    moved = {}
    for name, array in arrays.items():
        tensor = torch.empty(array.shape, dtype=_find_dtype(array), pin_memory=device.type == "cuda")
        np.copyto(tensor.numpy(), array)
        moved[name] = tensor.to(device, non_blocking=True)
    return moved


def _find_dtype(array: NDArray[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype
