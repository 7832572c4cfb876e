"""Students that nobody has trained: a study's folder with random weights and honest cards, made in no time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.datasets.dataset import Dataset, save_dataset
from pipeline.models.build import build_network
from pipeline.models.network import Network
from pipeline.models.network_files import load_network, save_network
from pipeline.runs.networks import describe_architecture
from pipeline.study.params_file import parse_study
from pipeline.study.sections import describe_model
from tests.conftest import write_study

CLASSES = ("cat", "dog", "eel")


def study_of(models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A study whose students have these models (and heads)."""
    return {
        "datasets": {"photos": {"source": "imagefolder", "root": "photos"}},
        "students": {name: {**parts, "epochs": 1, "losses": {"ce": {}}} for name, parts in models.items()},
    }


def untrained(
    folder: Path,
    models: Mapping[str, Mapping[str, Any]],
    shape: tuple[int, int, int] = (1, 8, 8),
    classes: tuple[str, ...] = CLASSES,
) -> Path:
    """Write params.yaml, prepared data of random pixels and the students."""
    study = study_of(models)
    write_study(folder, study)
    dataset = save_photos(folder, shape, classes)
    for seed, (name, params) in enumerate(parse_study(study).students.items()):
        torch.manual_seed(seed)
        network = build_network(describe_model(params), shape, len(classes))
        with torch.no_grad():
            for weights in network.parameters():
                weights.mul_(2)  # so that even a deep one tells images apart
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = 1.0
            network(torch.randint(0, 256, (50, *shape), dtype=torch.uint8))  # batch norms see something
        card = {
            "name": name,
            "model": describe_architecture(params),
            "shape": shape,
            "classes": classes,
            "dataset": {"name": "photos", "fingerprint": dataset.fingerprint},
            "seed_number": 0,
            "consumed": {},
            "select": "best",
            "epoch": 1,
            "test_accuracy": 0.5,
            "test_accuracy_per_class": [0.25, *[0.75] * (len(classes) - 2), None],
        }
        save_network(folder / "data/students" / name / "seed-0", network.state_dict(), card)
    return folder


def save_photos(folder: Path, shape: tuple[int, int, int], classes: tuple[str, ...], seed: int = 0) -> Dataset:
    """Prepared data of 20 training and 10 test images."""
    generator = np.random.default_rng(seed)
    dataset = Dataset(
        pixels(generator, 30, shape), np.arange(30) % len(classes), (20, 20), classes, np.arange(30), "photos"
    )
    save_dataset(dataset, folder / "data/prepared/photos")
    return dataset


def pixels(generator: np.random.Generator, count: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return generator.integers(0, 256, (count, *shape), dtype=np.uint8)


def network_of(folder: Path, student: str) -> Network:
    """A student's network."""
    return load_network(folder / f"data/students/{student}/seed-0", torch.device("cpu"), "")[0]
