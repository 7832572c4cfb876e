"""Caches of hints, multi-channel labels and affinities that were written once, and that every later version reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline import cache
from pipeline.cache.block_files import BlockFunction
from pipeline.cache.blocks import ArrayPlan, Block
from pipeline.cache.manifest import Manifest
from pipeline.cache.writer import write_cache
from pipeline.dumps.hooks import plan_arrays
from pipeline.fields import load_field
from pipeline.fields.batches import CachedBatches
from pipeline.fields.rows import CachedRows
from pipeline.losses.multichannel_bce import unpack_bits
from pipeline.training.batches import Batch
from tests.conftest import ROOT
from tests.store_plans import cut_store

FOLDER = ROOT / "tests/golden_fields"
GOLDEN: dict[str, Any] = json.loads((FOLDER / "values.json").read_bytes())
NAMES = ["affinities-zarr", "affinities-hdf5", "hints-zarr", "multichannel-zarr"]


def described(name: str) -> dict[str, Any]:
    field = name.partition("-")[0]
    return {**GOLDEN["description"], **GOLDEN[field]["description"], "views": GOLDEN["description"]["views"]}


def stored(name: str) -> dict[str, NDArray[Any]]:
    arrays = GOLDEN[name.partition("-")[0]]["arrays"]
    return {array: np.array(its["values"], its["dtype"]) for array, its in arrays.items()}


def write(folder: Path, name: str) -> Manifest:
    """Write a golden cache, as they all were."""
    field, _, store = name.partition("-")
    values = stored(name)
    codec = "zstd" if field == "hints" else "none"
    plans = {array: ArrayPlan(rows.shape[2:], str(rows.dtype), codec) for array, rows in values.items()}  # type: ignore[arg-type]
    first, rows = next(iter(values.values())).shape[:2]

    def compute(block: Block) -> dict[str, NDArray[Any]]:
        return {array: rows[block.view, block.start : block.stop] for array, rows in values.items()}

    plan, made = cut_store(plans, first, rows, 2, block_chunks=2, shard_views=2), compute
    used: BlockFunction = made
    target, work = folder / name, folder / f".{name}.work"
    return write_cache(target, work, plan, used, store=store, description=described(name))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_and_holds_its_values(name: str, tmp_path: Path) -> None:
    field = name.partition("-")[0]
    opened = cache.open(shutil.copytree(FOLDER / name, tmp_path / name), {"field.name": field})
    manifest = opened.manifest
    assert {"values": manifest.values, "root": manifest.root} == GOLDEN["digests"][name]
    opened.refuse_other_arrays(plan_arrays(field, manifest.field.parameters, 3))
    for array, values in stored(name).items():
        assert opened.load(array).tobytes() == values.tobytes()
        assert len(np.unique(values)) > 2


@pytest.mark.parametrize("name", NAMES)
def test_the_same_values_have_the_same_digest_today(name: str, tmp_path: Path) -> None:
    assert write(tmp_path, name).values == GOLDEN["digests"][name]["values"]


def test_all_are_listed() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == set(NAMES) == set(GOLDEN["digests"])


def test_what_a_student_makes_of_them(tmp_path: Path) -> None:
    fields = {name: load_field(cache.open(FOLDER / name), torch.device("cpu")) for name in NAMES}
    affinities, labels = fields["affinities-zarr"], fields["multichannel-zarr"]
    assert isinstance(affinities, CachedBatches)
    assert isinstance(labels, CachedRows)
    zeros = torch.zeros(2, dtype=torch.int64)
    images = torch.zeros((2, 1, 2, 2), dtype=torch.uint8)
    # Epoch 3 follows plan 1; its last batch is short: samples 3 and 1, one pair.
    p = affinities.target(Batch(torch.tensor([3, 1]), zeros, images, zeros, 3, 1))
    assert p.tolist() == GOLDEN["last_p"]
    bits = labels.rows(torch.tensor([0, 4]), zeros)
    assert isinstance(bits, torch.Tensor)
    assert unpack_bits(bits, 3 * 5).tolist() == GOLDEN["bits_of_0_and_4"]
