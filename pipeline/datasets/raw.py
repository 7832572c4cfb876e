"""What a source returns, and where its files are found."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.base.errors import InputError

MOST_PIXELS = 1 << 28  # of an image; cameras have 200 megapixels
PIECE_BYTES = 1 << 20  # of the images that are handed on at a time, so that few are ever held
MOST_PIECE = 64  # images
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Rows = NDArray[np.int64]
Shape = tuple[int, int, int]  # (C, H, W) of an image


WAYS = "put the files there, set `root:` or TEACHERCACHE_DATA, or `download: true` where it is offered"


class Source(Protocol):
    """What a source's function returns: labels and names now, images when rows of them are asked for.

    A row is an image's number in the source, whose training images come first.
    """

    @property
    def train_labels(self) -> Labels: ...

    @property
    def test_labels(self) -> Labels: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def notices(self) -> tuple[str, ...]: ...

    def name_of(self, row: int) -> str: ...

    def find_shape(self, row: int) -> Shape: ...

    def read(self, rows: Rows, shape: Shape) -> Iterator[Pixels]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class RawDataset:
    """A source as published: pixels (n, C, H, W) uint8 and labels (n,) int64 of both its parts.

    Attributes:
        classes: class names, by label.
        names: what messages call each image, training images first; empty where only its row is known.
        notices: a line for each thing that people should know, such as files that were left out.
        size, grey: what `read` makes of the pixels (see `fit_image`).
    """

    train_images: Pixels
    train_labels: Labels
    test_images: Pixels
    test_labels: Labels
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    size: int | None = None
    grey: bool = False

    def name_of(self, row: int) -> str:
        """What messages call an image, by its row in the source, whose training images come first."""
        if self.names:
            return self.names[row]
        count = len(self.train_labels)
        return f"training image {row}" if row < count else f"test image {row - count}"

    def find_shape(self, row: int) -> Shape:  # noqa: ARG002 - all have the same
        """(C, H, W) of an image as `read` gives it."""
        channels, height, width = self.train_images.shape[1:]
        if self.size is None and not self.grey:
            return channels, height, width
        height, width = (height, width) if self.size is None else (self.size, self.size)
        return 1 if self.grey or channels == 1 else 3, height, width

    def read(self, rows: Rows, shape: Shape) -> Iterator[Pixels]:
        """The images of some rows, of the shape that is found, in their order, in pieces (k, C, H, W)."""
        for piece in cut_rows(rows, shape):
            images = self._take(piece)
            yield images if self.size is None and not self.grey else refit_images(images, self.size, self.grey)

    def _take(self, rows: Rows) -> Pixels:
        images = np.empty((len(rows), *self.train_images.shape[1:]), np.uint8)
        count = len(self.train_labels)
        images[rows < count] = self.train_images[rows[rows < count]]
        images[rows >= count] = self.test_images[rows[rows >= count] - count]
        return images

    def close(self) -> None:
        """Nothing is open."""


def cut_rows(rows: Rows, shape: Shape) -> Iterator[Rows]:
    """Rows of images of that shape, a few at a time."""
    count = max(1, min(MOST_PIECE, PIECE_BYTES // max(1, math.prod(shape))))
    return (rows[start : start + count] for start in range(0, len(rows), count))


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
    mode = "L" if grey else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def refit_images(images: Pixels, size: int | None, grey: bool) -> Pixels:
    """Images (N, C, H, W) as grey ones, or of another size."""
    only_grey = grey or images.shape[1] == 1
    pictures = (Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)) for image in images)
    return np.stack([fit_image(picture, size, grey=only_grey) for picture in pictures])


def refuse_size(size: int | None) -> None:
    """Raise InputError for images of that size that would be larger than any that is read."""
    if size is not None and size * size > MOST_PIXELS:
        raise InputError(
            "size",
            expected=f"at most {math.isqrt(MOST_PIXELS):,}, which is {MOST_PIXELS // 1_000_000} megapixels an image",
            found=f"{size:,}",
            fix="state a smaller `size:`",
        )


def refuse_beyond_room(shape: Sequence[int], folder: Path | None) -> None:
    """Raise InputError for images (n, C, H, W) with no room on the disk of that folder or, without one, in memory."""
    needed = math.prod(shape)
    free = psutil.virtual_memory().available if folder is None else shutil.disk_usage(folder).free
    if needed > free:
        count, channels, height, width = shape
        raise InputError(
            f"{count:,} images of {width}x{height} pixels and {channels} channels",
            expected=f"at most the {free:,} bytes of free {'memory' if folder is None else 'disk space'}",
            found=f"{needed:,} bytes",
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
