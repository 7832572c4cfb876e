"""The report's pictures, as PNG bytes that depend on the numbers alone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

mpl.rcParams.update(
    {
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": 10,
        "grid.alpha": 0.3,
        "savefig.bbox": "tight",
        "savefig.dpi": 130,
    }
)


def curves(students: Mapping[str, Sequence[Sequence[float]]]) -> bytes:
    """Validation accuracy against epochs: the mean over seeds, with one standard deviation shaded.

    Args:
        students: by name, one curve (accuracy in [0, 1] by epoch) a seed.
    """
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    for name, seeds in students.items():
        table = 100 * np.array(seeds)  # (seeds, epochs)
        epochs = np.arange(1, table.shape[1] + 1)
        (line,) = axes.plot(epochs, table.mean(0), label=name, linewidth=1.5)
        if len(table) > 1:
            std = table.std(0, ddof=1)
            axes.fill_between(epochs, table.mean(0) - std, table.mean(0) + std, color=line.get_color(), alpha=0.15)
    if students:
        # The first epochs would squeeze the rest into a line: start at the lowest curve's early value.
        early = [100 * float(np.mean([seed[len(seed) // 6] for seed in seeds])) for seeds in students.values()]
        axes.set_ylim(bottom=min(*early, 98.0), top=100.5)
        axes.legend(frameon=False)
    several = any(len(seeds) > 1 for seeds in students.values())
    title = "Students while they train" + (": mean and std over seeds" if several else "")
    axes.set(xlabel="epoch", ylabel="validation accuracy (%)", title=title)
    return png(figure)


def box_plot(students: Mapping[str, Sequence[float]], teachers: Mapping[str, float]) -> bytes:
    """Test accuracy of each student, a dot a seed, with the teachers as lines.

    Args:
        students: by name, test accuracy in [0, 1] of each seed.
        teachers: by name, test accuracy in [0, 1].
    """
    figure = Figure(figsize=(max(4.0, 1.2 * len(students) + 2), 4))
    axes = figure.subplots()
    values = [[100 * accuracy for accuracy in accuracies] for accuracies in students.values()]
    if values:
        axes.boxplot(values, tick_labels=list(students), widths=0.5, showfliers=False, medianprops={"color": "black"})
    for place, accuracies in enumerate(values, start=1):
        # Spread by their order, not at random: the same numbers give the same picture.
        offsets = np.linspace(-0.12, 0.12, len(accuracies)) if len(accuracies) > 1 else np.zeros(1)
        axes.scatter(place + offsets, accuracies, s=18, alpha=0.8, zorder=3)
    for number, (name, accuracy) in enumerate(teachers.items()):
        axes.axhline(100 * accuracy, color=f"C{number + 3}", linestyle="--", linewidth=1.2, label=f"teacher {name}")
    if teachers:
        axes.legend(frameon=False)
    low, high = axes.get_ylim()
    if values or teachers:
        axes.set_ylim(min(low, high - 2), min(high, 100.5))
    axes.set(ylabel="test accuracy (%)", title="Test accuracy, one dot a seed")
    return png(figure)


def png(figure: Figure) -> bytes:
    """A figure as PNG without the metadata that differ between versions."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
