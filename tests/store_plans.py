"""Plans of stores with chunks, blocks and shards of any size, as no dump of a test's size would have them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pipeline.cache import store_plan
from pipeline.cache.blocks import ArrayPlan
from pipeline.cache.chunk_grid import ChunkGrid
from pipeline.cache.store_plan import StorePlan


def cut_store(
    arrays: Mapping[str, ArrayPlan],
    views: int,
    rows: int,
    chunk_rows: int,
    *,
    block_chunks: int = 1,
    shard_blocks: int = 1,
    shard_views: int = 1,
) -> StorePlan:
    """Arrays (views, rows, ...) in chunks of so many rows, blocks of so many chunks, shards of so many blocks and views."""
    block_rows = chunk_rows * block_chunks
    whole = -(-rows // chunk_rows) * chunk_rows
    grid = ChunkGrid(views, rows, chunk_rows, (min(shard_views, views), min(block_rows * shard_blocks, whole)))
    return StorePlan(arrays, views, rows, block_rows, dict.fromkeys(arrays, grid))


def shrink_blocks(patch: pytest.MonkeyPatch, block_bytes: int, chunk_bytes: int = 1 << 20) -> None:
    """Let dumps have blocks and chunks of about so many bytes, however many files that makes."""
    patch.setattr(store_plan, "BLOCK_BYTES", block_bytes)
    patch.setattr(store_plan, "MAX_BLOCK_BYTES", block_bytes)
    patch.setattr(store_plan, "PLAIN_CHUNK_BYTES", chunk_bytes)
    patch.setattr(store_plan, "PACKED_CHUNK_BYTES", chunk_bytes)
