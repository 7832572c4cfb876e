"""What each loss term is worth while a student trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import SymmetricalLogLocator

from pipeline.report.figures.style import (
    add_legend_below,
    create_panels,
    encode_png,
    fit_names,
    format_power_of_ten,
    label_epochs,
)
from pipeline.report.metrics_files import AccuracyCurves

COLUMNS = 2
WIDE = 100.0  # a range of values that a linear axis cannot show: two decades
SMALL = 10  # percentile of the values' sizes that a logarithmic axis still tells from 0
MOST_DECADES = 12  # that are labelled one by one, both signs counted
ERROR = "validation error (right)"


@dataclass(frozen=True)
class TermCurves:
    """What is drawn of one student.

    Attributes:
        losses: by loss term, its weighted mean over the steps of each epoch.
        errors: validation error in percent by epoch; empty without validation part.
    """

    losses: Mapping[str, AccuracyCurves]
    errors: AccuracyCurves = ()


def find_linear_threshold(values: Sequence[float]) -> float | None:
    """The power of ten below which an axis is linear, so that it can be logarithmic above; None: linear it is all.

    One tiny value, where a curve happens to cross zero, is no reason for many decades around zero.
    """
    sizes = [abs(value) for value in values if value]
    if not sizes:
        return None
    small = float(np.percentile(sizes, SMALL, method="lower"))
    return 10.0 ** math.floor(math.log10(small)) if max(sizes) > WIDE * small else None


def draw_terms(students: Mapping[str, TermCurves]) -> bytes:
    """A panel a student: each loss term against the epoch, the mean over its networks with their range shaded.

    Args:
        students: by name.
    """
    figure, panels = create_panels(len(students), COLUMNS, (5.2, 3.6))
    for panel, name, its in zip(panels, fit_names(list(students)), students.values(), strict=True):
        _draw_panel(panel, its)
        panel.set_title(name, fontsize=10)
    return encode_png(figure)


def _draw_panel(axes: Axes, its: TermCurves) -> None:
    """One student: its terms on the left axis, its error on the right one."""
    lines = zip(fit_names(list(its.losses)), its.losses.values(), strict=True)
    handles = [_draw_line(axes, runs, f"C{number}", "-", name) for number, (name, runs) in enumerate(lines)]
    threshold = find_linear_threshold([value for runs in its.losses.values() for run in runs for value in run])
    if threshold is not None:
        _scale_logarithmically(axes, threshold)
    axes.set_ylabel("weighted loss" if threshold is None else "weighted loss (symmetric log)", fontsize=9)
    label_epochs(axes, fontsize=9)
    axes.tick_params(labelsize=8)
    if its.errors:
        right = axes.twinx()
        handles.append(_draw_line(right, its.errors, "black", ":", ERROR))
        right.grid(visible=False)
        right.spines["right"].set_visible(True)
        right.set_ylim(bottom=0)
        right.set_ylabel("validation error (%)", fontsize=9)
        right.tick_params(labelsize=8)
    add_legend_below(axes, [str(handle.get_label()) for handle in handles], handles=handles)


def _scale_logarithmically(axes: Axes, threshold: float) -> None:
    """Logarithmic on both sides of a linear part around zero, with labels that do not touch."""
    axes.set_yscale("symlog", linthresh=threshold)
    low, high = axes.get_ylim()
    decades = sum(max(0.0, math.log10(max(abs(end), threshold) / threshold)) for end in (low, high))
    locator = SymmetricalLogLocator(base=10, linthresh=threshold)
    locator.set_params(numticks=MOST_DECADES if decades < MOST_DECADES else MOST_DECADES // 2)
    axes.yaxis.set_major_locator(locator)
    axes.yaxis.set_major_formatter(format_power_of_ten)


def _draw_line(axes: Axes, runs: AccuracyCurves, colour: str, dashes: str, label: str) -> Line2D:
    """A mean over runs, their range shaded."""
    table = np.array(runs, dtype=np.float64)  # (runs, epochs)
    epochs = np.arange(1, table.shape[1] + 1)
    one = "." if table.shape[1] == 1 else ""  # one epoch makes no line
    (line,) = axes.plot(epochs, table.mean(0), color=colour, linestyle=dashes, linewidth=1.4, marker=one, label=label)
    if len(table) > 1:
        axes.fill_between(epochs, table.min(0), table.max(0), color=colour, alpha=0.15, linewidth=0)
    return line
