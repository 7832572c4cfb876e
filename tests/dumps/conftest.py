"""What the dumps are of: small images, and a network that nobody has trained."""

from __future__ import annotations

import pytest

from pipeline.datasets.dataset import Dataset
from pipeline.teacher import Teacher
from tests.scenes import CNN, digits, teacher_of


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return digits()


@pytest.fixture(scope="module")
def teacher(dataset: Dataset) -> Teacher:
    return teacher_of(dataset, CNN)
