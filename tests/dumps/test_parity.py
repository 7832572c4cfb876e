"""A student cannot tell the cache from the teacher itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam
from torch.utils.data import DataLoader

from pipeline import cache
from pipeline.base.errors import InputError
from pipeline.datasets.dataset import Dataset
from pipeline.datasets.prepare import prepare_dataset
from pipeline.datasets.raw import Place
from pipeline.dumps.dump_fields import DumpRequest, dump_fields
from pipeline.fields.dataset import CachedDataset
from pipeline.fields.rows import CachedRows
from pipeline.losses.recipe import Recipe, Term
from pipeline.losses.weights.schedules import constant as steady
from pipeline.models.build import build_network
from pipeline.student import train_student
from pipeline.student_phase import CachedField
from pipeline.teacher import Ensemble, Samples, Teacher
from pipeline.training import network_trainer as trainee
from pipeline.training.batches import Batch, iterate_batches
from pipeline.training.optimizers import constant
from pipeline.training.options import TrainingOptions
from pipeline.training.result import TrainedStudent
from pipeline.training.rows import Splits
from pipeline.training.sample_order import RandomOrder
from pipeline.views.view import PLAIN, Views

CPU = torch.device("cpu")
BATCH = 256


def logits_of(teacher: Teacher, samples: Samples, view: int, start: int, stop: int) -> Tensor:
    return torch.cat(
        [answer.values["logits"] for answer in teacher.compute_outputs(samples, ["logits"], view, start, stop)]
    )


class LiveTeacher:
    """Runs the teacher inside the training loop, over the fixed partition, on the pixels that the student sees."""

    plans = None

    def __init__(self, teacher: Teacher, images: NDArray[np.uint8], views: Views = PLAIN) -> None:
        self.teacher, self.samples, self.forwards = teacher, Samples(images, len(images), BATCH, views), 0

    def target(self, batch: Batch) -> Tensor:
        ids, views = batch.ids, batch.views
        wanted = torch.empty(len(ids), 10)
        for view, block in torch.unique(torch.stack([views, ids // BATCH]), dim=1).T.tolist():
            start, stop = block * BATCH, min((block + 1) * BATCH, self.samples.rows)
            logits = logits_of(self.teacher, self.samples, view, start, stop)
            self.forwards += 1
            mine = (ids // BATCH == block) & (views == view)
            wanted[mine] = logits[ids[mine] - start]
        return wanted


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return prepare_dataset("digits", "digits", Place("digits"), validation=0.2)


@pytest.fixture(scope="module")
def teacher(dataset: Dataset) -> Teacher:
    torch.manual_seed(3)
    network = build_network({"name": "mlp", "widths": [64, 64]}, dataset.shape, 10)
    card = {
        "name": "big", "model": {"name": "mlp"}, "shape": list(dataset.shape), "classes": list(dataset.classes),
        "weights_sha256": "0" * 64, "test_accuracy": 0.1, "test_accuracy_per_class": [0.1] * 10,
    }  # fmt: skip
    return Teacher(Ensemble([network]), card, CPU)


def made(
    teacher: Teacher, dataset: Dataset, folder: Path, dtype: str, store: Literal["zarr", "hdf5"], views: Views = PLAIN
) -> cache.Cache:
    wanted = DumpRequest(folder / "dump", folder / "work", "logits", {"dtype": dtype}, store)
    dump_fields(teacher, dataset, [wanted], batch=BATCH, views=views)
    return cache.open(folder / "dump")


def losses(
    dataset: Dataset, target: CachedField, monkeypatch: pytest.MonkeyPatch, views: Views = PLAIN, epochs: int = 1
) -> tuple[NDArray[np.float64], TrainedStudent]:
    """The (steps, terms) losses of all epochs, and the student."""
    tables: list[NDArray[np.float64]] = []
    monkeypatch.setattr(trainee, "refuse_non_finite", lambda table, *_: tables.append(table))
    recipe = Recipe(
        (
            Term("ce", steady(1, value=0.5), {}),
            Term("soft_targets", steady(1, value=0.5), {"temperature": 4.0}, "dump"),
            Term("logits_mse", steady(1, value=0.1), {}, "dump"),
        )
    )
    options = TrainingOptions(partial(Adam, lr=0.01), constant, epochs=epochs, batch_size=64)
    trained = train_student(
        Splits.from_dataset(dataset, CPU), {"dump": target}, recipe,
        model={"name": "mlp", "widths": [12]}, options=options, seed=5, what="s", views=views,
    )  # fmt: skip
    return np.concatenate(tables), trained


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_training_from_an_fp32_cache_is_training_with_the_live_teacher(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, store: Literal["zarr", "hdf5"], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = made(teacher, dataset, tmp_path, "float32", store)
    live = LiveTeacher(teacher, dataset.images[dataset.rows("train")])
    from_live, with_live = losses(dataset, live, monkeypatch)
    from_cache, with_cache = losses(dataset, CachedRows.from_cache(opened, CPU), monkeypatch)
    assert live.forwards > 20
    assert from_cache.shape == (18, 3)
    assert from_cache.tobytes() == from_live.tobytes()
    state, other = with_cache.state("last"), with_live.state("last")
    assert all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("order", ["cycle", "draw"])
def test_augmented_training_from_a_cache_is_training_with_the_live_teacher(
    tmp_path: Path,
    dataset: Dataset,
    teacher: Teacher,
    order: Literal["cycle", "draw"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    views = Views("crop_flip", 16, 7, {"padding": 1}, order)
    opened = made(teacher, dataset, tmp_path, "float32", "zarr", views)
    assert opened.load().shape == (16, dataset.bounds[0], 10)
    assert len(np.unique(opened.load()[:, 0], axis=0)) > 8  # the views of one sample differ
    live = LiveTeacher(teacher, dataset.images[dataset.rows("train")], views)
    from_live, with_live = losses(dataset, live, monkeypatch, views, epochs=3)
    from_cache, with_cache = losses(dataset, CachedRows.from_cache(opened, CPU), monkeypatch, views, epochs=3)
    assert from_cache.shape == (54, 3)
    assert from_cache.tobytes() == from_live.tobytes()
    state, other = with_cache.state("last"), with_live.state("last")
    assert all(torch.equal(state[name], other[name]) for name in state)
    unaugmented, _ = losses(dataset, CachedRows.from_cache(opened, CPU), monkeypatch, epochs=3)
    assert not np.array_equal(unaugmented, from_cache)


def test_a_student_sees_the_pixels_that_its_teacher_answered_for(dataset: Dataset) -> None:
    views = Views("crop_flip", 4, 3, {"padding": 2})
    rows = Splits.from_dataset(dataset, CPU).train
    assert isinstance(rows.images, Tensor)
    images = dataset.images[dataset.rows("train")]
    for epoch in (0, 3, 4, 9):
        shown = torch.empty_like(rows.images)
        for batch in iterate_batches(rows, RandomOrder(len(rows), epoch).ids(epoch), 64, 99, epoch, views=views):
            assert (batch.views == epoch % 4).all()
            shown[batch.ids] = batch.images
        parts = Samples(images, len(images), BATCH, views).batches(epoch % 4, 0, len(images), CPU)
        seen = torch.cat([pixels[:real] for pixels, real in parts])
        assert torch.equal(shown, seen)
        assert not torch.equal(shown, rows.images)


def test_a_loop_of_ones_own_gets_the_same_views(tmp_path: Path, dataset: Dataset, teacher: Teacher) -> None:
    views = Views("crop_flip", 4, 3, {"padding": 1})
    opened = made(teacher, dataset, tmp_path, "float32", "hdf5", views)
    samples = CachedDataset(dataset, {"big": opened})
    assert samples.views == views  # the cache says which they are
    samples.set_epoch(6)
    loader = DataLoader(samples, batch_size=50, shuffle=True, generator=torch.Generator().manual_seed(0), num_workers=2)
    images, labels, fields = next(iter(loader))
    assert images.shape == (50, *dataset.shape)
    answers = teacher.network(images)
    # The teacher, asked about the very pixels that were shown, gives the cached rows (another batch size: last bits).
    assert torch.allclose(answers, fields["big"], atol=1e-5)
    assert len(samples) == dataset.bounds[0]
    assert labels.tolist() == [samples[int(i)][1] for i in _ids(samples, images)]
    living = DataLoader(samples, batch_size=50, num_workers=1, persistent_workers=True)
    shown = {}
    for epoch in (0, 1, 4):  # view 0 again in epoch 4
        samples.set_epoch(epoch)
        shown[epoch] = torch.cat([fields["big"] for _, _, fields in living])
    assert torch.equal(shown[0], shown[4])
    assert not torch.equal(shown[0], shown[1])
    with pytest.raises(IndexError):
        samples[len(samples)]
    with pytest.raises(
        InputError, match=r"views: expected .*'none'.*; leave `views` out, or give `Views.from_cache\(cache\)`"
    ):
        CachedDataset(dataset, {"big": opened}, PLAIN)
    plain = made(teacher, dataset, tmp_path / "plain", "float32", "zarr", PLAIN)
    with pytest.raises(
        InputError, match=r"'plain': views: expected those of cache 'big', .*in a CachedDataset of their"
    ):
        CachedDataset(dataset, {"big": opened, "plain": plain})
    assert CachedDataset(dataset, {"plain": plain}).views == CachedDataset(dataset, {}).views == PLAIN
    drawn = CachedDataset(dataset, {"big": opened}, Views.from_cache(opened, "draw"))
    assert drawn.views == replace(views, order="draw")
    other = prepare_dataset("digits", "digits", Place("digits"), validation=0.3)
    with pytest.raises(InputError, match="data set: expected digits"):
        CachedDataset(other, {"big": opened}, views)


def _ids(samples: CachedDataset, images: Tensor) -> list[int]:
    """Which samples these images are, found by their pixels."""
    every = torch.stack([samples[i][0] for i in range(len(samples))]).flatten(1).float()
    return torch.cdist(images.flatten(1).float(), every).argmin(1).tolist()


def test_an_fp16_cache_is_off_by_its_rounding_alone(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = made(teacher, dataset, tmp_path, "float16", "zarr")
    images = dataset.images[dataset.rows("train")]
    exact = logits_of(teacher, Samples(images, len(images), BATCH), 0, 0, len(images)).numpy()
    assert opened.load().dtype == np.float16
    assert np.all(np.abs(opened.load()[0] - exact) <= np.abs(exact) * 2.0**-11 + 2.0**-25)
    from_live, _ = losses(dataset, LiveTeacher(teacher, images), monkeypatch)
    from_cache, _ = losses(dataset, CachedRows.from_cache(opened, CPU), monkeypatch)
    assert np.array_equal(from_cache, from_live) is False
    # Soft targets move by at most max |error| of a logit over the temperature, per class pair.
    assert np.allclose(from_cache, from_live, rtol=2.0**-9)


def test_the_partition_is_fixed_whatever_is_asked_for(dataset: Dataset, teacher: Teacher) -> None:
    images = dataset.images[:1000]
    samples = Samples(images, 1000, BATCH)
    whole = logits_of(teacher, samples, 0, 0, 1000)
    parts = [logits_of(teacher, samples, 0, start, min(start + BATCH, 1000)) for start in range(0, 1000, BATCH)]
    assert torch.equal(whole, torch.cat(parts))


def test_an_ensemble_averages_logits_or_probabilities(dataset: Dataset) -> None:
    torch.manual_seed(0)
    members = [build_network({"name": "mlp", "widths": [8]}, dataset.shape, 10).eval() for _ in range(3)]
    images = torch.from_numpy(dataset.images[:20])
    answers: Any = torch.stack([member(images) for member in members])
    assert torch.allclose(Ensemble(members, "logits")(images), answers.mean(0))
    averaged = Ensemble(members, "probabilities")(images)
    assert torch.allclose(averaged.softmax(1), answers.softmax(2).mean(0), atol=1e-6)
    assert not torch.allclose(averaged.softmax(1), answers.mean(0).softmax(1), atol=1e-4)
