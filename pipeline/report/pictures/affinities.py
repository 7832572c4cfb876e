"""Affinities: the teacher's P of one batch beside the Q of students that learned it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from pipeline.report.figures.style import encode_png, format_power_of_ten
from pipeline.report.pictures.canvas import PERCEPTUAL, fit_class_names
from pipeline.report.pictures.sample_choice import find_class_runs, sort_by_class

DECADES = 4  # of the colour scale, down from the largest of P
MOST_NAMES = 20  # classes that are named at the axis


def draw_affinities(
    matrices: Mapping[str, NDArray[np.floating]], labels: NDArray[np.int64], classes: Sequence[str]
) -> bytes:
    """Joint probabilities side by side, rows and columns sorted by class, on one logarithmic scale.

    Args:
        matrices: by title, (n, n), the teacher's first: it sets the scale. The diagonal means nothing.
        labels: (n,) of the batch's samples.
        classes: names, by label.
    """
    order = sort_by_class(labels)
    highest = float(next(iter(matrices.values())).max()) or 1.0
    scale = LogNorm(highest / 10**DECADES, highest)
    figure = Figure(figsize=(3.3 * len(matrices) + 0.9, 3.7), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, len(matrices), squeeze=False)[0])
    colours = mpl.colormaps[PERCEPTUAL].with_extremes(bad="#bbbbbb")
    for axes, (title, matrix) in zip(panels, matrices.items(), strict=True):
        shown = axes.imshow(sort_pairs(matrix, order, scale.vmin or 0), cmap=colours, norm=scale)
        axes.set_title(title, fontsize=9)
        _draw_class_borders(axes, labels[order], classes)
    panels[0].set_ylabel("sample i, by class")
    bar = figure.colorbar(
        shown, ax=panels, extend="both", fraction=0.04, pad=0.02, format=FuncFormatter(format_power_of_ten)
    )
    bar.set_label("joint probability of the pair (i, j)")
    return encode_png(figure)


def sort_pairs(matrix: NDArray[np.floating], order: NDArray[np.int64], least: float) -> NDArray[np.float64]:
    """The pairs (n, n) in an order of the samples (n,), at least `least` (a logarithm has no zero), NaN where i = j."""
    made = np.maximum(matrix.astype(np.float64)[np.ix_(order, order)], least * (1 - 1e-9))
    np.fill_diagonal(made, np.nan)
    return made


def _draw_class_borders(axes: Axes, labels: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Lines between classes, and their names at both axes; `labels` (n,) are sorted."""
    parts = find_class_runs(labels)
    for _, start, _ in parts[1:]:
        axes.axhline(start - 0.5, color="white", linewidth=0.6)
        axes.axvline(start - 0.5, color="white", linewidth=0.6)
    axes.grid(visible=False)
    named = parts if len(parts) <= MOST_NAMES else []
    centres = [(start + stop - 1) / 2 for _, start, stop in named]
    names = fit_class_names([classes[label] for label, _, _ in named])
    upright = max(map(len, names), default=0) > 2
    axes.set_xticks(centres, names, fontsize=7, rotation=90 if upright else 0)
    axes.set_yticks(centres, names, fontsize=7)
    axes.tick_params(length=0)
    axes.set_xlabel("sample j, by class")
