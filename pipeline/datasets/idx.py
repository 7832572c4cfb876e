"""The MNIST family: four files in the idx format, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError
from pipeline.datasets.raw import Place, RawDataset, as_labels, convert_torchvision_errors

DIGITS = tuple("0123456789")
CLOTHES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
LETTERS = tuple("ABCDEFGHIJ")
UNSIGNED_BYTE = 8  # the idx code of the only element type in use here


def mnist(place: Place) -> RawDataset:
    """Handwritten digits, 60,000 + 10,000 of (1, 28, 28)."""
    return load_idx_dataset(place, "MNIST", DIGITS)


def fashion_mnist(place: Place) -> RawDataset:
    """Pieces of clothing, 60,000 + 10,000 of (1, 28, 28)."""
    return load_idx_dataset(place, "FashionMNIST", CLOTHES)


def kmnist(place: Place) -> RawDataset:
    """Ten cursive Japanese characters, 60,000 + 10,000 of (1, 28, 28)."""
    return load_idx_dataset(place, "KMNIST", KANA)


def notmnist(place: Place) -> RawDataset:
    """Letters A to J in many fonts, in MNIST's format, (1, 28, 28); torchvision does not offer it."""
    return load_idx_dataset(place, None, LETTERS)


def load_idx_dataset(place: Place, torchvision_name: str | None, classes: tuple[str, ...]) -> RawDataset:
    """Read the four files from the folder itself or from torchvision's `<name>/raw` below it."""
    folder = place.find()
    if torchvision_name and place.download and _find_file(folder, torchvision_name, "train-images-idx3-ubyte") is None:
        _download(folder, torchvision_name)
    train_images, train_labels = _read_part(folder, torchvision_name, "train", len(classes))
    test_images, test_labels = _read_part(folder, torchvision_name, "t10k", len(classes))
    return RawDataset(train_images, train_labels, test_images, test_labels, classes)


def _read_part(
    folder: Path, name: str | None, prefix: str, classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images_path = _require_file(folder, name, f"{prefix}-images-idx3-ubyte")
    labels_path = _require_file(folder, name, f"{prefix}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, dimensions=3), read_idx(labels_path, dimensions=1)
    if len(images) != len(labels):
        raise InputError(
            f"{labels_path}",
            expected=f"{len(images)} labels, one for each image of {images_path.name}",
            found=str(len(labels)),
            fix="fetch both files of the same release",
        )
    if len(labels) and labels.max() >= classes:
        raise InputError(
            f"{labels_path}",
            expected=f"labels below {classes}",
            found=str(labels.max()),
            fix="the file is mislabelled or belongs to another data set",
        )
    return images[:, None], as_labels(labels)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes in one idx file.

    Raises:
        InputError: not an idx file of that many dimensions, or one that is too short or too long.
    """
    fix = "fetch the file again"
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(str(path), expected="a whole gzip file", found=str(error), fix=fix) from None
    magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if data[:4] != magic:
        raise InputError(
            str(path),
            expected=f"an idx file of {dimensions} dimensions (magic {magic.hex()})",
            found=f"magic {data[:4].hex() or '(empty)'}",
            fix=fix,
        )
    header = 4 + 4 * dimensions
    shape = tuple(int(n) for n in np.frombuffer(data[4:header].ljust(4 * dimensions, b"\0"), ">u4"))
    expected = header + math.prod(shape)
    if len(data) != expected:
        raise InputError(str(path), expected=f"{expected} bytes for shape {shape}", found=f"{len(data)} bytes", fix=fix)
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _find_file(folder: Path, name: str | None, stem: str) -> Path | None:
    places = [folder, *([folder / name / "raw"] if name else [])]
    return next((p / f"{stem}{end}" for p in places for end in ("", ".gz") if (p / f"{stem}{end}").is_file()), None)


def _require_file(folder: Path, name: str | None, stem: str) -> Path:
    path = _find_file(folder, name, stem)
    if path is None:
        places = f"{folder}" + (f" or {folder / name / 'raw'}" if name else "")
        raise InputError(
            f"{stem}[.gz]",
            expected=f"the file in {places}",
            found="nothing",
            fix="put it there" + (", or set `download: true`" if name else ""),
        )
    return path


def _download(folder: Path, name: str) -> None:
    from torchvision import datasets  # a heavy import

    with convert_torchvision_errors(folder, name):
        getattr(datasets, name)(str(folder), download=True)
