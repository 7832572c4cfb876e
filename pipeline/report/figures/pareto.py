"""Accuracy against size: which networks are the best for their size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from pipeline.report.figures.style import add_legend_right, encode_png, fit_names

LABEL = (13.0, 10.0)  # width and height of a number, in points
REACHES = tuple(11.0 + 5.0 * step for step in range(24))  # how far from its point a number may stand, in points
DIRECTIONS = tuple(math.radians(angle) for angle in (50, 130, -50, -130, 0, 180, 90, -90, 25, 155, -25, -155))
MARKER = (6.0, 6.0)  # a point's own
SIDE_BY_SIDE = 0.01  # of the axis: how far apart points of one size are drawn
WIDEST = 0.06  # of the axis: all points of one size
MEASURES = ("parameters", "bytes", "bits", "multiply-adds")  # of size, a panel each
COLUMNS = 2
HEIGHT = 4.6  # inches of a row of panels


@dataclass(frozen=True)
class NetworkPoint:
    """A network, or several of one kind.

    Attributes:
        accuracy: test accuracy in [0, 1], a mean.
        interval: its 95 % interval, where there is one.
        sizes: by measure, those that are known.
        teacher: whether it is one.
    """

    accuracy: float
    interval: tuple[float, float] | None
    sizes: Mapping[str, float]
    teacher: bool = False


def find_front(sizes: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """The places of those that nothing dominates, the smallest first.

    One dominates another that is no smaller and no better, and not equal in both.
    """
    order = sorted(range(len(sizes)), key=lambda place: (sizes[place], -accuracies[place]))
    found: list[int] = []
    for place in order:
        better = not found or accuracies[place] > accuracies[found[-1]]
        same = found and (sizes[place], accuracies[place]) == (sizes[found[-1]], accuracies[found[-1]])
        if better or same:
            found.append(place)
    return found


def draw_pareto(points: Mapping[str, NetworkPoint], comparable: Sequence[Sequence[str]]) -> bytes:
    """Accuracy against each measure of size that is known of any, numbered, with a line through each front.

    Args:
        points: by name, in the order of the legend.
        comparable: the names of those that are measured on the same data; one front each.
    """
    measures = [name for name in MEASURES if any(name in point.sizes for point in points.values())] or MEASURES[
        :COLUMNS
    ]
    sizes = [
        {name: each.sizes[measure] for name, each in points.items() if measure in each.sizes} for measure in measures
    ]
    places = [dict(zip(each, spread_equal_sizes(list(each.values())), strict=True)) for each in sizes]
    colours = {name: f"C{number}" for number, names in enumerate(comparable) for name in names}
    colours |= {name: "black" for name, point in points.items() if point.teacher}
    figure, panels = _create_panels(len(measures))
    for axes, each, x, measure in zip(panels, sizes, places, measures, strict=True):
        _format_size_axis(axes, list(each.values()), measure)
        _draw_fronts(axes, each, points, comparable)
        _draw_points(axes, x, points, colours)
    numbers = {name: number for number, name in enumerate(points, start=1)}
    for axes, x in zip(panels, places, strict=True):  # not before all have set their common limits
        _draw_numbers(axes, {numbers[name]: (place, 100 * points[name].accuracy) for name, place in x.items()})
    if points:
        handles = [
            Line2D([], [], linestyle="", **_choose_marker(point, colours[name])) for name, point in points.items()
        ]
        labels = [f"{number}  {name}" for number, name in enumerate(fit_names(list(points)), start=1)]
        right = panels[min(COLUMNS, len(panels)) - 1]
        add_legend_right(right, len(points), handles=handles, labels=labels, handletextpad=0.2)
    return encode_png(figure)


def _create_panels(count: int) -> tuple[Figure, list[Axes]]:
    """So many panels of one common accuracy axis, row by row."""
    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(10, HEIGHT * rows))
    figure.subplots_adjust(wspace=0.06, hspace=0.2)
    figure.suptitle("Test accuracy against size", y=0.88 + 0.33 / (HEIGHT * rows))
    every = list(figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).ravel())
    for axes in every[::COLUMNS]:
        axes.set_ylabel("test accuracy (%)")
    for axes in every[count:]:
        axes.set_visible(False)
    return figure, every[:count]


def spread_equal_sizes(sizes: Sequence[float]) -> list[float]:
    """Where points are drawn: those of one size side by side, so that each one's interval is seen."""
    if not sizes:
        return []
    span = math.log(_compute_limits(sizes)[1] / _compute_limits(sizes)[0])
    made = []
    for place, size in enumerate(sizes):
        same = sizes.count(size)
        step = min(SIDE_BY_SIDE, WIDEST / same) * span
        made.append(size * math.exp((sizes[:place].count(size) - (same - 1) / 2) * step))
    return made


def _compute_limits(sizes: Sequence[float]) -> tuple[float, float]:
    """The axis's ends: room for the numbers."""
    return min(sizes) / 1.8, max(sizes) * 1.8


def _format_size_axis(axes: Axes, sizes: Sequence[float], measure: str) -> None:
    """A logarithmic axis that says 500 k, not 5 x 10^5."""
    axes.set_xscale("log")
    if sizes:
        axes.set_xlim(*_compute_limits(sizes))
    wide = bool(sizes) and max(sizes) > 30 * min(sizes)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(unit="B" if measure == "bytes" else ""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("multiply-adds of one image" if measure == "multiply-adds" else measure)


def _draw_fronts(
    axes: Axes, sizes: Mapping[str, float], points: Mapping[str, NetworkPoint], comparable: Sequence[Sequence[str]]
) -> None:
    """A step line through each front: what is the best up to each size."""
    for number, every in enumerate(comparable):
        names = [name for name in every if name in sizes]
        if not names:
            continue
        best = [
            names[place] for place in find_front([sizes[name] for name in names], [points[n].accuracy for n in names])
        ]
        x, y = [sizes[name] for name in best], [100 * points[name].accuracy for name in best]
        axes.step([*x, axes.get_xlim()[1]], [*y, y[-1]], where="post", color=f"C{number}", linewidth=1.2, alpha=0.7)


def _draw_points(
    axes: Axes, x: Mapping[str, float], points: Mapping[str, NetworkPoint], colours: Mapping[str, str]
) -> None:
    """The points, each with its interval."""
    for name, place in x.items():
        point = points[name]
        if point.interval is not None:
            axes.vlines(place, 100 * point.interval[0], 100 * point.interval[1], color="0.7", linewidth=1, zorder=1)
        axes.plot([place], [100 * point.accuracy], zorder=3, **_choose_marker(point, colours[name]))


def _choose_marker(point: NetworkPoint, colour: str) -> dict[str, Any]:
    return {"marker": "s" if point.teacher else "o", "color": colour, "markersize": 4.5}


def _draw_numbers(axes: Axes, points: Mapping[int, tuple[float, float]]) -> None:
    """Number points, where the numbers hide neither a point nor each other; a thread leads to a far one."""
    to_points = 72 / axes.figure.dpi
    spots = [tuple(to_points * axes.transData.transform(point)) for point in points.values()]
    for (number, point), offset in zip(points.items(), place_labels(spots), strict=True):
        far = math.hypot(*offset) > REACHES[0] + 1
        axes.annotate(
            str(number),
            point,
            xytext=offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.3},
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 4, "shrinkB": 2}
            if far
            else None,
        )


def place_labels(spots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """How far from its spot each label stands: the nearest place that is free, in the spots' order."""
    taken = [(x, y, *MARKER) for x, y in spots]
    made = []
    for x, y in spots:
        tries = _list_offsets()
        chosen = first = next(tries)
        while not _is_free((x + chosen[0], y + chosen[1], *LABEL), taken):
            following = next(tries, None)
            if following is None:  # a crowd: beside the point, as it would stand alone
                chosen = first
                break
            chosen = following
        taken.append((x + chosen[0], y + chosen[1], *LABEL))
        made.append(chosen)
    return made


def _list_offsets() -> Iterator[tuple[float, float]]:
    for reach in REACHES:
        for angle in DIRECTIONS:
            yield reach * math.cos(angle), reach * math.sin(angle)


Box = tuple[float, float, float, float]  # centre, width and height


def _is_free(box: Box, taken: Sequence[Box]) -> bool:
    return not any(
        abs(box[0] - other[0]) < (box[2] + other[2]) / 2 and abs(box[1] - other[1]) < (box[3] + other[3]) / 2
        for other in taken
    )
