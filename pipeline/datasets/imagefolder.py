"""Your own images: `train/<class>/<image>` and `test/<class>/<image>`, in folders or in zips."""

from __future__ import annotations

import gc
import posixpath
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from pipeline.base.errors import InputError
from pipeline.base.threads import map_ahead
from pipeline.datasets.class_folders import Classes, find_classes, find_part
from pipeline.datasets.file_trees import File, Tree, read_zip, walk_folder
from pipeline.datasets.image_files import AHEAD, Decoder
from pipeline.datasets.raw import Labels, Pixels, Place, Rows, Shape, cut_rows, fit_image


def imagefolder(
    place: Place,
    *,
    train_folder: Annotated[str, Field(min_length=1)] = "train",
    test_folder: str | None = "test",
    size: int | None = None,
    grey: bool = False,
) -> FolderDataset:
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
            `class_folders.find_classes`), or a file or folder cannot be read (see `file_trees` and `image_files`).
    """
    train_folder, test_folder = _normalise_parts(train_folder, test_folder)
    root = place.find()
    parts = list(dict.fromkeys(part for part in (train_folder, test_folder) if part))
    with ExitStack() as held, _pause_collector():
        found, notices = find_classes(root, list(_read_trees(root, parts, held)), parts)
        train, test = found[train_folder], found[test_folder] if test_folder else {}
        decoder = Decoder()
        threads = held.enter_context(decoder.threads())
        files = [file for part in (train, test) for members in part.values() for file in members]
        labels = _number_classes(train), _number_classes(test)
        form = Form(size, grey)
        return FolderDataset(root, files, *labels, tuple(train), tuple(notices), form, decoder, threads, held.pop_all())


@dataclass(frozen=True)
class Form:
    """What is made of each image (see `raw.fit_image`)."""

    size: int | None
    grey: bool

    def fit(self, image: Image.Image) -> Pixels:
        """The pixels (C, H, W) of an image."""
        return fit_image(image, self.size, grey=self.grey)


@dataclass(frozen=True)
class FolderDataset:
    """Images in files, of which those that are asked for are decoded (see `raw.Source`).

    Attributes:
        root: what messages call the data set.
        files: of the images, by row.
        left_out: lines on files that are no images.
        threads: in which images are decoded.
        held: closes the threads and the zips.
    """

    root: Path
    files: Sequence[File]
    train_labels: Labels
    test_labels: Labels
    classes: tuple[str, ...]
    left_out: tuple[str, ...]
    form: Form
    decoder: Decoder
    threads: ThreadPoolExecutor
    held: ExitStack

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines for people, on huge images too as far as they have been read."""
        return (*self.left_out, *self.decoder.notices())

    def name_of(self, row: int) -> str:
        """What messages call an image."""
        return self.files[row].where

    def find_shape(self, row: int) -> Shape:
        """(C, H, W) of an image, which is read where its file alone tells."""
        if self.form.size is not None:
            return 1 if self.form.grey else 3, self.form.size, self.form.size
        channels, height, width = self._decode(row).shape
        return channels, height, width

    def read(self, rows: Rows, shape: Shape) -> Iterator[Pixels]:
        """The images of some rows, in their order, in pieces (k, C, H, W).

        Raises:
            InputError: an image cannot be read, or is not of that shape, which the first one has.
        """

        def decode_piece(piece: Rows) -> Pixels:
            images = np.empty((len(piece), *shape), np.uint8)
            for place, row in enumerate(piece.tolist()):
                pixels = self._decode(row)
                if pixels.shape != shape:
                    raise self._describe_other_size(row, pixels.shape, int(rows[0]), shape)
                images[place] = pixels
            return images

        return map_ahead(self.threads, decode_piece, cut_rows(rows, shape), AHEAD)

    def _decode(self, row: int) -> Pixels:
        return self.decoder.read(self.files[row], self.form.fit)

    def _describe_other_size(self, row: int, found: tuple[int, ...], first: int, shape: Shape) -> InputError:
        """The error for an image that is not of the first one's shape (C, H, W)."""
        if first < len(self.train_labels) <= row:
            what = f"image folder {self.root}"
            expected = f"test images of {shape[1:]} like the training images"
            return InputError(what, expected=expected, found=f"{found[1:]} in {self.name_of(row)}", fix="state `size:`")
        return InputError(
            self.name_of(row),
            expected=f"{shape[2]}x{shape[1]} pixels like {self.name_of(first)}",
            found=f"{found[2]}x{found[1]}",
            fix="state `size:` to have all images resized",
        )

    def close(self) -> None:
        """End the threads, close the zips."""
        self.held.close()


@contextmanager
def _pause_collector() -> Iterator[None]:
    """Let Python not look for garbage: it would search through all files that are listed, again and again."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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


def _number_classes(classes: Classes) -> Labels:
    """(n,): the label of each image of a part."""
    return np.repeat(np.arange(len(classes)), [len(members) for members in classes.values()]).astype(np.int64)
