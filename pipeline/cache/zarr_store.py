"""Arrays in a Zarr v3 group, one file a chunk, each with its CRC-32C at the end.

The metadata are written here and not by a library, so that the same values give the same bytes
whatever its version; any Zarr v3 reader opens them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.files import encode_json
from pipeline.cache import block_paths as paths
from pipeline.cache.blocks import Block, BlockKey, StorePlan
from pipeline.cache.codecs import LEVELS, Codec
from pipeline.cache.dtypes import storage_dtype
from pipeline.cache.manifest import ArrayInfo, Manifest

NAME = paths.STORE_PATHS["zarr"]
KEEPS_BLOCK_FILES = True  # a block's file is a chunk of the store as it stands
MAX_METADATA_BYTES = 1 << 16  # bytes of a zarr.json that are looked at
GROUP: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": {}}


def write_store(
    folder: Path, plan: StorePlan, block_file: Callable[[str, Block], Path]
) -> dict[BlockKey, tuple[str, int]]:
    """Assemble `data.zarr`: the block files are its chunks, linked into place.

    Returns:
        File and offset of each block, by array and block.
    """
    places = {}
    _write_json(folder / NAME / "zarr.json", GROUP)
    for name, array in plan.arrays.items():
        shape, dtype = list(plan.shape(name)), storage_dtype(array.dtype)
        _write_json(folder / NAME / name / "zarr.json", build_metadata(shape, dtype.name, plan.chunk_rows, array.codec))
        for block in plan.blocks():
            place = paths.chunk_path(name, block.view, block.index, len(shape))
            _link_file(block_file(name, block), folder / place)
            places[name, block] = (place, 0)
    return places


def build_metadata(shape: list[int], dtype: str, chunk_rows: int, codec: Codec) -> dict[str, Any]:
    """An array's `zarr.json`: a regular grid of chunks of one view, `chunk_rows` rows, whole rows."""
    serializer: dict[str, Any] = {"name": "bytes"}
    if dtype != "uint8":  # of one byte: no order
        serializer["configuration"] = {"endian": "little"}
    level = {"level": LEVELS.get(codec, 0)} | ({"checksum": False} if codec == "zstd" else {})
    compressor = [] if codec == "none" else [{"name": codec, "configuration": level}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, chunk_rows, *shape[2:]]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0 if dtype.startswith("float") else 0,
        "codecs": [serializer, *compressor, {"name": "crc32c"}],
        "attributes": {},
    }


def check_store(folder: Path, manifest: Manifest, fix: str) -> None:
    """Raise InputError unless the metadata say of each array just what the manifest says.

    So a Zarr library reads the same numbers from the same bytes, by no codec that is not listed.
    """
    for name, expected in {
        "": GROUP,
        **{name: _describe_array(array) for name, array in manifest.arrays.items()},
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
    return build_metadata(array.shape, storage_dtype(array.dtype).name, array.chunk_rows, array.codec)


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_json(value))


def _link_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
