"""Tiny data sets in the formats in which the real ones are published."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from pipeline.base.errors import InputError
from pipeline.datasets.dataset import Dataset
from pipeline.datasets.raw import RawDataset

# Read when the tests are collected: some of them set the variable.
SHARED = Path(os.environ.get("TEACHERCACHE_DATA") or Path(__file__).parents[2] / "shared" / "data")


@contextmanager
def refused(*parts: str) -> Iterator[None]:
    """The block raises an InputError of one line that holds every part."""
    with pytest.raises(InputError) as caught:
        yield
    line = str(caught.value)
    assert "\n" not in line
    assert [part for part in parts if part not in line] == [], line


def real(*names: str) -> Path:
    """A file of the real data sets; the test is skipped where it is absent."""
    path = SHARED.joinpath(*names)
    if not path.exists():
        pytest.skip(f"real data not here: {path}")
    return path


def some(shape: tuple[int, int, int], train: int = 12, test: int = 11, classes: int = 10, seed: int = 0) -> RawDataset:
    """Random pixels and labels; every label occurs where there are rows enough."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (train + test, *shape), dtype=np.uint8)
    labels = np.concatenate([generator.permutation(np.arange(n) % classes) for n in (train, test)])
    names = tuple(f"c{label:02}" for label in range(classes))
    return RawDataset(images[:train], labels[:train], images[train:], labels[train:], names)


def assert_holds(dataset: Dataset, raw: RawDataset) -> None:
    """The data set is the source as it stands, without a validation part."""
    np.testing.assert_array_equal(dataset.images, np.concatenate([raw.train_images, raw.test_images]))
    np.testing.assert_array_equal(dataset.labels, np.concatenate([raw.train_labels, raw.test_labels]))
    np.testing.assert_array_equal(dataset.origin, np.arange(len(dataset)))
    assert dataset.images.dtype == np.uint8
    assert dataset.bounds == (len(raw.train_labels), len(raw.train_labels))


def idx(array: NDArray[Any]) -> bytes:
    """Unsigned bytes in the idx format: magic, big-endian sizes, values."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, raw: RawDataset, *, gzipped: bool = False) -> None:
    """The four files of the MNIST family."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, NDArray[Any]] = {
        "train-images-idx3-ubyte": raw.train_images[:, 0],
        "train-labels-idx1-ubyte": raw.train_labels,
        "t10k-images-idx3-ubyte": raw.test_images[:, 0],
        "t10k-labels-idx1-ubyte": raw.test_labels,
    }
    for stem, array in files.items():
        data = idx(array)
        (folder / f"{stem}{'.gz' if gzipped else ''}").write_bytes(gzip.compress(data) if gzipped else data)


def write_cifar(folder: Path, raw: RawDataset, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The python batches of `CIFAR10` or `CIFAR100`, torchvision told their checksums."""
    published: Any = getattr(datasets, name)
    labels_key, meta_key, batches = {
        "CIFAR10": ("labels", "label_names", 5),
        "CIFAR100": ("fine_labels", "fine_label_names", 1),
    }[name]
    base = folder / published.base_folder
    base.mkdir(parents=True)

    def write(file: str, content: Mapping[str, Any]) -> str:
        data = pickle.dumps(content, protocol=2)
        (base / file).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(file: str, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[str]:
        content = {
            "data": images.reshape(len(images), -1),
            "coarse_labels": [0] * len(labels),
            labels_key: labels.tolist(),
        }
        return [file, write(file, content)]

    cuts = zip(np.array_split(raw.train_images, batches), np.array_split(raw.train_labels, batches), strict=True)
    files = [file for file, _ in published.train_list]
    train = [batch(file, images, labels) for file, (images, labels) in zip(files, cuts, strict=True)]
    test = [batch(published.test_list[0][0], raw.test_images, raw.test_labels)]
    meta = {**published.meta, "md5": write(published.meta["filename"], {meta_key: list(raw.classes)})}
    for attribute, value in (("train_list", train), ("test_list", test), ("meta", meta)):
        monkeypatch.setattr(published, attribute, value)


def write_svhn(folder: Path, raw: RawDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two .mat files: X (H, W, C, n), y (n, 1) with 10 for the digit 0."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = dict(datasets.SVHN.split_list)
    for split, images, labels in (
        ("train", raw.train_images, raw.train_labels),
        ("test", raw.test_images, raw.test_labels),
    ):
        path = folder / f"{split}_32x32.mat"
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(path, {"X": np.transpose(images, (2, 3, 1, 0)), "y": y})
        listed[split] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """(C, H, W) as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(np.moveaxis(pixels, 0, -1) if len(pixels) == 3 else pixels[0]).save(file, "PNG")
    return file.getvalue()


def picture_raw(shape: tuple[int, int, int] = (3, 6, 5), classes: int = 3) -> RawDataset:
    """Like `some`, rows in the order in which an image folder is read: by class."""
    raw = some(shape, classes=classes)
    return RawDataset(
        raw.train_images, np.sort(raw.train_labels), raw.test_images, np.sort(raw.test_labels), raw.classes
    )


def tree(raw: RawDataset, train: str = "train", test: str = "test") -> dict[str, bytes]:
    """`train/<class>/<image>.png` and `test/...`, listed in an order that nobody should rely on."""
    files = {
        f"{part}/{raw.classes[label]}/{row:03}.png": png(pixels)
        for part, images, labels in (
            (train, raw.train_images, raw.train_labels),
            (test, raw.test_images, raw.test_labels),
        )
        for row, (pixels, label) in enumerate(zip(images, labels, strict=True))
    }
    return dict(reversed(files.items()))


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_zip(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """The files in one zip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path
