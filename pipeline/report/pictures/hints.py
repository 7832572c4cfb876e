"""Hints: a few channels of maps beside the images, or the units of vectors as one heat map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.report.figures.style import encode_png
from pipeline.report.pictures.canvas import (
    PERCEPTUAL,
    choose_colours,
    create_sheet,
    draw_image,
    fit_class_names,
    locate_cell,
)
from pipeline.report.pictures.sample_choice import find_class_runs


def draw_maps(
    images: NDArray[np.uint8], activations: NDArray[np.floating], names: Sequence[str], channels: Sequence[int]
) -> bytes:
    """A row for each sample: the image, then its map in each channel, all on one scale.

    Args:
        images: (n, C, H, W).
        activations: (n, k, h, w), the channels to show.
        names: (n,) classes of the samples.
        channels: (k,) their numbers in the network.
    """
    palette, scale = choose_colours(activations)
    sides = [images.shape[2:], *[activations.shape[2:]] * len(channels)]
    widths = [width / height for height, width in sides]
    figure, axes = create_sheet(
        ["image", *(f"channel {channel}" for channel in channels)], fit_class_names(names), widths, 1.0
    )
    for row, (pixels, values) in enumerate(zip(images, activations.astype(np.float32), strict=True)):
        draw_image(axes, pixels, locate_cell(row, 0, widths))
        for column, value in enumerate(values, start=1):
            where = locate_cell(row, column, widths)
            axes.imshow(value, cmap=palette, norm=scale, extent=where, interpolation="nearest")
    bar = figure.colorbar(ScalarMappable(scale, palette), ax=axes, fraction=0.03, pad=0.01, extend=_beyond(scale.vmin))
    bar.set_label("activation")
    return encode_png(figure)


def draw_vectors(activations: NDArray[np.floating], labels: NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """A heat map, samples by units.

    Args:
        activations: (n, d), the units in the order to show.
        labels: (n,), sorted.
        classes: names, by label.
    """
    palette, scale = choose_colours(activations)
    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(
        activations.astype(np.float32), cmap=palette, norm=scale, aspect="auto", interpolation="nearest"
    )
    _class_rows(axes, labels, classes, "white" if palette == PERCEPTUAL else "black")
    axes.set(xlabel=f"unit ({activations.shape[1]}), by the class that it is strongest for", ylabel="sample, by class")
    axes.set_xticks([])
    bar = figure.colorbar(shown, ax=axes, fraction=0.03, pad=0.01, extend=_beyond(scale.vmin))
    bar.set_label("activation")
    return encode_png(figure)


def _class_rows(axes: Axes, labels: NDArray[np.int64], classes: Sequence[str], colour: str) -> None:
    """Lines between the rows of classes, and their names."""
    parts = find_class_runs(labels)
    for _, start, _ in parts[1:]:
        axes.axhline(start - 0.5, color=colour, linewidth=0.6)
    axes.grid(visible=False)
    names = fit_class_names([classes[label] for label, _, _ in parts])
    axes.set_yticks([(start + stop - 1) / 2 for _, start, stop in parts], names, fontsize=8)
    axes.tick_params(length=0)


def _beyond(least: float | None) -> str:
    """Which ends of the scale some values lie beyond."""
    return "both" if least else "max"
