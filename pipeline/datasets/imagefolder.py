"""Your own images: `train/<class>/<image>` and `test/<class>/<image>`, in folders or in zips."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.base.errors import InputError
from pipeline.base.progress import track
from pipeline.datasets.class_folders import Classes, find_classes, find_part
from pipeline.datasets.file_trees import Tree, read_zip, walk_folder
from pipeline.datasets.image_files import Decoder
from pipeline.datasets.raw import Labels, Pixels, Place, RawDataset, as_labels, fit_image, refuse_beyond_memory


def imagefolder(
    place: Place,
    *,
    train_folder: Annotated[str, Field(min_length=1)] = "train",
    test_folder: str | None = "test",
    size: int | None = None,
    grey: bool = False,
) -> RawDataset:
    """Images in one folder a class, named by the folder, in the order of their names.

    Args:
        place: a folder with the two parts below, one or several zips that hold them, or one zip.
        train_folder: the folder with the training classes, wherever it lies; `images/train` where `train` alone
            would mean several; "." if the classes lie at the top.
        test_folder: likewise for the test images (`val`, say); null if there are none, and
            `folds` is to make them.
        size: images of other sizes are resized (shorter side) and cropped (centre) to this.
        grey: one channel in place of three.

    Raises:
        InputError: both parts are the same folder, a part or class is missing or lies at two places (see
            `class_folders.find_classes`), a file or folder cannot be read (see `file_trees` and `image_files`), an
            image has another size, or all of them exceed the memory.
    """
    train_folder, test_folder = _normalise_parts(train_folder, test_folder)
    root = place.find()
    parts = list(dict.fromkeys(part for part in (train_folder, test_folder) if part))
    decoder = Decoder()
    with ExitStack() as held:
        found, notices = find_classes(root, list(_read_trees(root, parts, held)), parts)
        train, test = found[train_folder], found[test_folder] if test_folder else {}
        if size is not None:
            count = sum(len(files) for part in (train, test) for files in part.values())
            refuse_beyond_memory((count, 1 if grey else 3, size, size))
        train_images, train_labels = _decode(train, size, grey, decoder)
        test_images, test_labels = _decode(test, size, grey, decoder) if test else (train_images[:0], train_labels[:0])
    if test_images.shape[1:] != train_images.shape[1:]:
        raise InputError(
            f"image folder {root}",
            expected=f"test images of {train_images.shape[2:]} like the training images",
            found=str(test_images.shape[2:]),
            fix="state `size:`",
        )
    return RawDataset(
        train_images,
        train_labels,
        test_images,
        test_labels,
        tuple(train),
        tuple(file.where for part in (train, test) for files in part.values() for file in files),
        (*notices, *decoder.notices()),
    )


def _normalise_parts(train_folder: str, test_folder: str | None) -> tuple[str, str | None]:
    """The parts' folders as they are compared; raises InputError where both are the same."""
    train, test = posixpath.normpath(train_folder), posixpath.normpath(test_folder) if test_folder else None
    if train == test:
        raise InputError(
            "test_folder",
            expected="another folder than `train_folder:`",
            found=f"{test} for both, so that training images would be tested on",
            fix="name the folder of the test images, or state `test_folder: null` and `folds:`",
        )
    return train, test


def _read_trees(root: Path, parts: Sequence[str], held: ExitStack) -> Iterator[Tree]:
    """The folder, and the zips that lie in it; `train.zip` may hold the classes of `train` at its top."""
    folder = walk_folder(root, str(root)) if root.is_dir() else None
    in_folder = [file.path for file in folder.files if len(file.path.parts) == 1] if folder else []
    zips = [path for path in in_folder if path.suffix.lower() == ".zip" and (root / path).is_file()]
    for path in [root / path for path in sorted(zips)] if folder else [root]:
        tree = read_zip(path, held)
        holds_parts = any(find_part(inside, [part for part in parts if part != "."]) for inside in tree.folders)
        yield tree.nest_under(path.stem) if path.stem in parts and not holds_parts else tree
    if folder:
        yield replace(folder, files=tuple(file for file in folder.files if file.path not in zips))


def _decode(classes: Classes, size: int | None, grey: bool, decoder: Decoder) -> tuple[Pixels, Labels]:
    files = [file for members in classes.values() for file in members]
    labels = [label for label, members in enumerate(classes.values()) for _ in members]
    with decoder.threads() as threads:
        decoded = threads.map(lambda file: decoder.read(file, lambda image: fit_image(image, size, grey=grey)), files)
        for row, pixels in enumerate(track(decoded, "images", len(files))):
            if row == 0:
                refuse_beyond_memory((len(files), *pixels.shape))
                images = np.empty((len(files), *pixels.shape), np.uint8)
            if pixels.shape != images.shape[1:]:
                raise InputError(
                    files[row].where,
                    expected=f"{images.shape[3]}x{images.shape[2]} pixels like {files[0].where}",
                    found=f"{pixels.shape[2]}x{pixels.shape[1]}",
                    fix="state `size:` to have all images resized",
                )
            images[row] = pixels
    return images, as_labels(labels)
