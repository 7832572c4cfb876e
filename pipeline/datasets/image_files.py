"""Which files are images, and how they are read: one rule for data sets and for `predict`.

An image is whatever Pillow identifies. What is none is left out, and said; what bears an image's suffix and is none is
refused.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

from PIL import Image, UnidentifiedImageError

from pipeline.base.errors import InputError, join_names
from pipeline.datasets.file_trees import DAMAGED, DENIED, LEAVE_OUT, File
from pipeline.datasets.raw import MOST_PIXELS, Pixels

DECODERS = min(4, os.cpu_count() or 1)  # threads; Pillow decodes without holding the interpreter's lock
AHEAD = 2 * DECODERS  # pieces of work that threads are given before their turn
HUGE_PIXELS = 89_478_485  # from here on Pillow warns: a quarter of a GiB
MOST_BYTES = (MOST_PIXELS << 2) + (1 << 20)  # of a file: such an image as it is, with its transparency, and a header
READ_PIECE = 1 << 16  # bytes
# Pillow identifies these, but decodes no pixels, or runs a program from outside for them.
WITHOUT_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
FAINT = {"DIB"}  # its signature is a small number, which other files begin with too
PLUG_INS = {".heic", ".heif", ".hif", ".avif", ".avifs", ".jxl"}  # images, but not every Pillow reads them
ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
# What damaged images raise, and their bytes in damaged zips.
UNREADABLE = (
    *DAMAGED,
    SyntaxError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    MemoryError,
    TypeError,
    Image.DecompressionBombError,
)


@cache
def _known_formats() -> tuple[tuple[str, ...], dict[str, str]]:
    """The formats that Pillow knows by a file's first bytes, and the format of each image's suffix."""
    Image.preinit()  # the common formats come first
    Image.init()
    taken = {name: accept for name, (_, accept) in Image.OPEN.items() if name not in WITHOUT_PIXELS}
    known = tuple(name for name in Image.ID if taken.get(name) is not None and name not in FAINT)
    return known, {suffix: name for suffix, name in Image.EXTENSION.items() if name in taken}


def possible_formats(file: File) -> tuple[str, ...]:
    """The formats that a file may have: those without a signature only where its suffix says so."""
    known, suffixes = _known_formats()
    own = suffixes.get(file.path.suffix.lower())
    return known if own is None or own in known else (*known, own)


def is_image(file: File) -> bool:
    """Whether a file is taken for an image: its suffix says so, or Pillow recognises how it begins.

    Raises:
        InputError: it cannot be opened.
    """
    suffix = file.path.suffix.lower()
    if suffix in _known_formats()[1] or suffix in PLUG_INS:
        return True
    try:
        opened = file.open()
    except UNREADABLE as error:
        raise _describe_unreadable(file, error) from None
    with opened, _limit_pixels():
        try:
            Image.open(opened, formats=possible_formats(file)).close()
        except Image.DecompressionBombError:
            return True
        except UNREADABLE:
            return False
    return True


def separate_images(files: Iterable[File]) -> tuple[list[File], list[File]]:
    """Those that are images, and those that are none (see `is_image`)."""
    images: list[File] = []
    others: list[File] = []
    for file in files:
        (images if is_image(file) else others).append(file)
    return images, others


@contextmanager
def _limit_pixels() -> Iterator[None]:
    """Let Pillow refuse images beyond our limit, and not warn of those below it: `Decoder` says it in one line.

    Nor of anything else. (The filters are the whole process's: they are set around the threads, never in one.)
    """
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MOST_PIXELS // 2  # it refuses from twice that on
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of damaged metadata, say
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


@dataclass(frozen=True)
class Decoder:
    """Reads images, a few at a time; huge ones one at a time.

    Attributes:
        huge: what messages call the images of more than `HUGE_PIXELS` that were read.
    """

    huge: set[str] = field(default_factory=set)
    _one: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def threads(self) -> Iterator[ThreadPoolExecutor]:
        """Threads in which `read` may be called."""
        with _limit_pixels(), ThreadPoolExecutor(DECODERS) as threads:
            yield threads

    def read(self, file: File, make: Callable[[Image.Image], Pixels]) -> Pixels:
        """What `make` makes of a file's image.

        Raises:
            InputError: no image, a damaged one, one of more than `MOST_PIXELS`, or one that `make` cannot take.
        """
        try:
            with Image.open(_read_all(file), formats=possible_formats(file)) as image:
                if image.width * image.height <= HUGE_PIXELS:
                    return make(image)
                self.huge.add(file.where)
                with self._one:
                    return make(image)
        except UNREADABLE as error:
            raise _describe_unreadable(file, error) from None

    def notices(self) -> list[str]:
        """A line on huge images among those read, if there are any."""
        if not self.huge:
            return []
        have, take = ("images have", "take") if len(self.huge) > 1 else ("image has", "takes")
        count = f"{len(self.huge)} {have} more than {HUGE_PIXELS // 1_000_000} megapixels"
        return [f"{count} and {take} long to read: {join_names(sorted(self.huge))}"]


def _read_all(file: File) -> io.BytesIO:
    """A file's bytes, piece by piece: one in a zip may unpack without end."""
    data = io.BytesIO()
    with file.open() as opened:
        while piece := opened.read(READ_PIECE):
            data.write(piece)
            if data.tell() > MOST_BYTES:
                raise ValueError(f"a file of more than {MOST_BYTES:,} bytes")
            if len(piece) < READ_PIECE:  # the last one
                break
    data.seek(0)
    return data


def _describe_unreadable(file: File, error: BaseException) -> InputError:
    expected, fix = "an image", LEAVE_OUT
    if isinstance(error, UnidentifiedImageError):
        found = "no format that Pillow knows"  # its own words name an object in memory
        if file.path.suffix.lower() in ARCHIVES:
            found, fix = "an archive", "unpack it"
        elif file.path.suffix.lower() in PLUG_INS:
            found, fix = "no format that this Pillow reads", "convert it to JPEG or PNG, or leave it out"
    elif isinstance(error, Image.DecompressionBombError):
        expected, found = f"an image of at most {MOST_PIXELS // 1_000_000} megapixels", "a larger one"
        fix = "make it smaller or leave it out"
    elif isinstance(error, PermissionError):
        found, fix = DENIED
    else:
        found = str(error) or "a file that ends too early"
    return InputError(file.where, expected=expected, found=found, fix=fix)


def describe_left_out(files: Sequence[File]) -> str:
    """A count of files that are no images, with a few of their names."""
    count = f"{len(files)} files that are no images" if len(files) > 1 else "a file that is no image"
    return f"{count} ({join_names(sorted(file.where for file in files))})"
