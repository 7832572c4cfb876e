"""Students while they train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.figures.style import (
    add_legend_below,
    add_legend_right,
    choose_line_style,
    create_panels,
    encode_png,
    fit_names,
    label_epochs,
)
from pipeline.report.metrics_files import AccuracyCurves

MOST_SHADED = 8  # curves whose spread can still be told apart
COLUMNS = 2
TITLE = 60  # letters of a panel's
HEADROOM = 100.5  # percent: a line at 100 is seen whole


def draw_curves(panels: Sequence[tuple[str, Mapping[str, AccuracyCurves]]], *, whole: bool = False) -> bytes:
    """Validation accuracy against epochs: the mean over runs, one standard deviation shaded where curves are few.

    Args:
        panels: a title (shown where there are several) and by name, of a student or a group, its curves.
        whole: show the first epochs too, however low the accuracy.
    """
    runs = [len(each) for _, students in panels for each in students.values()]
    shaded = max((len(students) for _, students in panels), default=0) <= MOST_SHADED and max(runs, default=1) > 1
    spread = ": mean and std over runs" if shaded else ": means over runs" if max(runs, default=1) > 1 else ""
    title = f"Students while they train{spread}"
    if len(panels) > 1:
        return encode_png(_draw_panels(panels, title, shaded=shaded, whole=whole))
    students = panels[0][1] if panels else {}
    figure = Figure(figsize=(7, 4 if len(students) <= MOST_SHADED else 5))
    axes = figure.subplots()
    _draw_panel(axes, students, shaded=shaded, whole=whole)
    label_epochs(axes)
    axes.set(ylabel="validation accuracy (%)", title=title)
    if students:
        add_legend_right(axes, len(students))
    return encode_png(figure)


def compute_limits(students: Mapping[str, AccuracyCurves]) -> tuple[float, float]:
    """The ends of an axis, in percent, without the first epochs, which would squeeze the rest into a line.

    It starts at the lowest curve's early value; but a student that never leaves chance is seen all the same.
    """
    early = [100 * float(np.mean([run[len(run) // 6] for run in runs])) for runs in students.values()]
    early += [100 * float(np.mean([max(run) for run in runs])) - 2 for runs in students.values()]
    bottom, best = min(*early, 98.0), 100 * max(max(run) for runs in students.values() for run in runs)
    return bottom, min(HEADROOM, best + 0.08 * (best - bottom) + 0.1)


def _draw_panels(
    panels: Sequence[tuple[str, Mapping[str, AccuracyCurves]]], title: str, *, shaded: bool, whole: bool
) -> Figure:
    """A panel a data set, each with a scale and a legend of its own."""
    deepest = max(len(students) for _, students in panels)
    figure, every = create_panels(len(panels), COLUMNS, (5.2, 3.4 + 0.1 * deepest))
    for axes, (name, students) in zip(every, panels, strict=True):
        _draw_panel(axes, students, shaded=shaded, whole=whole)
        axes.set_title(fit_names([name], TITLE)[0], fontsize=10)
        label_epochs(axes, fontsize=9)
        axes.tick_params(labelsize=9)
        add_legend_below(axes, fit_names(list(students)))
    figure.suptitle(title, fontsize=12)
    for axes in every[::COLUMNS]:
        axes.set_ylabel("validation accuracy (%)", fontsize=9)
    return figure


def _draw_panel(axes: Axes, students: Mapping[str, AccuracyCurves], *, shaded: bool, whole: bool) -> None:
    """The lines of students that are measured on the same data."""
    for number, (name, runs) in enumerate(zip(fit_names(list(students)), students.values(), strict=True)):
        table = 100 * np.array(runs)  # (runs, epochs)
        epochs = np.arange(1, table.shape[1] + 1)
        one = "." if table.shape[1] == 1 else ""  # one epoch makes no line
        axes.plot(epochs, table.mean(0), label=name, linewidth=1.5, marker=one, **choose_line_style(number))
        if shaded and len(table) > 1:
            low, high = table.mean(0) - table.std(0, ddof=1), table.mean(0) + table.std(0, ddof=1)
            axes.fill_between(epochs, low, high, color=choose_line_style(number)["color"], alpha=0.15, linewidth=0)
    if students and not whole:
        axes.set_ylim(*compute_limits(students))
    elif students:
        axes.set_ylim(top=min(HEADROOM, axes.get_ylim()[1]))
