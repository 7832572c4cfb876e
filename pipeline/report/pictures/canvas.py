"""What all pictures agree on: colours, frames without ticks, images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.report.figures.style import find_spelled_names, fit_names

PERCEPTUAL = "viridis"  # even steps, and safe for the colour-blind
DIVERGING = "PuOr"
HIGHLIGHT = "#d55e00"  # vermilion of the palette of Okabe and Ito
NAME_LENGTH = 12  # of a class, where it stands beside others
GAP = 0.1  # between the cells of a sheet, whose height is 1


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    Attributes:
        name: of its file.
        caption: one line, what it shows.
        png: the file's bytes.
    """

    name: str
    caption: str
    png: bytes


def hide_axes(axes: Axes) -> None:
    """No grid, no ticks, no frame: what it shows has no scale."""
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def create_sheet(
    titles: Sequence[str], names: Sequence[str], widths: Sequence[float], height: float
) -> tuple[Figure, Axes]:
    """An empty sheet of cells, an inch high each; hundreds of axes would take seconds.

    Args:
        titles: of the columns.
        names: of the rows.
        widths: of the columns, as many times the height of a cell.
        height: of a cell, in inches.
    """
    ends = np.cumsum([width + GAP for width in widths])
    figure = Figure(figsize=(height * ends[-1] + 0.6, (height * (1 + GAP)) * len(names) + 0.3))
    axes = figure.add_axes((0, 0, 1, 1))
    hide_axes(axes)
    axes.set(xlim=(0, ends[-1]), ylim=((1 + GAP) * len(names), 0), aspect="equal")
    for end, width, title in zip(ends, widths, titles, strict=True):
        axes.text(end - GAP - width / 2, -GAP / 2, title, ha="center", va="bottom", fontsize=9)
    for row, name in enumerate(names):
        axes.text(-GAP, row * (1 + GAP) + 0.5, name, ha="right", va="center", fontsize=9)
    return figure, axes


def locate_cell(row: int, column: int, widths: Sequence[float]) -> tuple[float, float, float, float]:
    """Where a cell of a sheet lies: left, right, bottom, top."""
    left, top = sum(widths[:column]) + GAP * column, row * (1 + GAP)
    return left, left + widths[column], top + 1, top


def draw_image(axes: Axes, pixels: NDArray[np.uint8], where: tuple[float, float, float, float]) -> None:
    """Draw one image (C, H, W): in colour where it has three channels, else its first, as grey."""
    if len(pixels) == 3:
        axes.imshow(pixels.transpose(1, 2, 0), extent=where, interpolation="nearest")
    else:
        axes.imshow(pixels[0], cmap="gray", vmin=0, vmax=255, extent=where, interpolation="nearest")


def choose_colours(values: NDArray[np.floating]) -> tuple[str, Normalize]:
    """Colour map and scale of activations, up to their 99.5th percentile: around zero where some are below it."""
    if values.min() < 0:
        limit = float(np.percentile(np.abs(values), 99.5)) or 1.0
        return DIVERGING, Normalize(-limit, limit)
    return PERCEPTUAL, Normalize(0, float(np.percentile(values, 99.5)) or 1.0)


def fit_class_names(names: Sequence[str]) -> list[str]:
    """Class names that fit beside each other."""
    return fit_names(names, NAME_LENGTH)


def describe_spelled_letters(names: Iterable[str]) -> Iterator[str]:
    """A line for the report where class names have letters that pictures cannot show."""
    if found := find_spelled_names(dict.fromkeys(names)):
        shown = ", ".join(fit_names(found[:3])) + (", ..." if len(found) > 3 else "")
        yield f"Pictures spell letters that their font lacks, in {len(found)} class names: {shown}."
