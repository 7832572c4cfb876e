"""A dump by several processes: each computes pieces of its own, and the blocks are made of them.

A block may hold all rows where these are small, and then there is nothing to share. So the rows of a view are cut into
some tens of *segments*, of whole batches; of a field whose blocks are no larger than that the blocks themselves are
computed, of any other the segments' rows are kept as pieces until all are there. Any number of processes, on one file
system, makes the same segments: what one has finished is finished for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.files import flush_file
from pipeline.base.ranks import Ranks
from pipeline.cache.block_files import BlockFiles
from pipeline.cache.blocks import Block
from pipeline.cache.store_plan import plan_whole_blocks
from pipeline.dumps.field import RowField
from pipeline.dumps.one_pass import WantedRows

SEGMENTS = 32  # of a view, at least, where it has batches enough

Segment = tuple[int, int]  # a view, and a number in it


@dataclass(frozen=True)
class SharedRows:
    """A field's blocks, and what is computed for them.

    Attributes:
        field: what is made of each answer.
        blocks: what is to be there in the end.
        computed: where what is computed lies: the blocks themselves, or pieces of them.
        segment: rows of a segment.
    """

    field: RowField
    blocks: BlockFiles
    computed: BlockFiles
    segment: int

    def find_missing(self) -> list[Block]:
        """What is still to be computed: of blocks that are not there, all that is not there."""
        missing = self.blocks.missing_blocks()
        if self.computed is self.blocks:
            return missing
        return [
            piece
            for piece in self.computed.plan.blocks()
            if any(piece.overlaps(block) for block in missing) and not self.computed.has(piece)
        ]

    def find_segment(self, block: Block) -> Segment:
        """The segment that something computed lies in."""
        return block.view, block.start // self.segment

    def is_of(self, block: Block, ranks: Ranks) -> bool:
        """Whether something computed is one process's, where none knows of the others."""
        view, number = self.find_segment(block)
        per_view = -(-self.blocks.plan.rows // self.segment)
        return (view * per_view + number) % ranks.count == ranks.number

    def list_files(self, ranks: Ranks) -> list[Path]:
        """The files of what is computed by one process, where none knows of the others."""
        own = [block for block in self.computed.plan.blocks() if self.is_of(block, ranks)]
        return [self.computed.path(name, block) for block in own for name in self.computed.plan.arrays]

    def join_pieces(self, block: Block) -> None:
        """Make a block of its pieces, and write it."""
        pieces = [piece for piece in self.computed.plan.blocks() if piece.overlaps(block)]
        for name in self.blocks.plan.arrays:
            rows: NDArray[Any] = np.concatenate([self.computed.map_block(name, piece) for piece in pieces])
            self.blocks.write(name, block, rows)
            flush_file(self.blocks.path(name, block))


def share_rows(field: RowField, blocks: BlockFiles, batch: int) -> SharedRows:
    """How processes share a field's rows out.

    Args:
        field: with a row a sample.
        blocks: its finished blocks.
        batch: rows of a forward pass.
    """
    plan, segment = blocks.plan, choose_segment_rows(blocks.plan.rows, batch)
    if plan.block_rows <= segment:
        return SharedRows(field, blocks, blocks, segment)
    pieces = plan_whole_blocks(plan.arrays, views=plan.views, rows=plan.rows, batch=batch, block_rows=segment)
    return SharedRows(field, blocks, BlockFiles(blocks.folder / f"pieces-{segment}", pieces, "zarr"), segment)


def choose_segment_rows(rows: int, batch: int) -> int:
    """Rows of a segment: a batch, doubled as long as a view has segments enough; so blocks are whole segments, or
    segments whole blocks.
    """
    segment = batch
    while rows > 2 * segment * SEGMENTS:
        segment *= 2
    return segment


def run_shared(shared: Sequence[SharedRows], ranks: Ranks, compute: Callable[[Sequence[WantedRows]], None]) -> None:
    """Compute what is missing, each process its segments; then all blocks are there.

    Args:
        shared: fields of the same samples.
        ranks: the processes.
        compute: has the network asked for what is wanted.
    """
    missing = ranks.agree(lambda: [each.find_missing() for each in shared])
    needed = {each.find_segment(block) for each, blocks in zip(shared, missing, strict=True) for block in blocks}
    mine = {*ranks.take_share(sorted(needed))}
    wanted = [
        WantedRows(each.field, each.computed, [block for block in blocks if each.find_segment(block) in mine])
        for each, blocks in zip(shared, missing, strict=True)
    ]
    compute(wanted)
    ranks.wait()  # all pieces are there
    whole = ranks.agree(
        lambda: [each.blocks.missing_blocks() if each.computed is not each.blocks else [] for each in shared]
    )
    joined = [(number, block) for number, blocks in enumerate(whole) for block in blocks]
    for number, block in ranks.take_share(joined):
        shared[number].join_pieces(block)
    ranks.wait()
