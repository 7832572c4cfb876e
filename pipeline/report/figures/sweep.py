"""Error against one option of a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure

from pipeline.report.figures.style import add_legend_right, encode_png, fit_names
from pipeline.report.significance import compute_interval

APART = 0.09  # of the step between two values: validation stands left of it, test right
LABEL = 48  # letters of a teacher's name with what was measured
SIDE_BY_SIDE = 0.4  # the same, of points of one value


@dataclass(frozen=True)
class SweepPoint:
    """Students at one value of the option.

    Attributes:
        value: of the option; may be infinite.
        test, validation: errors in percent, one a run or student; validation may be empty.
        source: what the source reports, percent.
    """

    value: float
    test: tuple[float, ...]
    validation: tuple[float, ...] = ()
    source: float | None = None


def place_values(values: Sequence[float]) -> list[float]:
    """Where values stand: at their ranks 0, 1, ...; those that are equal side by side around theirs."""
    ranks = {value: rank for rank, value in enumerate(sorted(set(values)))}
    return [
        ranks[value] + SIDE_BY_SIDE * (values[:place].count(value) - (values.count(value) - 1) / 2)
        for place, value in enumerate(values)
    ]


def format_tick(value: float) -> str:
    """A value as one writes it: 0.02, 5, ∞."""
    return "∞" if math.isinf(value) else f"{value:g}"


def compute_error_bar(errors: Sequence[float]) -> tuple[float, float, float]:
    """Their mean, and how far its 95 % interval reaches below and above; 0 where too few have none."""
    mean = fmean(errors)
    low, high = compute_interval(errors) or (mean, mean)
    return mean, mean - low, high - mean


def draw_sweep(option: str, points: Sequence[SweepPoint], teachers: Mapping[str, float], source: str) -> bytes:
    """Validation and test error against the option's values, evenly spaced in increasing order.

    Args:
        option: its name.
        points: in increasing order of their values.
        teachers: by what the legend calls them, errors in percent.
        source: what the source's values are measured on.
    """
    figure = Figure(figsize=(max(5.0, 0.6 * len(points) + 2), 4))
    axes = figure.subplots()
    values = [point.value for point in points]
    where = place_values(values)
    validation, test = [point.validation for point in points], [point.test for point in points]
    handles: list[Artist | Container] = [
        *_draw_errors(axes, where, validation, shift=-APART, look="C0", label="validation"),
        *_draw_errors(axes, where, test, shift=APART, look="C1", label="test"),
    ]
    marks = [(place, point.source) for place, point in zip(where, points, strict=True) if point.source is not None]
    if marks:
        handles += axes.plot(*zip(*marks, strict=True), "kx", markersize=7, zorder=4, label=f"the source ({source})")
    for number, (name, error) in enumerate(zip(fit_names(list(teachers), LABEL), teachers.values(), strict=True)):
        handles.append(axes.axhline(error, color=f"C{number + 2}", linestyle="--", linewidth=1.2, label=name))
    axes.set_xticks(range(len(set(values))), [format_tick(value) for value in sorted(set(values))])
    axes.set_xlim(min(where) - 0.5, max(where) + 0.5)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
    (name,) = fit_names([option])
    axes.set(xlabel=name, ylabel="error (%)", title=f"Error against {name}")
    add_legend_right(axes, len(handles), handles=handles)
    return encode_png(figure)


def _draw_errors(
    axes: Axes, where: Sequence[float], measured: Sequence[Sequence[float]], *, shift: float, look: str, label: str
) -> list[Artist | Container]:
    """Means with their intervals, joined by a line, and beside them single values; what stands in the legend."""
    there = [(place + shift, errors) for place, errors in zip(where, measured, strict=True) if errors]
    if not there:
        return []
    for place, errors in there:
        if len(errors) == 1:
            continue  # it is the mean
        axes.plot([place + shift] * len(errors), errors, ".", color=look, markersize=5, alpha=0.6, markeredgewidth=0)
    means, below, above = zip(*(compute_error_bar(errors) for _, errors in there), strict=True)
    drawn = axes.errorbar(
        [place for place, _ in there],
        means,
        yerr=(below, above),
        fmt="o-",
        color=look,
        markersize=4.5,
        linewidth=1,
        elinewidth=1.2,
        capsize=3,
        label=label,
    )
    return [drawn]
