"""Multi-channel labels: each image beside one small tile of bits for each class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from pipeline.report.figures.style import encode_png
from pipeline.report.pictures.canvas import HIGHLIGHT, create_sheet, draw_image, fit_class_names, locate_cell
from pipeline.report.pictures.sample_choice import choose_tile_shape


def draw_bits(images: NDArray[np.uint8], bits: NDArray[np.uint8], true: Sequence[int], classes: Sequence[str]) -> bytes:
    """A row for each sample: the image, then a tile a class, dark where a channel votes for it.

    Args:
        images: (n, C, H, W).
        bits: (n, classes, K), 0 or 1.
        true: (n,) the samples' classes, which are framed.
        classes: names of the bits' classes.
    """
    shape = choose_tile_shape(bits.shape[2])
    # A row of channels becomes stripes, so that ten classes fit a page.
    widths = [images.shape[3] / images.shape[2], *[min(shape[1] / shape[0], 1.5)] * bits.shape[1]]
    names = fit_class_names(classes)
    figure, axes = create_sheet(["image", *names], [""] * len(images), widths, 0.85)
    for row, (pixels, tiles, label) in enumerate(zip(images, bits, true, strict=True)):
        draw_image(axes, pixels, locate_cell(row, 0, widths))
        for place, tile in enumerate(tiles):
            _draw_tile(axes, tile.reshape(shape), locate_cell(row, place + 1, widths), framed=place == label)
    return encode_png(figure)


def unpack_label_bits(packed: NDArray[np.uint8], classes: int, channels: int) -> NDArray[np.uint8]:
    """Bits (n, classes, channels) of cached rows (n, bytes), class by class, the highest bit first."""
    return np.unpackbits(packed, axis=1, count=classes * channels).reshape(-1, classes, channels)


def _draw_tile(axes: Axes, bits: NDArray[np.uint8], where: tuple[float, float, float, float], *, framed: bool) -> None:
    """One class's bits (rows, columns); the true class has a thick frame."""
    axes.imshow(bits, cmap="Greys", vmin=0, vmax=1.25, extent=where, interpolation="nearest")
    left, right, bottom, top = where
    edge, width = (HIGHLIGHT, 3.0) if framed else ("#aaaaaa", 0.8)
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=edge, linewidth=width))
