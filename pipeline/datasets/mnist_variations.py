"""Variations of MNIST: turned digits, digits over noise, digits over pieces of photographs.

They follow Larochelle, Erhan, Courville, Bergstra and Bengio (ICML 2007), whose files the source `amat` reads.
The same options give the same bytes on every machine: random words come from Philox (numpy promises a bit
generator's stream for ever, but not what `Generator` makes of it), and pixels are made by integer arithmetic
alone. The one thing from outside is the decoding of two JPEG files, of which only the brightness is taken, so
that neither the upsampling of colours nor their conversion matters; a decoder whose inverse cosine transform
rounds otherwise would still change a few grey levels, and with them the prepared data's fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Annotated, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, PositiveInt

from pipeline.base.errors import InputError
from pipeline.base.progress import progress_bar
from pipeline.datasets.idx import mnist
from pipeline.datasets.raw import Labels, Pixels, Place, RawDataset

Variation = Literal["basic", "rotated", "random_background", "image_background", "rotated_image_background"]
Words = NDArray[np.uint64]
Whole = NDArray[np.int64]
Backgrounds = Callable[[int], Pixels]  # the next so many backgrounds, (n, H, W)

PICTURES = ("china.jpg", "flower.jpg")  # they come with scikit-learn (`load_sample_images`)
ORDER, ANGLES, NOISE, PATCHES = range(4)  # each use of random words has a stream of its own
CHUNK = 512  # images made at a time: their temporary arrays fit the processor's cache
ANGLE_BITS = 16  # a turn has 65,536 angles; a step between them moves the furthest pixel by 0.002 pixels
COSINE_BITS = 15  # the finest at which no table entry lies near a tie: see `cosine_table`
FRACTION_BITS = 10  # of a pixel, in the weights of the interpolation
MARGIN = 2  # dark pixels around a digit, so that whatever is outside reads as dark


def mnist_variations(
    place: Place,
    *,
    variation: Variation,
    variation_seed: Annotated[int, Field(ge=0, lt=2**64)] = 0,
    train_count: PositiveInt = 12_000,
    test_count: PositiveInt = 50_000,
    least_deviation: Annotated[int, Field(ge=0, le=127)] = 20,
) -> RawDataset:
    """MNIST's digits (1, 28, 28), varied; with `validation: {first: 2000}`: 10,000 / 2,000 / 50,000.

    All 70,000 digits are shuffled by `variation_seed`; the first `train_count` are the training part, the next
    `test_count` the test part. So no digit is in two parts, and all variations of one seed have the same digits
    in the same order: a teacher of `basic` has seen no test digit of the others.

    Args:
        place: MNIST's files, as for the source `mnist` (folder `mnist` where none is stated).
        variation: `basic`: the digits as they are. `rotated`: turned around the centre by an angle uniform in
            [0, 2 pi), bilinear. `random_background`: each pixel the lighter of the digit's and a grey level
            uniform in 0..255. `image_background`: likewise over a random 28 x 28 patch of scikit-learn's two
            sample photographs, as grey (the original had twenty). `rotated_image_background`: both.
        variation_seed: of the choice and order of digits, the angles and the backgrounds.
        train_count, test_count: digits of each part.
        least_deviation: patches whose grey levels have a smaller standard deviation are not drawn (the original
            leaves such patches out too, without saying at which variance).

    Raises:
        InputError: MNIST's files, more digits than there are, or no patch of such a deviation.
    """
    folder = "mnist" if place.folder == "mnist_variations" else place.folder
    source: RawDataset = mnist(replace(place, folder=folder))
    chosen = draw_order(source, variation_seed, train_count, test_count)
    digits = np.concatenate([source.train_images, source.test_images])[chosen, 0]
    labels: Labels = np.concatenate([source.train_labels, source.test_labels])[chosen]
    images = vary_digits(digits, variation, variation_seed, least_deviation)[:, None]
    return RawDataset(
        images[:train_count], labels[:train_count], images[train_count:], labels[train_count:], source.classes
    )


def draw_order(source: RawDataset, seed: int, train_count: int, test_count: int) -> Whole:
    """(train_count + test_count,) rows of the source's two parts, shuffled."""
    total, wanted = len(source.train_labels) + len(source.test_labels), train_count + test_count
    if wanted > total:
        raise InputError(
            "train_count and test_count",
            expected=f"{total} digits at most together",
            found=f"{train_count} + {test_count} = {wanted}",
            fix="ask for fewer",
        )
    return np.argsort(random_stream(seed, ORDER).random_raw(total), kind="stable")[:wanted]


def vary_digits(digits: Pixels, variation: Variation, seed: int, least_deviation: int) -> Pixels:
    """The variation of digits (n, H, W) uint8, of which row i depends on the seed, i and digit i alone."""
    _, *shape = digits.shape
    height, width = shape
    angles = random_stream(seed, ANGLES).random_raw(len(digits)) >> np.uint64(64 - ANGLE_BITS)
    backgrounds = {
        "random_background": lambda: noise_backgrounds(seed, height, width),
        "image_background": lambda: patch_backgrounds(seed, height, width, least_deviation),
        "rotated_image_background": lambda: patch_backgrounds(seed, height, width, least_deviation),
    }
    behind = backgrounds[variation]() if variation in backgrounds else None
    made = np.empty_like(digits)
    for rows in iterate_chunks(len(digits), f"drawing {variation}"):
        images = rotate(digits[rows], angles[rows]) if variation.startswith("rotated") else digits[rows]
        made[rows] = images if behind is None else np.maximum(images, behind(len(images)))
    return made


def iterate_chunks(count: int, description: str) -> Iterator[slice]:
    """Slices that cover `count` rows in order, moving a bar."""
    with progress_bar(description, count) as bar:
        for start in range(0, count, CHUNK):
            yield slice(start, start + CHUNK)
            bar(min(start + CHUNK, count))


def random_stream(seed: int, use: int) -> np.random.Philox:
    """A generator of random 64-bit words, independent for each use."""
    return np.random.Philox(key=use << 64 | seed)


def rotate(images: Pixels, angles: Words) -> Pixels:
    """Images (n, H, W) turned counter-clockwise around their centre, dark where nothing was.

    Args:
        images: uint8.
        angles: (n,), in steps of 1 / 2^ANGLE_BITS of a turn.
    """
    count, height, width = images.shape
    table, quarter = cosine_table(), 1 << ANGLE_BITS - 2
    cosine = table[angles.astype(np.int64)][:, None, None]
    sine = table[angles.astype(np.int64) - quarter][:, None, None]  # an index below 0 counts from the end: one turn
    # Twice the distance from the centre, so that the middle between two pixels is a whole number.
    down, right = 2 * np.arange(height)[:, None] - (height - 1), 2 * np.arange(width) - (width - 1)
    y = source_coordinate(cosine * down + sine * right, height)
    x = source_coordinate(cosine * right - sine * down, width)
    padded = np.pad(images, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN))).ravel()
    row = width + 2 * MARGIN
    corner = np.arange(count)[:, None, None] * (row * (height + 2 * MARGIN))
    corner = corner + ((y >> FRACTION_BITS) + MARGIN) * row + ((x >> FRACTION_BITS) + MARGIN)
    one = 1 << FRACTION_BITS
    lower, after = (y & one - 1).astype(np.int32), (x & one - 1).astype(np.int32)
    upper, before = one - lower, one - after
    blend = upper * (before * padded[corner] + after * padded[corner + 1])
    blend += lower * (before * padded[corner + row] + after * padded[corner + row + 1])
    made: Pixels = (blend + (one * one >> 1) >> 2 * FRACTION_BITS).astype(np.uint8)
    return made


def source_coordinate(twice: Whole, size: int) -> Whole:
    """Where a pixel comes from, in units of 2^-FRACTION_BITS pixels; those outside lie in the margin.

    Args:
        twice: twice the distance from the centre, in units of 2^-COSINE_BITS pixels.
        size: of the image in this direction.
    """
    dropped = COSINE_BITS + 1 - FRACTION_BITS
    places: Whole = twice + ((size - 1) << COSINE_BITS) + (1 << dropped - 1) >> dropped
    return places.clip(-MARGIN << FRACTION_BITS, size << FRACTION_BITS)


@cache
def cosine_table() -> Whole:
    """(2^ANGLE_BITS,) cosines of a whole turn, in units of 2^-COSINE_BITS.

    Libraries' cosines differ in the last bit from machine to machine. Before they are rounded, none of these is
    nearer to a tie than 2.6e-5 units (a test looks), which is 100,000 times such an error: the table is the same
    everywhere.
    """
    turn = 1 << ANGLE_BITS
    exact = np.cos(np.arange(turn) * (2 * np.pi / turn)) * (1 << COSINE_BITS)
    table: Whole = np.rint(exact).astype(np.int64)
    return table


def noise_backgrounds(seed: int, height: int, width: int) -> Backgrounds:
    """Backgrounds whose pixels are independent and uniform in 0..255."""
    words, size = random_stream(seed, NOISE), height * width

    def behind(count: int) -> Pixels:
        drawn = words.random_raw((count, -(-size // 8))).astype("<u8")  # eight pixels a word, whatever the machine
        return drawn.view(np.uint8)[:, :size].reshape(count, height, width)

    return behind


def patch_backgrounds(seed: int, height: int, width: int, least_deviation: int) -> Backgrounds:
    """Backgrounds that are patches of the sample photographs, each eligible patch of both equally likely."""
    words = random_stream(seed, PATCHES)
    windows = [sliding_window_view(picture, (height, width)) for picture in read_photographs()]
    corners = [np.argwhere(has_texture(picture, height, width, least_deviation)) for picture in read_photographs()]
    ends = np.cumsum([len(found) for found in corners])
    if not ends[-1]:
        raise InputError(
            "least_deviation",
            expected="a deviation that some patch of the sample photographs has",
            found=str(least_deviation),
            fix="state a smaller one; the default is 20 grey levels",
        )

    def behind(count: int) -> Pixels:
        drawn = (words.random_raw(count) >> np.uint64(32)).astype(np.int64) * ends[-1] >> 32
        made = np.empty((count, height, width), np.uint8)
        for number, (views, found) in enumerate(zip(windows, corners, strict=True)):
            here = np.flatnonzero(np.searchsorted(ends, drawn, side="right") == number)
            top, left = found[drawn[here] - (ends[number] - len(found))].T
            made[here] = views[top, left]
        return made

    return behind


def read_photographs() -> Iterator[Pixels]:
    """The sample photographs' brightness, (427, 640) each, as their files hold it."""
    for name in PICTURES:
        with (resources.files("sklearn.datasets.images") / name).open("rb") as file, Image.open(file) as image:
            image.draft("L", image.size)  # decodes no colours
            yield np.asarray(image.convert("L"))


def has_texture(picture: Pixels, height: int, width: int, least_deviation: int) -> NDArray[np.bool_]:
    """Whether the patch with its upper left corner here has at least that standard deviation.

    n sum(g^2) - (sum g)^2 >= (n deviation)^2 in whole numbers, so that no rounding decides.
    """
    grey, pixels = picture.astype(np.int64), height * width
    spread = pixels * box_sums(grey**2, height, width) - box_sums(grey, height, width) ** 2
    return spread >= (pixels * least_deviation) ** 2


def box_sums(values: Whole, height: int, width: int) -> Whole:
    """The sum over each box of that size."""
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside: Whole = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    return inside
