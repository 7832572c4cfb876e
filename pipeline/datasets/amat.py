"""The original files of the MNIST variations (Larochelle, Erhan, Courville, Bergstra and Bengio, ICML 2007)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from pipeline.base.errors import InputError
from pipeline.base.progress import progress_bar
from pipeline.datasets.raw import Labels, Pixels, Place, RawDataset, as_labels

Variation = Literal["basic", "rotated", "random_background", "image_background", "rotated_image_background"]

SIDE = 28
NUMBERS = SIDE * SIDE + 1  # of a line: the pixels, then the label
LONGEST_LINE = 1 << 16  # bytes; the published lines have 13,000
BAR_LINES = 500  # lines between two moves of the bar
FIX = "unpack the published zip again"
NAMES = {  # of the training and the test file
    "basic": ("mnist_train.amat", "mnist_test.amat"),
    "rotated": (
        "mnist_all_rotation_normalized_float_train_valid.amat",
        "mnist_all_rotation_normalized_float_test.amat",
    ),
    "random_background": ("mnist_background_random_train.amat", "mnist_background_random_test.amat"),
    "image_background": ("mnist_background_images_train.amat", "mnist_background_images_test.amat"),
    "rotated_image_background": (
        "mnist_all_background_images_rotation_normalized_train_valid.amat",
        "mnist_all_background_images_rotation_normalized_test.amat",
    ),
}


def amat(
    place: Place,
    *,
    variation: Variation | None = None,
    order: Literal["auto", "rows", "columns"] = "auto",
    validation_lines: NonNegativeInt = 2000,
) -> RawDataset:
    """The published MNIST variations: 12,000 + 50,000 images (1, 28, 28), as text in two files.

    A line is 784 numbers from 0 to 1, then the label. A pixel becomes the whole number nearest to 255 times its
    value.

    Args:
        place: the folder with the two files, unpacked.
        variation: which, where the folder holds several.
        order: how the 784 pixels stand in a line. Public readers of these files turn the images with backgrounds
            over (they were written column after column) and leave `basic` as it is; of the rotated ones some do
            and some do not. `auto` takes rows for `basic`, columns for the others.
        validation_lines: so many last lines of the training file come first, so that `validation: {first: 2000}`
            holds out what the authors did ("the last 2000 examples of the training sets").

    Raises:
        InputError: files that are not there, or a line that is not as above, by file and number of the line.
    """
    folder = place.find()
    found = variation or _find_only_variation(folder)
    by_columns = order == "columns" or (order == "auto" and found != "basic")
    (train_images, train_labels), (test_images, test_labels) = (
        read_amat(_require_file(folder, name), by_columns=by_columns) for name in NAMES[found]
    )
    if validation_lines >= len(train_labels):
        raise InputError(
            "validation_lines",
            expected=f"fewer than the {len(train_labels)} lines of {NAMES[found][0]}",
            found=str(validation_lines),
            fix="state fewer; 0 keeps the file's order",
        )
    train_images, train_labels = np.roll(train_images, validation_lines, 0), np.roll(train_labels, validation_lines)
    return RawDataset(train_images, train_labels, test_images, test_labels, tuple("0123456789"))


def read_amat(path: Path, *, by_columns: bool) -> tuple[Pixels, Labels]:
    """Images (n, 1, 28, 28) uint8 and labels (n,) of one file, a line at a time.

    Raises:
        InputError: an empty file, or a line that is not 784 numbers from 0 to 1 and a digit.
    """
    pixels, labels = bytearray(), bytearray()
    with path.open("rb") as file, _raise_warnings(), progress_bar(path.name, os.fstat(file.fileno()).st_size) as bar:
        while line := file.readline(LONGEST_LINE):
            values = _parse_line(line)
            if values is None:
                raise _describe_fault(path, len(labels) + 1, line)
            pixels += np.rint(values[:-1] * 255).astype(np.uint8).tobytes()
            labels.append(int(values[-1]))
            if len(labels) % BAR_LINES == 0:
                bar(file.tell())
    if not labels:
        raise InputError(str(path), expected="a line of 784 pixels and a label for each image", found="none", fix=FIX)
    images = np.frombuffer(pixels, np.uint8).reshape(-1, 1, SIDE, SIDE)
    return (images.swapaxes(2, 3) if by_columns else images), as_labels(np.frombuffer(labels, np.uint8))


@contextmanager
def _raise_warnings() -> Iterator[None]:
    """Raise numpy's warning of text that is no number: older versions only warn, and stop reading there."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        yield


def _parse_line(line: bytes) -> NDArray[np.float64] | None:
    """The 785 values of a line; None for a malformed line (NaN included: it fails both comparisons)."""
    try:
        values = np.fromstring(line, sep=" ")
    except (ValueError, DeprecationWarning):
        return None
    if values.size != NUMBERS or not (values.min() >= 0 and values[:-1].max() <= 1 and values[-1] in range(10)):
        return None
    return values


def _describe_fault(path: Path, number: int, line: bytes) -> InputError:
    """The error for a malformed line. Slower than `_parse_line`, which only tells whether a line is well formed."""
    expected, found = _find_fault([_decode_word(word) for word in line.split()])
    return InputError(f"{path}, line {number}", expected=expected, found=found, fix=FIX)


def _find_fault(words: list[str]) -> tuple[str, str]:
    for place, word in enumerate(words, start=1):
        if _parse_number(word) is None:
            return "numbers", f"{word!r} (number {place})"
    if len(words) != NUMBERS:
        return f"{NUMBERS} numbers (784 pixels and a label)", str(len(words))
    for place, word in enumerate(words[:-1], start=1):
        if not 0 <= (_parse_number(word) or 0) <= 1:
            return "pixels from 0 to 1", f"{word} (pixel {place})"
    return "a digit from 0 to 9 as the label", words[-1]


def _parse_number(word: str) -> float | None:
    try:
        return None if "_" in word else float(word)  # Python reads 1_0 as ten
    except ValueError:
        return None


def _decode_word(word: bytes) -> str:
    return word[:40].decode("ascii", errors="backslashreplace")


def _find_only_variation(folder: Path) -> str:
    """The one variation whose files are in the folder."""
    found = [name for name, files in NAMES.items() if any((folder / file).is_file() for file in files)]
    if len(found) != 1:
        raise InputError(
            f"MNIST variations in {folder}",
            expected="the two .amat files of one variation, under their published names",
            found=" and ".join(found) or "none",
            fix="state `variation:`" if found else "unpack a published zip there",
        )
    return found[0]


def _require_file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputError(name, expected=f"the file in {folder}", found="nothing", fix="unpack the published zip there")
    return path
