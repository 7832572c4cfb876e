"""Several fields of one network from a single forward pass over the samples."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.files import flush_file
from pipeline.base.progress import track
from pipeline.base.threads import Background
from pipeline.cache.block_files import BlockFiles, BlockFunction
from pipeline.cache.blocks import Block
from pipeline.cache.dtypes import storage_dtype
from pipeline.dumps.field import BatchField, Field, Gather, RowField
from pipeline.teacher import Samples, TeacherLike, TeacherOutputs

RUN_BATCHES = 16  # asked of a network together, so that images are read ahead of it


class WantedRows(NamedTuple):
    """A field, where its blocks lie, and those of them that are to be computed."""

    field: RowField
    blocks: BlockFiles
    pending: Sequence[Block]


class RowCollector:
    """Gathers the rows of one field until a block is whole, and has it written.

    Args:
        wanted: what is made of each answer, and what of it is wanted.
        submit: runs a function in the background; the disk takes one block in while the next is computed.
    """

    def __init__(self, wanted: WantedRows, submit: Callable[[Callable[[], None]], None]) -> None:
        self.field, self.blocks, self.submit = wanted.field, wanted.blocks, submit
        self.pending = {(block.view, block.index): block for block in wanted.pending}
        self.rows: dict[str, NDArray[Any]] = {}

    def find_block(self, view: int, start: int) -> Block | None:
        """The unfinished block that a row belongs to."""
        return self.pending.get((view, start // self.blocks.plan.block_rows))

    def add(self, answer: TeacherOutputs) -> None:
        """Keep an answer's rows, and write the block that they complete."""
        block = self.find_block(answer.view, answer.start)
        if block is None:
            return
        if answer.start == block.start:
            arrays = self.blocks.plan.arrays.items()
            count = block.stop - block.start
            self.rows = {name: np.empty((count, *plan.row_shape), storage_dtype(plan.dtype)) for name, plan in arrays}
        for name, values in self.field.extract(answer).items():
            room = self.rows[name][answer.start - block.start : answer.stop - block.start]
            if values.shape != room.shape or values.dtype != room.dtype:  # an assignment would cast it
                planned = f"{room.dtype} {room.shape}"
                raise ValueError(f"array {name!r}: planned {planned}, found {values.dtype} {values.shape}")
            room[:] = values
        if answer.stop == block.stop:
            self.submit(partial(_write_block, self.blocks, block, self.rows))


def _write_block(blocks: BlockFiles, block: Block, rows: dict[str, NDArray[Any]]) -> None:
    for name, values in rows.items():
        blocks.write(name, block, values)
        flush_file(blocks.path(name, block))


def run_one_pass(teacher: TeacherLike, samples: Samples, wanted: Sequence[WantedRows], title: str) -> None:
    """Compute the wanted blocks of these fields, asking the network once for each batch.

    One thread reads images ahead of the network, one packs its answers behind it, and one writes blocks.

    Args:
        teacher: answers over the fixed partition.
        samples: what it answers for.
        wanted: of fields with a row a sample.
        title: of the progress bar.

    Raises:
        InputError: a field refuses a value; finished blocks stay.
    """
    # Two blocks in memory beside those that are being filled, and one answer beside the one that is computed.
    with Background(2) as writing, Background(1) as packing:
        collectors = [RowCollector(each, writing.submit) for each in wanted]
        pack = _make_packing(collectors, teacher.device)
        answers, count = _plan_answers(teacher, samples, collectors)
        with closing(answers):
            for answer in track(answers, title, count):
                packing.submit(pack(answer))


def _make_packing(
    collectors: Sequence[RowCollector], device: torch.device
) -> Callable[[TeacherOutputs], Callable[[], None]]:
    """What, given an answer, makes the function that hands it to the collectors, in another thread."""
    if device.type != "cuda":
        return lambda answer: partial(_collect, collectors, answer)
    packing = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def pack(answer: TeacherOutputs) -> Callable[[], None]:
        computed = torch.cuda.current_stream(device).record_event()
        return partial(_collect_on_stream, collectors, answer, packing, computed)

    return pack


def _collect(collectors: Sequence[RowCollector], answer: TeacherOutputs) -> None:
    for collector in collectors:
        collector.add(answer)


def _collect_on_stream(
    collectors: Sequence[RowCollector], answer: TeacherOutputs, stream: torch.cuda.Stream, computed: torch.cuda.Event
) -> None:
    """Collect an answer once it is computed, without waiting for what the network was asked since.

    All that is made of it ends in the processor's memory, so nothing on the stream reads the answer after this.
    """
    with torch.cuda.stream(stream):
        stream.wait_event(computed)
        _collect(collectors, answer)


def _plan_answers(
    teacher: TeacherLike, samples: Samples, collectors: Sequence[RowCollector]
) -> tuple[Generator[TeacherOutputs, None, None], int]:
    """The answers that some collector waits for, a batch each, and their number."""
    starts = range(0, samples.rows, samples.batch)
    places = [(view, start) for view in range(samples.views.count) for start in starts]
    reads = {place: _list_reads(collectors, *place) for place in places}
    needed = [place for place in places if reads[place] is not None]

    def ask() -> Generator[TeacherOutputs, None, None]:
        for (view, asked), together in groupby(needed, lambda place: (place[0], reads[place])):
            for first, last in _join_neighbours([start for _, start in together], samples.batch):
                stop = min(last + samples.batch, samples.rows)
                for answer in teacher.compute_outputs(samples, asked or (), view, first, stop):
                    yield from answer.split(samples.batch)

    return ask(), len(needed)


def _list_reads(collectors: Sequence[RowCollector], view: int, start: int) -> tuple[str, ...] | None:
    """What the collectors that wait for a batch read of the network; None where none waits."""
    waiting = [collector for collector in collectors if collector.find_block(view, start)]
    if not waiting:
        return None
    return tuple(dict.fromkeys(read for collector in waiting for read in collector.field.reads))


def _join_neighbours(starts: Sequence[int], batch: int) -> Iterator[tuple[int, int]]:
    """Of rising starts of batches, the first and last of each run without a gap, of at most `RUN_BATCHES`."""
    run: list[int] = []
    for start in starts:
        if run and (start != run[-1] + batch or len(run) == RUN_BATCHES):
            yield run[0], run[-1]
            run = []
        run.append(start)
    if run:
        yield run[0], run[-1]


def make_block_function(teacher: TeacherLike, samples: Samples, field: Field) -> BlockFunction:
    """A function that computes any single block of a field, asking the network for just that."""
    if isinstance(field, BatchField):
        return _make_batch_function(teacher, samples, field)

    def compute(block: Block) -> dict[str, NDArray[Any]]:
        answers = teacher.compute_outputs(samples, field.reads, block.view, block.start, block.stop)
        parts = [field.extract(answer) for answer in answers]
        return {name: np.concatenate([part[name] for part in parts]) for name in field.arrays}

    return compute


def _make_batch_function(teacher: TeacherLike, samples: Samples, field: BatchField) -> BlockFunction:
    known: list[BlockFunction] = []

    def compute(block: Block) -> Any:
        if not known:  # any batch may hold any sample
            whole = make_block_function(teacher, samples, field.source)(Block(0, 0, 0, samples.rows))
            (rows,) = whole.values()
            known.append(field.prepare(lambda ids: rows[ids]))
        return known[0](block)

    return compute


def make_gather(blocks: BlockFiles) -> Gather:
    """Rows of the only array of finished blocks, by sample id; they stay in their files."""
    ((name, _),) = blocks.plan.arrays.items()
    mapped = [blocks.map_block(name, block) for block in blocks.plan.blocks()]

    def gather(ids: NDArray[np.int64]) -> NDArray[Any]:
        numbers = ids // blocks.plan.block_rows
        rows = np.empty((len(ids), *mapped[0].shape[1:]), mapped[0].dtype)
        for number in np.unique(numbers):
            mine = numbers == number
            rows[mine] = mapped[number][ids[mine] % blocks.plan.block_rows]
        return rows

    return gather
