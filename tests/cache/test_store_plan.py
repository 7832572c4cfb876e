"""How rows are cut: into chunks, blocks and shards that hold what plans promise, whatever the arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.cache import store_plan
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.chunk_grid import CRC_BYTES, NO_CHUNK, SLOT, ChunkGrid, encode_index
from pipeline.cache.codecs import Codec
from pipeline.cache.store_plan import (
    BLOCK_BYTES,
    MAX_BLOCK_BYTES,
    MAX_CHUNK_BYTES,
    MAX_FILES,
    MAX_PADDING,
    MAX_STORE_FILES,
    PACKED_CHUNK_BYTES,
    PLAIN_CHUNK_BYTES,
    SMALLEST_SHARE,
    StorePlan,
    plan_store,
    plan_whole_blocks,
    replan_store,
)

CODECS: list[Codec] = ["none", "zstd", "gzip"]
ROW_BYTES = st.one_of(st.integers(1, 100), st.sampled_from([2000, 4096, 25_088, 1_000_003, 100_000_000]))
COUNTS = st.one_of(st.integers(1, 40), st.sampled_from([97, 512, 6000, 15_000, 55_000, 99_991, 1_281_167, 14_197_122]))
BATCHES = st.one_of(st.integers(1, 40), st.sampled_from([97, 128, 512, 1000, 4096]))


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, ArrayPlan]:
    count = draw(st.sampled_from([1, 1, 2, 3, 5]))
    return {
        f"a{number}": ArrayPlan((draw(ROW_BYTES),), "uint8", draw(st.sampled_from(CODECS))) for number in range(count)
    }


wanted = given(
    planned=arrays(),
    views=st.one_of(st.integers(1, 10), st.sampled_from([63, 64, 65, 97, 300, 2000])),
    rows=COUNTS,
    batch=BATCHES,
    chunk_bytes=st.one_of(st.none(), st.sampled_from([1 << 10, 5000, 64 << 10, 16 << 20, 1 << 30])),
)


def make_plan(
    planned: Mapping[str, ArrayPlan], views: int, rows: int, batch: int, chunk_bytes: int | None
) -> StorePlan | None:
    """The plan; None where a batch is rightly refused."""
    widest = max(array.row_bytes for array in planned.values())
    if widest * min(batch, rows) > MAX_CHUNK_BYTES:
        with pytest.raises(InputError, match="1 GiB a batch"):
            plan_store(planned, views=views, rows=rows, batch=batch, chunk_bytes=chunk_bytes)
        return None
    return plan_store(planned, views=views, rows=rows, batch=batch, chunk_bytes=chunk_bytes)


@wanted
def test_blocks_are_whole_batches_and_whole_chunks(
    planned: dict[str, ArrayPlan], views: int, rows: int, batch: int, chunk_bytes: int | None
) -> None:
    plan = make_plan(planned, views, rows, batch, chunk_bytes)
    if plan is None:
        return
    assert plan.block_rows % batch == 0
    assert list(plan.grids) == list(planned)
    for name, grid in plan.grids.items():
        assert (grid.views, grid.rows) == (views, rows)
        assert 1 <= grid.chunk_rows <= rows
        assert grid.chunk_rows == rows or plan.block_rows % grid.chunk_rows == 0
        assert grid.chunk_rows <= plan.block_rows
        # A shard is of whole blocks of each of its views, or of all rows.
        assert grid.shard[1] % grid.chunk_rows == 0
        assert grid.shard[1] % plan.block_rows == 0 or grid.shard[1] >= rows
        assert grid.shard[1] <= grid.per_view * grid.chunk_rows
        assert 1 <= grid.shard[0] <= views
        assert grid.shard[0] == 1 or grid.shard[1] >= rows
        assert planned[name].row_bytes * grid.chunk_rows <= MAX_CHUNK_BYTES


@wanted
@example(planned={"a": ArrayPlan((1,), "uint8")}, views=2000, rows=1, batch=1, chunk_bytes=None)
def test_files_are_few_at_any_size(
    planned: dict[str, ArrayPlan], views: int, rows: int, batch: int, chunk_bytes: int | None
) -> None:
    plan = make_plan(planned, views, rows, batch, chunk_bytes)
    if plan is None:
        return
    assert all(math.prod(grid.shards) <= MAX_FILES for grid in plan.grids.values())
    assert plan.files == sum(math.prod(grid.shards) for grid in plan.grids.values()) <= MAX_STORE_FILES


@wanted
def test_blocks_are_large_and_fit_into_memory(
    planned: dict[str, ArrayPlan], views: int, rows: int, batch: int, chunk_bytes: int | None
) -> None:
    plan = make_plan(planned, views, rows, batch, chunk_bytes)
    if plan is None:
        return
    widest = max(array.row_bytes for array in planned.values())
    size, least = widest * plan.block_rows, chunk_bytes or 0
    assert size >= max(BLOCK_BYTES, least) or plan.block_rows >= rows
    assert size < 2 * max(MAX_BLOCK_BYTES, least) or plan.block_rows == batch


@wanted
def test_chunks_are_near_the_size_that_is_meant(
    planned: dict[str, ArrayPlan], views: int, rows: int, batch: int, chunk_bytes: int | None
) -> None:
    plan = make_plan(planned, views, rows, batch, chunk_bytes)
    if plan is None:
        return
    for name, grid in plan.grids.items():
        array = planned[name]
        meant = chunk_bytes or (PLAIN_CHUNK_BYTES if array.codec == "none" else PACKED_CHUNK_BYTES)
        most = max(1, meant // array.row_bytes)
        assert grid.chunk_rows <= most
        if grid.chunk_rows == rows:
            continue
        divisors = [size for size in range(1, min(most, plan.block_rows, 5000) + 1) if plan.block_rows % size == 0]
        if most > 5000:  # the rest of them by their partners
            divisors += [plan.block_rows // size for size in divisors if plan.block_rows // size <= most]
        largest = max(divisors)
        if array.codec != "none":
            assert grid.chunk_rows == largest
        else:
            assert SMALLEST_SHARE * grid.chunk_rows >= largest
            padding = {size: -rows % size for size in divisors if SMALLEST_SHARE * size >= largest}
            if min(padding.values()) <= MAX_PADDING * rows:
                assert padding[grid.chunk_rows] <= MAX_PADDING * rows
                better = [size for size, waste in padding.items() if waste <= MAX_PADDING * rows]
                assert grid.chunk_rows == max(better)
            else:
                assert padding[grid.chunk_rows] == min(padding.values())


@wanted
def test_a_plan_is_found_again_from_its_chunks_and_shards(
    planned: dict[str, ArrayPlan], views: int, rows: int, batch: int, chunk_bytes: int | None
) -> None:
    plan = make_plan(planned, views, rows, batch, chunk_bytes)
    if plan is None:
        return
    again = replan_store(planned, plan.grids, batch)
    assert again.grids == plan.grids
    assert (again.views, again.rows, again.arrays) == (views, rows, planned)
    assert again.block_rows % batch == 0
    for grid in again.grids.values():
        assert grid.chunk_rows == rows or again.block_rows % grid.chunk_rows == 0
        assert grid.shards[1] == 1 or grid.shard[1] % again.block_rows == 0


def test_shards_that_no_block_fits_are_refused() -> None:
    planned = {"a": ArrayPlan((1,), "uint8")}
    with pytest.raises(InputError, match="expected shards of whole batches and chunks, 80 rows, found of 40"):
        replan_store(planned, {"a": ChunkGrid(1, 100, 10, (1, 40))}, 16)


@pytest.mark.parametrize(("rows", "batch"), [(1, 512), (511, 512), (513, 512), (100_000, 512), (1000, 7)])
def test_rows_that_are_kept_for_a_while_lie_in_one_chunk_a_block(rows: int, batch: int) -> None:
    plan = plan_whole_blocks({"a": ArrayPlan((1000,), "float32", "zstd")}, views=1, rows=rows, batch=batch)
    (grid,) = plan.grids.values()
    assert plan.block_rows % batch == 0
    assert [grid.numbers(block) for block in plan.blocks()] == [
        range(number, number + 1) for number in range(grid.count)
    ]


@pytest.mark.parametrize("rows", [1, 511, 512, 513, 55_000, 5_000_000])
@pytest.mark.parametrize("row_shape", [(10,), (1000,), (64, 8, 8)])
def test_blocks_follow_each_other(rows: int, row_shape: tuple[int, ...]) -> None:
    made = plan_store({"a": ArrayPlan(row_shape, "float16")}, views=1, rows=rows, batch=512)
    blocks = list(made.blocks())
    assert [block.start for block in blocks] == [0, *[block.stop for block in blocks[:-1]]]
    assert blocks[-1].stop == rows
    assert made.block_rows % 512 == 0
    total = rows * made.arrays["a"].row_bytes
    assert len(blocks) <= max(64, total / MAX_BLOCK_BYTES + 1)
    if total > 100 << 20:
        grid = made.grids["a"]
        assert grid.count * grid.chunk_rows * made.arrays["a"].row_bytes <= 1.03 * total


def test_the_limits_are_those_that_are_promised() -> None:
    assert (store_plan.MAX_FILES, store_plan.MAX_STORE_FILES) == (64, 96)
    assert (store_plan.PLAIN_CHUNK_BYTES, store_plan.PACKED_CHUNK_BYTES) == (1 << 20, 128 << 10)


# Where chunks lie, against a loop.


@st.composite
def grids(draw: st.DrawFn) -> ChunkGrid:
    views, rows = draw(st.integers(1, 7)), draw(st.integers(1, 40))
    chunk_rows = draw(st.integers(1, rows))
    per_view = -(-rows // chunk_rows)
    return ChunkGrid(
        views, rows, chunk_rows, (draw(st.integers(1, views)), chunk_rows * draw(st.integers(1, per_view)))
    )


def shards_of(grid: ChunkGrid) -> list[list[tuple[int, int]]]:
    """Slot and number of the chunks of each shard, in the order of the slots."""
    found = []
    for first_view in range(0, grid.views, grid.shard[0]):
        for first_row in range(0, grid.rows, grid.shard[1]):
            starts = range(first_row, first_row + grid.shard[1], grid.chunk_rows)
            members = [(view, start) for view in range(first_view, first_view + grid.shard[0]) for start in starts]
            found.append(
                [
                    (slot, view * -(-grid.rows // grid.chunk_rows) + start // grid.chunk_rows)
                    for slot, (view, start) in enumerate(members)
                    if view < grid.views and start < grid.rows
                ]
            )
    return found


@given(grid=grids(), data=st.data())
def test_chunks_lie_where_a_loop_puts_them(grid: ChunkGrid, data: st.DataObject) -> None:
    sizes = np.array(data.draw(st.lists(st.integers(1, 1000), min_size=grid.count, max_size=grid.count)))
    shard, slot = grid.locate_chunks()
    offsets, totals = grid.place_chunks(sizes)
    expected = shards_of(grid)
    assert math.prod(grid.shards) == len(expected) == len(totals)
    assert sorted(number for members in expected for _, number in members) == list(range(grid.count))
    for index, members in enumerate(expected):
        at = 0
        for place, number in members:
            assert (shard[number], slot[number], offsets[number]) == (index, place, at)
            at += sizes[number] + CRC_BYTES
        assert totals[index] == at + grid.shard[0] * (grid.shard[1] // grid.chunk_rows) * 16 + 4


@given(grid=grids())
def test_chunks_are_numbered_view_by_view(grid: ChunkGrid) -> None:
    blocks = [grid.chunk(number) for number in range(grid.count)]
    rows = [(block.view, row) for block in blocks for row in range(block.start, block.stop)]
    assert rows == [(view, row) for view in range(grid.views) for row in range(grid.rows)]
    assert [list(grid.numbers(block)) for block in blocks] == [[number] for number in range(grid.count)]
    for view in range(grid.views):
        whole = Block(view, 0, 0, grid.rows)
        assert [grid.chunk(number).view for number in grid.numbers(whole)] == [view] * grid.per_view


@given(slots=st.integers(1, 20), data=st.data())
def test_an_index_names_the_places_that_are_taken(slots: int, data: st.DataObject) -> None:
    places = sorted(data.draw(st.sets(st.integers(0, slots - 1), min_size=1)))
    sizes: Any = np.array(data.draw(st.lists(st.integers(1, 99), min_size=len(places), max_size=len(places))))
    offsets = np.cumsum(sizes + 4) - sizes - 4
    index = np.frombuffer(encode_index(slots, np.array(places), offsets, sizes), SLOT)
    expected = [(NO_CHUNK, NO_CHUNK)] * slots
    for place, offset, size in zip(places, offsets.tolist(), sizes.tolist(), strict=True):
        expected[place] = (offset, size + 4)
    assert index.tolist() == expected


@given(start=st.integers(0, 50), length=st.integers(1, 50), rows=st.integers(1, 20))
def test_a_block_is_split_into_its_rows(start: int, length: int, rows: int) -> None:
    block = Block(2, 0, start * rows, start * rows + length)
    parts = block.split(rows)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(block.start, block.stop))
    assert all((part.view, part.index * rows) == (2, part.start) for part in parts)
    assert all(part.stop - part.start == rows for part in parts[:-1])
