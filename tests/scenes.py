"""Small trained-looking teachers on real digits, and their caches, for the tests of fields."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline import cache
from pipeline.datasets.dataset import Dataset
from pipeline.datasets.prepare import prepare_dataset
from pipeline.datasets.raw import Place
from pipeline.dumps.dump_fields import DumpRequest, dump_fields
from pipeline.models.build import build_network
from pipeline.teacher import Ensemble, Samples, Teacher
from pipeline.training import fit as training
from pipeline.training.run import save_checkpoint
from pipeline.views.view import PLAIN, Views

CPU = torch.device("cpu")
BATCH = 256
CNN = {"name": "cnn", "widths": [4, 6, 16]}


def digits() -> Dataset:
    return prepare_dataset("digits", "digits", Place("digits"), validation=0.2)


def teacher_of(dataset: Dataset, model: dict[str, Any], seed: int = 0) -> Teacher:
    """An untrained network of these options, its card as a trained one's."""
    torch.manual_seed(seed)
    network = build_network(model, dataset.shape, len(dataset.classes))
    card = {
        "name": "big", "model": model, "shape": list(dataset.shape), "classes": list(dataset.classes),
        "weights_sha256": f"{seed}" * 64, "test_accuracy": 0.1, "test_accuracy_per_class": [0.1] * 10,
    }  # fmt: skip
    return Teacher(Ensemble([network]), card, CPU)


def wanted(
    folder: Path, name: str, field: str, options: dict[str, Any], store: Literal["zarr", "hdf5"] = "zarr"
) -> DumpRequest:
    return DumpRequest(folder / name, folder / f".work-{name}", field, options, store)


def made(
    teacher: Teacher,
    dataset: Dataset,
    each: DumpRequest,
    views: Views = PLAIN,
    samples: Literal["train", "all"] = "train",
) -> cache.Cache:
    """The dump, opened."""
    dump_fields(teacher, dataset, [each], batch=BATCH, views=views, samples=samples)
    return cache.open(each.target)


def activations(
    teacher: Teacher, dataset: Dataset, tap: str, view: int = 0, views: Views = PLAIN
) -> NDArray[np.float32]:
    """What the network itself says of the training samples, asked over the fixed partition."""
    rows = dataset.bounds[0]
    answers = teacher.compute_outputs(Samples(dataset.images, rows, BATCH, views), [tap], view, 0, rows)
    return np.concatenate([answer.numpy(tap) for answer in answers])


@contextmanager
def stopped_at_save(number: int) -> Iterator[None]:
    """While it is open, a training dies (KeyboardInterrupt) as soon as it has written its checkpoint so often."""
    real, saved = save_checkpoint, 0

    def save(runs: Any, path: Path) -> None:
        nonlocal saved
        real(runs, path)
        saved += 1
        if saved == number:
            raise KeyboardInterrupt

    with patch.object(training, "save_checkpoint", save), pytest.raises(KeyboardInterrupt):
        yield


def tree(folder: Path) -> dict[str, bytes]:
    """Every file's bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
