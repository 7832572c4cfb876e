"""A student cannot tell the cache from the teacher itself."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam

from pipeline import cache, training
from pipeline.cached import CachedRows
from pipeline.datasets.prepare import prepare
from pipeline.datasets.raw import Place
from pipeline.datasets.record import Dataset
from pipeline.dumps.run import dump
from pipeline.losses.recipe import Recipe, Term
from pipeline.models.build import build
from pipeline.optimizers import constant
from pipeline.rows import Splits
from pipeline.schedules import constant as steady
from pipeline.student import Field, Trained, train_student
from pipeline.teacher import Ensemble, Samples, Teacher

CPU = torch.device("cpu")
BATCH = 256


class LiveTeacher:
    """Runs the teacher inside the training loop, over the fixed partition."""

    def __init__(self, teacher: Teacher, images: NDArray[np.uint8]) -> None:
        self.teacher, self.samples, self.forwards = teacher, Samples(images, len(images), BATCH), 0

    def rows(self, ids: Tensor, views: Tensor) -> Tensor:
        wanted = torch.empty(len(ids), 10)
        for block in torch.unique(ids // BATCH).tolist():
            start, stop = block * BATCH, min((block + 1) * BATCH, self.samples.rows)
            logits = torch.from_numpy(self.teacher.logits(self.samples, 0, start, stop))
            self.forwards += 1
            mine = ids // BATCH == block
            wanted[mine] = logits[ids[mine] - start]
        return wanted


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return prepare("digits", "digits", Place("digits"), validation=0.2)


@pytest.fixture(scope="module")
def teacher(dataset: Dataset) -> Teacher:
    torch.manual_seed(3)
    network = build({"name": "mlp", "widths": [64, 64]}, dataset.shape, 10)
    card = {
        "name": "big", "model": {"name": "mlp"}, "shape": list(dataset.shape), "classes": list(dataset.classes),
        "weights_sha256": "0" * 64, "test_accuracy": 0.1, "test_accuracy_per_class": [0.1] * 10,
    }  # fmt: skip
    return Teacher(Ensemble([network]), card, CPU)


def made(teacher: Teacher, dataset: Dataset, folder: Path, dtype: str, store: Literal["zarr", "hdf5"]) -> cache.Cache:
    dump(
        teacher, dataset, folder / "dump", folder / "work", field="logits", options={"dtype": dtype}, store=store, batch=BATCH
    )  # fmt: skip
    return cache.open(folder / "dump")


def losses(dataset: Dataset, target: Field, monkeypatch: pytest.MonkeyPatch) -> tuple[NDArray[np.float64], Trained]:
    """The (steps, terms) losses of one epoch, and the student."""
    tables: list[NDArray[np.float64]] = []
    monkeypatch.setattr(training, "refuse_non_finite", lambda table, *_: tables.append(table))
    recipe = Recipe(
        (
            Term("ce", steady(1, value=0.5), {}),
            Term("soft_targets", steady(1, value=0.5), {"temperature": 4.0}, "dump"),
            Term("logits_mse", steady(1, value=0.1), {}, "dump"),
        )
    )
    regime = training.Regime(partial(Adam, lr=0.01), constant, epochs=1, batch_size=64)
    trained = train_student(
        Splits.of(dataset, CPU), {"dump": target}, recipe,
        model={"name": "mlp", "widths": [12]}, regime=regime, seed=5, what="s",
    )  # fmt: skip
    return tables[0], trained


@pytest.mark.parametrize("store", ["zarr", "hdf5"])
def test_training_from_an_fp32_cache_is_training_with_the_live_teacher(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, store: Literal["zarr", "hdf5"], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = made(teacher, dataset, tmp_path, "float32", store)
    live = LiveTeacher(teacher, dataset.images[dataset.rows("train")])
    from_live, with_live = losses(dataset, live, monkeypatch)
    from_cache, with_cache = losses(dataset, CachedRows.of(opened, CPU), monkeypatch)
    assert live.forwards > 20
    assert from_cache.shape == (18, 3)
    assert from_cache.tobytes() == from_live.tobytes()
    state, other = with_cache.state("last"), with_live.state("last")
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_an_fp16_cache_is_off_by_its_rounding_alone(
    tmp_path: Path, dataset: Dataset, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = made(teacher, dataset, tmp_path, "float16", "zarr")
    images = dataset.images[dataset.rows("train")]
    exact = teacher.logits(Samples(images, len(images), BATCH), 0, 0, len(images))
    assert opened.load().dtype == np.float16
    assert np.all(np.abs(opened.load()[0] - exact) <= np.abs(exact) * 2.0**-11 + 2.0**-25)
    from_live, _ = losses(dataset, LiveTeacher(teacher, images), monkeypatch)
    from_cache, _ = losses(dataset, CachedRows.of(opened, CPU), monkeypatch)
    assert np.array_equal(from_cache, from_live) is False
    # Soft targets move by at most max |error| of a logit over the temperature, per class pair.
    assert np.allclose(from_cache, from_live, rtol=2.0**-9)


def test_the_partition_is_fixed_whatever_is_asked_for(dataset: Dataset, teacher: Teacher) -> None:
    images = dataset.images[:1000]
    samples = Samples(images, 1000, BATCH)
    whole = teacher.logits(samples, 0, 0, 1000)
    parts = [teacher.logits(samples, 0, start, min(start + BATCH, 1000)) for start in range(0, 1000, BATCH)]
    assert whole.tobytes() == np.concatenate(parts).tobytes()


def test_an_ensemble_averages_logits_or_probabilities(dataset: Dataset) -> None:
    torch.manual_seed(0)
    members = [build({"name": "mlp", "widths": [8]}, dataset.shape, 10).eval() for _ in range(3)]
    images = torch.from_numpy(dataset.images[:20])
    answers: Any = torch.stack([member(images) for member in members])
    assert torch.allclose(Ensemble(members, "logits")(images), answers.mean(0))
    averaged = Ensemble(members, "probabilities")(images)
    assert torch.allclose(averaged.softmax(1), answers.softmax(2).mean(0), atol=1e-6)
    assert not torch.allclose(averaged.softmax(1), answers.mean(0).softmax(1), atol=1e-4)
