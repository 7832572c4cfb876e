"""Where the chunks of a cache lie, for tests that change one."""

from __future__ import annotations

from pathlib import Path

from pipeline.cache.chunk_table import ArrayChunks, StoredChunk
from pipeline.cache.folder import LocalFolder, read_manifest, read_table


def read_chunks(folder: Path) -> dict[str, ArrayChunks]:
    """The chunk table of a cache's folder, by array."""
    local = LocalFolder(folder)
    return dict(read_table(local, read_manifest(local, ""), "").arrays)


def find_chunk(folder: Path, number: int, array: str = "logits") -> StoredChunk:
    """Where one chunk of an array lies."""
    return read_chunks(folder)[array].find(number)
