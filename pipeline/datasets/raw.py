"""What a source returns, and where its files are found."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.base.errors import InputError

MOST_PIXELS = 1 << 28  # of an image; cameras have 200 megapixels
HELD = 3  # times that `prepare` holds a data set's pixels: as read, joined, and in their order
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


WAYS = "put the files there, set `root:` or TEACHERCACHE_DATA, or `download: true` where it is offered"


@dataclass(frozen=True)
class RawDataset:
    """A source as published: pixels (n, C, H, W) uint8 and labels (n,) int64 of both its parts.

    Attributes:
        classes: class names, by label.
        names: what messages call each image, training images first; empty where only its row is known.
        notices: a line for each thing that people should know, such as files that were left out.
    """

    train_images: Pixels
    train_labels: Labels
    test_images: Pixels
    test_labels: Labels
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    def name_of(self, row: int) -> str:
        """What messages call an image, by its row in the source, whose training images come first."""
        if self.names:
            return self.names[row]
        count = len(self.train_labels)
        return f"training image {row}" if row < count else f"test image {row - count}"


@dataclass(frozen=True)
class Place:
    """Where to look for a source's files, and whether they may be fetched.

    Attributes:
        root: the folder that `params.yaml` names, or None.
        folder: the folder's name below `$TEACHERCACHE_DATA` or `data/raw`.
        download: let torchvision fetch what is missing (into `data/raw/<folder>`).
    """

    folder: str
    root: str | None = None
    download: bool = False

    def find(self) -> Path:
        """The folder with the files: `root`, else `$TEACHERCACHE_DATA/<folder>`, else `data/raw/<folder>`.

        Raises:
            InputError: no such folder, an empty one, or no regular file.
        """
        if self.root is not None:
            candidates = [_expand_path(self.root)]
        else:
            shared = os.environ.get("TEACHERCACHE_DATA")
            candidates = [_expand_path(shared) / self.folder] if shared else []
            candidates.append(Path("data/raw") / self.folder)
        for candidate in candidates:
            if _exists(candidate) and (candidate.is_file() or any(_list_folder(candidate))):
                return candidate
        if self.download and self.root is None:
            candidates[-1].mkdir(parents=True, exist_ok=True)
            return candidates[-1]
        raise InputError(
            f"data folder {self.folder!r}",
            expected="its files in " + " or ".join(map(str, candidates)),
            found="an empty folder" if any(c.exists() for c in candidates) else "no such folder",
            fix="correct `root:`" if self.root else WAYS,
        )


def _expand_path(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # nobody's home
        raise InputError(path, expected="a folder", found=str(error), fix="write the path out") from None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name that is too long, say
        raise InputError(str(path), expected="a folder", found=str(error.strerror), fix="correct `root:`") from None


def _list_folder(path: Path) -> Iterator[Path]:
    if not path.is_dir():  # a pipe or a device would be read for ever
        raise InputError(
            str(path), expected="a folder or a file", found="neither a folder nor a regular file", fix="correct `root:`"
        )
    return path.iterdir()


def fit_image(image: Image.Image, size: int | None, *, grey: bool) -> Pixels:
    """One image as (C, H, W) uint8.

    RGB or grey, transparent parts laid over white; where a size is stated, resized so that the
    shorter side fits and cropped around the centre to (C, size, size).

    Raises:
        ValueError: more than 8 bits a channel, which would be cut off.
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"pixels of mode {image.mode} (more than 8 bits); convert the file to 8 bits")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("L" if grey else "RGB")
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if grey else np.moveaxis(pixels, -1, 0)


def refuse_size(size: int | None) -> None:
    """Raise InputError for images of that size that would be larger than any that is read."""
    if size is not None and size * size > MOST_PIXELS:
        raise InputError(
            "size",
            expected=f"at most {math.isqrt(MOST_PIXELS):,}, which is {MOST_PIXELS // 1_000_000} megapixels an image",
            found=f"{size:,}",
            fix="state a smaller `size:`",
        )


def refuse_beyond_memory(shape: Sequence[int]) -> None:
    """Raise InputError for images (n, C, H, W) that cannot be prepared in the memory that is free."""
    needed, free = HELD * math.prod(shape), psutil.virtual_memory().available
    if needed > free:
        count, channels, height, width = shape
        raise InputError(
            f"{count:,} images of {width}x{height} pixels and {channels} channels",
            expected=f"at most the {free:,} bytes of free memory",
            found=f"{needed:,} bytes, {HELD} times the pixels, that are needed to put them in order",
            fix="state a smaller `size:`, or take fewer images",
        )


@contextmanager
def convert_torchvision_errors(folder: Path, name: str) -> Iterator[None]:
    """Raise InputError where torchvision does not find a source's files, or finds them damaged."""
    try:
        yield
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError(
            f"{name} in {folder}",
            expected="the files as torchvision stores them, with their published checksums",
            found=str(error),
            fix="fetch them again, or set `download: true`",
        ) from None


def as_labels(values: Any) -> Labels:
    """Labels as a new int64 array."""
    return np.array(values, dtype=np.int64)
