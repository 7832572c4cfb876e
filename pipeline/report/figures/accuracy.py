"""Test accuracy of groups of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pipeline.report.figures.style import add_legend_right, encode_png, fit_names

FEW = 8  # names that stand side by side without being turned


def draw_box_plot(
    groups: Mapping[str, Sequence[float]], teachers: Mapping[str, float], dot: str, source: Mapping[str, float]
) -> bytes:
    """A box a group, a dot a value, with the teachers as lines, and the source's values as diamonds.

    Args:
        groups: by name, test accuracies in [0, 1].
        teachers: by name, test accuracy in [0, 1].
        dot: what a value is.
        source: by name, test accuracy in [0, 1] of the groups that it has one of.
    """
    figure = Figure(figsize=(min(12.0, max(4.0, 1.2 * len(groups) + 2)), 4))
    axes, names = figure.subplots(), fit_names(list(groups))
    values = [[100 * accuracy for accuracy in accuracies] for accuracies in groups.values()]
    if values:
        axes.boxplot(values, tick_labels=names, widths=0.5, showfliers=False, medianprops={"color": "black"})
    if len(groups) > FEW or any(len(name) > 2 * FEW for name in names):
        axes.tick_params(axis="x", labelrotation=45)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    for place, accuracies in enumerate(values, start=1):
        # Spread by their order, not at random: the same numbers give the same picture.
        offsets = np.linspace(-0.12, 0.12, len(accuracies)) if len(accuracies) > 1 else np.zeros(1)
        axes.scatter(place + offsets, accuracies, s=18, alpha=0.8, zorder=3)
    for number, (name, accuracy) in enumerate(zip(fit_names(list(teachers)), teachers.values(), strict=True)):
        axes.axhline(100 * accuracy, color=f"C{number + 3}", linestyle="--", linewidth=1.2, label=f"teacher {name}")
    marks = [(place, 100 * source[name]) for place, name in enumerate(groups, start=1) if name in source]
    if marks:
        axes.plot(*zip(*marks, strict=True), "D", color="black", fillstyle="none", zorder=4, label="the source")
    if teachers or marks:
        add_legend_right(axes, len(teachers) + bool(marks))
    low, high = axes.get_ylim()
    if values or teachers:
        axes.set_ylim(min(low, high - 2), min(high, 100.5))
    axes.set(ylabel="test accuracy (%)", title=f"Test accuracy; a dot is {dot}")
    return encode_png(figure)
