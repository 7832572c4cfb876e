"""The data set that every source becomes, and its files on disk."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.base import checked_copies
from pipeline.base.errors import InputError
from pipeline.base.files import encode_json, explain_disk_full, read_json, write_json
from pipeline.base.mapped_pages import expect_random_rows, release_pages

Split = Literal["train", "validation", "test"]
FINGERPRINT_BYTES = 16 << 20  # of images hashed at a time
FILES = ("dataset.json", "images.npy", "labels.npy", "origin.npy")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Images(Protocol):
    """Images (N, C, H, W) uint8, in memory or in a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def ndim(self) -> int: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]: ...


class ImagesFile:
    """Images that stay in their `.npy` file; each access reads its rows and keeps nothing.

    (A memory map that lives on would count every page that it has shown as this process's memory. Only `gather` has
    one, for speed: whoever calls it gives the pages back.)
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()  # it is read again wherever the process has gone
        header = self._map()
        self.shape, self.ndim, self.dtype = header.shape, header.ndim, header.dtype
        self._kept: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        return np.array(self._map()[rows])

    def gather(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images (n, C, H, W) of ids (n,) that are there, from a memory map that stays."""
        if self._kept is None:
            self._kept = self._map()
            expect_random_rows(self._kept, math.prod(self.shape[1:]))
        return np.take(np.asarray(self._kept), ids, axis=0)

    def release_pages(self) -> None:
        """Give back what `gather` has mapped into this process's memory."""
        if self._kept is not None:
            release_pages(self._kept)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the file itself."""
        return ImagesFile, (self.path,)

    def _map(self) -> NDArray[np.uint8]:
        mapped: NDArray[np.uint8] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return mapped


@dataclass(frozen=True)
class Dataset:
    """Images and labels in a fixed order; a row's number is its *sample id* everywhere.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, 0 <= label < len(classes).
        bounds: the splits lie one behind the other: train is rows [0, a), validation [a, b),
            test [b, N) for bounds (a, b).
        classes: class names, by label.
        origin: (N,) int64: the row's number in the source, whose training images come first
            and whose test images follow.
        duplicates: what is known of images that are there twice (see `prepare`); None where there are none.
        notices: lines for people, from when it was prepared; they are not kept with it.
        known_fingerprint: where it has been computed of just these arrays; else it is computed.

    Raises:
        InputError: shapes, dtypes, labels or bounds that do not fit together.
    """

    images: Images
    labels: NDArray[np.int64]
    bounds: tuple[int, int]
    classes: tuple[str, ...]
    origin: NDArray[np.int64]
    name: str = ""
    duplicates: Mapping[str, int] | None = None
    notices: tuple[str, ...] = ()
    known_fingerprint: InitVar[str | None] = None
    fingerprint: str = field(init=False)

    def __post_init__(self, known_fingerprint: str | None) -> None:
        what = f"data set {self.name!r}"
        count = len(self.images)
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise InputError(
                what, expected="uint8 images (N, C, H, W)", found=f"{self.images.dtype} {self.images.shape}"
            )
        if self.labels.shape != (count,) or self.labels.dtype != np.int64:
            raise InputError(what, expected=f"{count} int64 labels", found=f"{self.labels.dtype} {self.labels.shape}")
        if self.origin.shape != (count,) or self.origin.dtype != np.int64:
            raise InputError(
                what, expected=f"{count} int64 rows of origin", found=f"{self.origin.dtype} {self.origin.shape}"
            )
        if not 0 < self.bounds[0] <= self.bounds[1] <= count:
            raise InputError(
                what, expected="at least one training image", found=f"splits that end at {(*self.bounds, count)}"
            )
        if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            raise InputError(
                what,
                expected=f"labels in 0..{len(self.classes) - 1}",
                found=f"{self.labels.min()}..{self.labels.max()}",
            )
        found = known_fingerprint or compute_fingerprint(self.images, self.labels, self.bounds, len(self.classes))
        object.__setattr__(self, "fingerprint", found)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def rows(self, split: Split) -> slice:
        """The sample ids of a split, as a slice."""
        ends = (0, *self.bounds, len(self))
        index = SPLITS.index(split)
        return slice(ends[index], ends[index + 1])

    def card(self) -> dict[str, Any]:
        """What a reader without the pixels needs to know, as JSON."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "samples": len(self),
            "shape": list(self.shape),
            "bounds": list(self.bounds),
            "classes": list(self.classes),
            "origin_sha256": hashlib.sha256(np.ascontiguousarray(self.origin.astype("<i8"))).hexdigest(),
            **({} if self.duplicates is None else {"duplicates": dict(self.duplicates)}),
        }


class Fingerprint:
    """SHA-256 over pixels, labels, their order, the split and the number of classes: two equal ones train alike."""

    def __init__(self, shape: tuple[int, ...], bounds: tuple[int, int], classes: int) -> None:
        header = {"shape": list(shape), "bounds": list(bounds), "classes": classes}
        self._digest = hashlib.sha256(encode_json(header))

    def add(self, images: NDArray[np.uint8]) -> None:
        """Take in the next images (k, C, H, W)."""
        self._digest.update(np.ascontiguousarray(images))

    def finish(self, labels: NDArray[np.int64]) -> str:
        """In hexadecimal, once all images have been taken in."""
        self._digest.update(np.ascontiguousarray(labels.astype("<i8")))
        return self._digest.hexdigest()


def compute_fingerprint(images: Images, labels: NDArray[np.int64], bounds: tuple[int, int], classes: int) -> str:
    """The `Fingerprint` of images that are all there."""
    found = Fingerprint(images.shape, bounds, classes)
    rows = max(1, FINGERPRINT_BYTES // max(1, math.prod(images.shape[1:])))
    for start in range(0, len(images), rows):
        found.add(images[start : start + rows])
    return found.finish(labels)


def hold_images(shape: tuple[int, ...], pieces: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Images of that shape (N, C, H, W) in memory, put together from pieces (k, C, H, W)."""
    images, start = np.empty(shape, np.uint8), 0
    for piece in pieces:
        images[start : start + len(piece)] = piece
        start += len(piece)
    return images


def write_images(path: Path, shape: tuple[int, ...], pieces: Iterable[NDArray[np.uint8]]) -> ImagesFile:
    """Write images of that shape (N, C, H, W) as one `.npy` file, a piece (k, C, H, W) at a time.

    (Not through a memory map: a full disk would end the process there.)

    Raises:
        DiskFullError: they do not fit; an OSError.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with explain_disk_full(path.parent, math.prod(shape)), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(memoryview(np.ascontiguousarray(piece)).cast("B"))
    return ImagesFile(path)


def save_dataset(dataset: Dataset, folder: Path) -> None:
    """Write `images.npy` (if that is not where the images are), `labels.npy`, `origin.npy` and, last, `dataset.json`.

    Raises:
        DiskFullError: it does not fit; an OSError.
    """
    labels, origin = dataset.labels.astype("<i8"), dataset.origin.astype("<i8")
    with explain_disk_full(folder, math.prod(dataset.images.shape) + labels.nbytes + origin.nbytes):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dataset.json").unlink(missing_ok=True)
        if not lies_at(dataset.images, folder / "images.npy"):
            np.save(folder / "images.npy", dataset.images[:], allow_pickle=False)
        np.save(folder / "labels.npy", labels, allow_pickle=False)
        np.save(folder / "origin.npy", origin, allow_pickle=False)
        write_json(folder / "dataset.json", dataset.card())


def gather_images(images: Images, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The images (n, C, H, W) of ids (n,) that are there, wherever they lie."""
    if isinstance(images, ImagesFile):
        return images.gather(ids)
    return np.asarray(images[ids])


def lies_at(images: Images, path: Path) -> bool:
    """Whether images are those of this very file."""
    return isinstance(images, ImagesFile) and images.path == path.absolute()


def load_dataset(folder: Path | str, *, resident: bool = True) -> Dataset:
    """Read what `save_dataset` wrote; all of it is hashed where this copy has not been, or was touched since.

    Args:
        folder: of the prepared data.
        resident: hold the images in memory; else they are read from their file, rows at a time.

    Raises:
        InputError: no prepared data there, or its bytes are not those that were prepared.
    """
    folder = Path(folder)
    fix = f"run `teachercache prepare {folder.name}`"
    card = read_json(folder / "dataset.json", fix)
    try:
        seen = checked_copies.compute_signature(folder, FILES, "")
        labels, origin = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("labels", "origin"))
        path = folder / "images.npy"
        images: Images = np.load(path, allow_pickle=False) if resident else ImagesFile(path)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:
        raise InputError(f"prepared data in {folder}", expected="whole .npy files", found=str(error), fix=fix) from None
    checked = checked_copies.is_remembered(folder, seen)
    try:
        bounds, classes = tuple(card["bounds"]), tuple(card["classes"])
        known = card["fingerprint"] if checked else None
        dataset = Dataset(
            images, labels, bounds, classes, origin, card["name"], card.get("duplicates"), known_fingerprint=known
        )
        differing = [key for key, value in dataset.card().items() if card[key] != value]
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise InputError(
            f"{folder / 'dataset.json'}", expected="the card of a data set", found=repr(error), fix=fix
        ) from None
    if differing:
        key = differing[0]
        raise InputError(
            f"prepared data in {folder}", expected=f"{key} {card[key]}", found=str(dataset.card()[key]), fix=fix
        )
    if not checked:
        checked_copies.remember_copy(folder, seen)
    return dataset
