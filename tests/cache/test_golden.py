"""Caches that were written once, and that every later version reads."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import cache
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.codecs import Codec, Format
from pipeline.cache.dtypes import DType, round_to_dtype, widen_bfloat16
from pipeline.cache.folder import LocalFolder
from pipeline.cache.manifest import Manifest
from pipeline.cache.verify import verify_cache
from pipeline.cache.writer import write_cache
from pipeline.dumps.logits import LogitsType, plan_top_k_arrays, select_top_k
from tests.cache.test_interop import Stranger
from tests.conftest import ROOT
from tests.store_plans import cut_store

FOLDER = ROOT / "tests/golden"
GOLDEN: dict[str, Any] = json.loads((FOLDER / "values.json").read_bytes())
CHUNK_ROWS = 2  # of 5: the last chunk of a view is a short one
# Chunks of a block, blocks of a shard, views of a shard; of all others 1.
CUTS = {
    "zarr-float16-none": (2, 1, 1),
    "zarr-bfloat16-none": (2, 2, 2),
    "zarr-float32-zstd": (2, 1, 2),
    "zarr-float32-gzip": (1, 3, 1),
    "zarr-float32-none-top2": (1, 2, 2),
    "hdf5-float32-gzip": (2, 1, 1),
}
TOP_K, TEMPERATURE = 2, 4.0
NAMES = [
    *(f"{store}-{dtype}-none" for store in ("zarr", "hdf5") for dtype in ("float32", "float16", "bfloat16")),
    "zarr-float32-zstd",
    "zarr-float32-gzip",
    "hdf5-float32-gzip",
    "zarr-float32-none-top2",
    "hdf5-float32-none-top2",
]


def logits() -> NDArray[np.float32]:
    """(2, 5, 3), each exact in every format."""
    return np.array(GOLDEN["logits"], np.float32)


def parts(name: str) -> tuple[Format, LogitsType, Codec, bool]:
    """Store, number format, codec, and whether only the largest logits are kept."""
    store, dtype, codec, *top = name.split("-")
    return cast("Format", store), cast("LogitsType", dtype), cast("Codec", codec), bool(top)


def plans(name: str) -> dict[str, ArrayPlan]:
    _, dtype, codec, top = parts(name)
    return plan_top_k_arrays(TOP_K, 3, dtype, codec) if top else {"logits": ArrayPlan((3,), dtype, codec)}


def stored(name: str) -> dict[str, NDArray[Any]]:
    """The arrays of a cache, as a dump of these logits stores them today."""
    _, dtype, _, top = parts(name)
    if not top:
        return {"logits": round_to_dtype(logits(), dtype)}
    made = [select_top_k(view, TOP_K, TEMPERATURE, dtype=dtype, first=0, teacher="golden") for view in logits()]
    return {array: np.stack([view[array] for view in made]) for array in made[0]}


def expected(name: str) -> dict[str, tuple[DType, NDArray[Any]]]:
    """The arrays of a cache as they are written down, with their formats."""
    kept = GOLDEN["top2"] if parts(name)[3] else {"logits": GOLDEN["logits"]}
    return {array: (plan.dtype, np.array(kept[array])) for array, plan in plans(name).items()}


def write(folder: Path, name: str) -> Manifest:
    """Write a golden cache, as they all were."""
    store, dtype, _, top = parts(name)
    values = stored(name)
    parameters = {"dtype": dtype} | ({"top_k": TOP_K, "temperature": TEMPERATURE} if top else {})
    described = {**GOLDEN["description"], "field": {"name": "logits", "parameters": parameters}}

    def compute(block: Block) -> dict[str, NDArray[Any]]:
        return {array: rows[block.view, block.start : block.stop] for array, rows in values.items()}

    chunks, blocks, views = CUTS.get(name, (1, 1, 1))
    plan = cut_store(plans(name), 2, 5, CHUNK_ROWS, block_chunks=chunks, shard_blocks=blocks, shard_views=views)
    return write_cache(folder / name, folder / f".{name}.work", plan, compute, store=store, description=described)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def copy(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER / name, tmp_path / name))


def test_all_golden_caches_are_listed() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == set(NAMES) == set(GOLDEN["digests"])


def test_a_golden_cache_opens_and_holds_its_values(name: str, copy: Path) -> None:
    opened = cache.open(copy, {"rows": 5, "views.count": 2, "teacher.name": "golden", "batch": 2})
    manifest = opened.manifest
    assert {"values": manifest.values, "root": manifest.root} == GOLDEN["digests"][name]
    assert set(manifest.arrays) == set(expected(name))
    for array, (dtype, values) in expected(name).items():
        info, loaded = manifest.arrays[array], opened.load(array)
        assert (info.dtype, info.codec, info.chunk_rows) == (dtype, parts(name)[2], CHUNK_ROWS)
        assert loaded.dtype == np.dtype("float32" if dtype == "bfloat16" else dtype)
        assert np.array_equal(loaded.astype(np.float64), values)
        ids, views = np.array([4, 0, 4, 3]), np.array([1, 0, 0, 1])
        assert np.array_equal(opened.rows(ids, views, array).astype(np.float64), values[views, ids])


def test_a_golden_cache_is_whole(copy: Path) -> None:
    manifest = cache.open(copy).manifest
    assert verify_cache(LocalFolder(copy), manifest).lines() == []
    data = next(name for name, info in manifest.files.items() if name.startswith("data") and not name.endswith(".json"))
    before = (copy / data).read_bytes()
    for at in (0, -1):
        changed = bytearray(before)
        changed[at] ^= 1
        (copy / data).write_bytes(changed)
        assert not verify_cache(LocalFolder(copy), manifest).is_whole


def test_a_stranger_reads_a_golden_cache(name: str) -> None:
    """So they are written as the words of the format say, and not as this package happens to read them."""
    stranger = Stranger(FOLDER / name)
    stranger.check_files()
    assert {"values": stranger.values(), "root": stranger.root()} == GOLDEN["digests"][name]
    for array in stranger.manifest["arrays"] if name.startswith("zarr") else ():
        stranger.check_shards(array)


def test_the_golden_caches_are_cut_in_every_way() -> None:
    grids = {name: cache.open(FOLDER / name).manifest.arrays.values() for name in NAMES if name.startswith("zarr")}
    found = {(*each.grid.shards, *each.grid.slots) for arrays in grids.values() for each in arrays}
    # Shards along the views, along the rows; in each, views, and chunks of a view.
    assert found == {(2, 3, 1, 1), (2, 2, 1, 2), (1, 1, 2, 3), (1, 2, 2, 2), (2, 1, 1, 3)}


def test_the_same_values_have_the_same_digest_today(name: str, tmp_path: Path) -> None:
    assert write(tmp_path, name).values == GOLDEN["digests"][name]["values"]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("zarr") and "none" in name])
def test_uncompressed_zarr_is_written_in_the_same_bytes_today(name: str, tmp_path: Path) -> None:
    write(tmp_path, name)
    found, golden = (
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / name / "data.zarr", FOLDER / name / "data.zarr")
    )
    shards = {array: math.prod(info.grid.shards) for array, info in cache.open(FOLDER / name).manifest.arrays.items()}
    assert len(found) == 1 + len(shards) + sum(shards.values()) >= 3
    assert found == golden


def test_the_values_are_exact_in_every_format() -> None:
    for dtype in ("float16", "bfloat16"):
        exact = widen_bfloat16(round_to_dtype(logits(), dtype), dtype).astype(np.float64)
        assert np.array_equal(exact, np.array(GOLDEN["logits"]))
    assert len(np.unique(logits())) > 20
