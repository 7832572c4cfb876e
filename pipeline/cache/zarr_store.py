"""Arrays in a Zarr v3 group: chunks, each followed by its CRC-32C, packed into shards, with an index at their end.

The metadata are written here and not by a library, so that the same values give the same bytes
whatever its version; any Zarr v3 reader opens them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.base.files import encode_json
from pipeline.cache import cache_paths as paths
from pipeline.cache.block_files import BlockFiles, FinishedChunk, Put
from pipeline.cache.blocks import Block
from pipeline.cache.chunk_grid import ChunkGrid
from pipeline.cache.chunk_table import ArrayChunks, ChunkTable
from pipeline.cache.codecs import LEVELS, Codec
from pipeline.cache.crc import crc_to_bytes
from pipeline.cache.dtypes import storage_dtype
from pipeline.cache.manifest import ArrayInfo
from pipeline.cache.shard_index import encode_shard_index

NAME = paths.STORE_PATHS["zarr"]
MAX_METADATA_BYTES = 1 << 16  # bytes of a zarr.json that are looked at
GROUP: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": {}}


@contextmanager
def assemble_store(folder: Path, blocks: BlockFiles, records: Mapping[str, NDArray[Any]]) -> Iterator[Put]:
    """Make `data.zarr` of the blocks that are put into it while the context is open.

    Args:
        folder: of the cache.
        blocks: where the blocks come from.
        records: by array, of its chunks; their `offset` is written at the end.
    """
    plan = blocks.plan
    _write_json(folder / NAME / "zarr.json", GROUP)
    for name, array in plan.arrays.items():
        dtype = storage_dtype(array.dtype).name
        metadata = build_metadata(list(plan.shape(name)), dtype, array.codec, plan.grids[name])
        _write_json(folder / NAME / name / "zarr.json", metadata)
    with _ShardWriter(folder, blocks) as writer:
        yield writer.put
    for name, grid in plan.grids.items():
        records[name]["offset"], _ = grid.place_chunks(records[name]["bytes"].astype(np.int64))


@dataclass(frozen=True)
class _OpenShard:
    """A shard that is being written, and its chunks so far: their slots, and their bytes."""

    file: BinaryIO
    grid: ChunkGrid
    places: list[int]
    sizes: list[int]

    def add(self, first: int, chunks: list[FinishedChunk]) -> None:
        """Write a block's chunks, from this slot on."""
        for number, chunk in enumerate(chunks):
            self.file.write(chunk.payload)
            self.file.write(crc_to_bytes(chunk.crc32c))
            self.places.append(first + number)
            self.sizes.append(len(chunk.payload))

    def finish(self) -> None:
        """Write the index."""
        with self.file as file:
            file.write(encode_shard_index(math.prod(self.grid.slots), np.array(self.places), np.array(self.sizes)))


class _ShardWriter(AbstractContextManager["_ShardWriter"]):
    """Writes shards: a block's file is linked into place where it is one, else its chunks are copied."""

    def __init__(self, folder: Path, blocks: BlockFiles) -> None:
        self.folder, self.blocks = folder, blocks
        self.shards: dict[Path, _OpenShard] = {}  # those of the same views

    def put(self, name: str, block: Block, chunks: list[FinishedChunk]) -> None:
        """Take a block in."""
        grid = self.blocks.plan.grids[name]
        views = self.folder.joinpath(NAME, name, "c", str(block.view // grid.shard[0]))
        rest = ["0"] * len(self.blocks.plan.arrays[name].row_shape)
        target = views.joinpath(str(block.start // grid.shard[1]), *rest)
        if grid.slots == (1, self.blocks.count_slots(name)):
            _link_file(self.blocks.path(name, block), target)
            return
        if not all(views in other.parents for other in self.shards):
            self._finish_shards()
        if target not in self.shards:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.shards[target] = _OpenShard(target.open("wb"), grid, [], [])
        first = block.view % grid.slots[0] * grid.slots[1] + block.start % grid.shard[1] // grid.chunk_rows
        self.shards[target].add(first, chunks)

    def _finish_shards(self) -> None:
        for shard in self.shards.values():
            shard.finish()
        self.shards = {}

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish_shards()
        for shard in self.shards.values():
            shard.file.close()


def build_metadata(shape: list[int], dtype: str, codec: Codec, grid: ChunkGrid) -> dict[str, Any]:
    """An array's `zarr.json`: a regular grid of shards, in each of them chunks of one view, `chunk_rows` whole rows."""
    serializer: dict[str, Any] = {"name": "bytes"}
    if dtype != "uint8":  # of one byte: no order
        serializer["configuration"] = {"endian": "little"}
    level = {"level": LEVELS.get(codec, 0)} | ({"checksum": False} if codec == "zstd" else {})
    compressor = [] if codec == "none" else [{"name": codec, "configuration": level}]
    sharding = {
        "chunk_shape": [1, grid.chunk_rows, *shape[2:]],
        "codecs": [serializer, *compressor, {"name": "crc32c"}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*grid.shard, *shape[2:]]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0 if dtype.startswith("float") else 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
    }


def check_store(folder: Path, table: ChunkTable, fix: str) -> None:
    """Raise InputError unless the metadata say of each array just what the manifest says, and each shard's checksums
    and index what the chunk table says.

    So a Zarr library reads the same numbers from the same bytes, by no codec that is not listed.
    """
    for name, expected in {
        "": GROUP,
        **{name: _describe_array(array.info) for name, array in table.arrays.items()},
    }.items():
        path, canonical = folder / NAME / name / "zarr.json", encode_json(expected)
        with path.open("rb") as file:
            found = file.read(MAX_METADATA_BYTES)
        if found != canonical:
            raise InputError(
                f"{path}: {_find_difference(found, expected)}",
                expected="the metadata that the manifest's array has, in canonical bytes",
                found="others",
                fix=fix,
            )
    for chunks in table.arrays.values():
        for file_name, digest in hash_shard_ends(chunks):
            if table.files[file_name].sha256 != digest:
                raise InputError(str(folder / file_name), expected="the index of its chunks", found="another", fix=fix)


def hash_shard_ends(chunks: ArrayChunks, chosen: NDArray[np.bool_] | None = None) -> Iterator[tuple[str, str]]:
    """Of each shard of an array its file, and the SHA-256 that its checksums and its index must have.

    Args:
        chunks: of the array.
        chosen: the chunks (n,) whose checksums count; None: all.
    """
    grid = chunks.grid
    shard, slot = grid.locate_chunks()
    order = np.lexsort((slot, shard))
    bounds = np.searchsorted(shard[order], np.arange(math.prod(grid.shards) + 1))
    files = paths.list_data_paths("zarr", chunks.name, grid.shards, len(chunks.info.shape))
    for number, file in enumerate(files):
        mine = order[bounds[number] : bounds[number + 1]]
        seen = mine if chosen is None else mine[chosen[mine]]
        digest = hashlib.sha256(chunks.records["crc32c"][seen].tobytes())
        sizes = chunks.records["bytes"][mine].astype(np.int64)
        digest.update(encode_shard_index(math.prod(grid.slots), slot[mine], sizes))
        yield file, digest.hexdigest()


check_own_store = check_store  # JSON is no danger, whoever wrote it


def _find_difference(data: bytes, expected: Mapping[str, Any]) -> str:
    """The first entry that differs, where the bytes are JSON at all."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return "no JSON"
    if not isinstance(found, Mapping):
        return "no object"
    keys = sorted(found.keys() | expected.keys())
    return next((key for key in keys if found.get(key, ...) != expected.get(key, ...)), "its form")


def _describe_array(array: ArrayInfo) -> dict[str, Any]:
    return build_metadata(array.shape, storage_dtype(array.dtype).name, array.codec, array.grid)


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_json(value))


def _link_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
