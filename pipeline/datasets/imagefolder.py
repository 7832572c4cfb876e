"""Your own images: `train/<class>/<image>` and `test/<class>/<image>`, in folders or in zips."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.datasets.raw import Labels, Pixels, Place, Raw, as_labels, fit
from pipeline.errors import InputError
from pipeline.progress import track

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
# What damaged images and damaged, encrypted or unsupported zip members raise (RuntimeError: encrypted).
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    Image.DecompressionBombError,
)
DECODERS = 4  # threads; Pillow decodes without holding the interpreter's lock


@dataclass(frozen=True)
class Picture:
    """One image file: its path inside the data set, and how to read its bytes."""

    path: PurePosixPath
    where: str
    read: Callable[[], bytes]


def imagefolder(
    place: Place,
    *,
    train_folder: str = "train",
    test_folder: str | None = "test",
    size: int | None = None,
    grey: bool = False,
) -> Raw:
    """Images in one folder a class, named by the folder, in the order of their names.

    Args:
        place: a folder with the two parts below, one or several zips that hold them, or one zip.
        train_folder: the folder with the training classes; "." if they lie at the top.
        test_folder: likewise for the test images (`val`, say); null if there are none, and
            `folds` is to make them.
        size: images of other sizes are resized (shorter side) and cropped (centre) to this.
        grey: one channel in place of three.

    Raises:
        InputError: a part or class is missing, an image cannot be read or has another size.
    """
    root = place.find()
    parts = {folder for folder in (train_folder, test_folder) if folder}
    pictures = sorted(_pictures(root, parts), key=lambda picture: (picture.path.as_posix(), picture.where))
    for picture, following in pairwise(pictures):
        if picture.path == following.path:
            raise InputError(
                f"image folder {root}",
                expected="each image once",
                found=f"{picture.where} and {following.where}",
                fix="keep the zip or the folder, not both",
            )
    train = _by_class(pictures, train_folder, root)
    test = _by_class(pictures, test_folder, root) if test_folder else {}
    if test and test.keys() != train.keys():
        differing = ", ".join(sorted(train.keys() ^ test.keys()))
        raise InputError(
            f"image folder {root}",
            expected=f"the same class folders in {train_folder} and {test_folder}",
            found=f"only in one of them: {differing}",
            fix="rename or add the folders",
        )
    classes = tuple(train)
    train_images, train_labels = _decode(train, size, grey)
    test_images, test_labels = _decode(test, size, grey) if test else (train_images[:0], train_labels[:0])
    if test_images.shape[1:] != train_images.shape[1:]:
        raise InputError(
            f"image folder {root}",
            expected=f"test images of {train_images.shape[2:]} like the training images",
            found=str(test_images.shape[2:]),
            fix="state `size:`",
        )
    return Raw(train_images, train_labels, test_images, test_labels, classes)


def _pictures(root: Path, parts: set[str]) -> list[Picture]:
    zips = [root] if root.is_file() else sorted(root.glob("*.zip"))
    found = [picture for path in zips for picture in _in_zip(path, parts)]
    if root.is_dir():
        found += [
            Picture(PurePosixPath(path.relative_to(root).as_posix()), str(path), path.read_bytes)
            for path in root.rglob("*")
            if path.is_file()
        ]
    return [picture for picture in found if _is_image(picture.path)]


def _in_zip(path: Path, parts: set[str]) -> list[Picture]:
    """The pictures of a zip; `train.zip` may hold the classes of `train` at its top."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise InputError(str(path), expected="a whole zip file", found=str(error), fix="fetch it again") from None
    inside = any(parts & set(PurePosixPath(name).parts) for name in archive.namelist())
    top = PurePosixPath(path.stem if path.stem in parts and not inside else "")
    # `name=name` binds each name now; the archive stays open for as long as one of them lives.
    return [
        Picture(top / name, f"{path}:{name}", lambda name=name: archive.read(name))  # type: ignore[misc]
        for name in archive.namelist()
    ]


def _is_image(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _by_class(pictures: list[Picture], folder: str, root: Path) -> dict[str, list[Picture]]:
    """The pictures of one part by class, classes in the order of their names."""
    classes: dict[str, list[Picture]] = {}
    for picture in pictures:
        parts = picture.path.parts
        start = 0 if folder == "." else (parts.index(folder) + 1 if folder in parts else len(parts))
        if len(parts) >= start + 2:
            classes.setdefault(parts[start], []).append(picture)
    if not classes:
        raise InputError(
            f"image folder {root}",
            expected=f"images in {folder}/<class>/",
            found="none",
            fix="lay them out so, zip them so, or set `train_folder:` and `test_folder:`",
        )
    return dict(sorted(classes.items()))


def _decode(classes: dict[str, list[Picture]], size: int | None, grey: bool) -> tuple[Pixels, Labels]:
    pictures = [picture for members in classes.values() for picture in members]
    labels = [label for label, members in enumerate(classes.values()) for _ in members]
    first = _read(pictures[0], size, grey)
    images = np.empty((len(pictures), *first.shape), np.uint8)
    with ThreadPoolExecutor(DECODERS) as threads:
        decoded = threads.map(lambda picture: _read(picture, size, grey), pictures)
        for row, pixels in enumerate(track(decoded, "images", len(pictures))):
            if pixels.shape != first.shape:
                raise InputError(
                    pictures[row].where,
                    expected=f"{first.shape[2]}x{first.shape[1]} pixels like {pictures[0].where}",
                    found=f"{pixels.shape[2]}x{pixels.shape[1]}",
                    fix="state `size:` to have all images resized",
                )
            images[row] = pixels
    return images, as_labels(labels)


def _read(picture: Picture, size: int | None, grey: bool) -> Pixels:
    try:
        with Image.open(io.BytesIO(picture.read())) as image:
            return fit(image, size, grey=grey)
    except UNREADABLE as error:
        # Pillow's own words for this name the buffer's address in memory.
        found = "no format that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(
            picture.where,
            expected="an image",
            found=found or "a file that ends too early",
            fix="remove the file or replace it",
        ) from None
