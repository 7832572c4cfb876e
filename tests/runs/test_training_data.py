"""What a student's budget leaves room for: compressed fields whose chunks are decoded while it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.base.errors import InputError
from pipeline.cache import Cache, decoded_array
from pipeline.datasets.dataset import Dataset, load_dataset, save_dataset
from pipeline.dumps.dump_fields import DumpRequest
from pipeline.fields.streamed import StreamedRows
from pipeline.runs.training import training_options
from pipeline.runs.training_data import load_training_data
from pipeline.student_phase import CachedField
from pipeline.study.sections import PhaseParams
from pipeline.training.batches import iterate_batches
from pipeline.training.rows import Splits
from pipeline.training.sample_order import shuffle_samples
from pipeline.views.view import PLAIN, Views
from tests.scenes import CNN, CPU, digits, made, teacher_of

DRAWN = Views("crop_flip", 3, 5, {"padding": 1}, "draw")
BLOCKS = {"name": "blocks", "rows": 64, "window": 2}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Mapping[str, Cache]]:
    """Data on disk, and a compressed field in chunks of a few rows: of one view, and of three."""
    folder = tmp_path_factory.mktemp("room")
    save_dataset(digits(), folder / "digits")
    dataset = load_dataset(folder / "digits", resident=False)
    caches = {}
    for name, codec, views in (("packed", "zstd", PLAIN), ("drawn", "zstd", DRAWN), ("plain", "none", PLAIN)):
        options = {"taps": ["conv1", "features"], "dtype": "float32", "codec": codec}
        request = DumpRequest(folder / name, folder / f".work-{name}", "hints", options, "zarr", chunk_kib=4)
        caches[name] = made(teacher_of(dataset, CNN), dataset, request, views)
    return dataset, caches


def phase(dump: str, order: Any) -> PhaseParams:
    losses = {"hint_mse": {"weight": 1.0, "tap": "features", "hint": "features", "reads": {"target": dump}}}
    return PhaseParams.model_validate({"epochs": 2, "batch_size": 32, "order": order, "losses": losses})


def load(
    scene: tuple[Dataset, Mapping[str, Cache]], dump: str, memory: int, order: Any = "shuffled", views: Views = PLAIN
) -> tuple[Splits, dict[str, CachedField]]:
    dataset, caches = scene
    return load_training_data(dataset, {dump: caches[dump]}, [phase(dump, order)], CPU, memory=memory, views=views)


def whole(cache: Cache) -> int:
    return sum(info.bytes for info in cache.manifest.arrays.values())


def test_an_order_that_decodes_again_for_each_batch_is_refused(scene: Any) -> None:
    size = whole(scene[1]["packed"])
    with pytest.raises(
        InputError, match=r"dump 'packed': compressed.*--memory for .*set order: blocks.*codec: none \("
    ) as told:
        load(scene, "packed", size // 2)
    assert "\n" not in str(told.value)
    load(scene, "plain", size // 2)  # nothing is decoded
    load(scene, "packed", 3 * size)  # on the device


@pytest.mark.parametrize(("dump", "views"), [("packed", PLAIN), ("drawn", DRAWN)])
def test_in_blocks_each_chunk_is_decoded_once_an_epoch(
    scene: Any, dump: str, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Any] = []
    real = decoded_array.decode  # type: ignore[attr-defined]
    caches = scene[1]
    splits, fields = load(scene, dump, whole(caches[dump]) // 2, BLOCKS, views)
    field = fields[dump]
    assert isinstance(field, StreamedRows)
    held = field.cache.memory
    assert held < whole(caches[dump]) // 2

    def decode(*args: Any, **how: Any) -> Any:
        decoded.append(args)
        return real(*args, **how)

    monkeypatch.setattr(decoded_array, "decode", decode)
    options = training_options(phase(dump, BLOCKS))
    order = (options.order or shuffle_samples)(len(splits.train), 0)
    steps = options.steps_per_epoch(len(splits.train))
    for batch in iterate_batches(splits.train, order.ids(0), 32, steps, 0, views=views, streams=[field]):
        field.target(batch)
    chunks = sum(info.grid.count for info in field.cache.manifest.arrays.values())
    assert len(decoded) <= 1.5 * chunks  # a chunk may lie across two blocks of two windows
