"""What all pictures share: matplotlib's settings, the look of lines, PNG bytes that depend on the numbers alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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

DASHES = ("-", "--", ":", "-.")
COLOURS = 10  # of matplotlib's cycle
TALLEST = 22  # names in a column of a legend
WIDEST = 64  # letters in a row of a legend, each name's line included


def look(number: int) -> dict[str, Any]:
    """Colour and dashes of the nth line: forty look different."""
    return {"color": f"C{number % COLOURS}", "linestyle": DASHES[number // COLOURS % len(DASHES)]}


def epochs_below(axes: Axes, **how: Any) -> None:
    """An axis of epochs: no ticks between two of them."""
    axes.set_xlabel("epoch", **how)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1))


def legend_beside(axes: Axes, names: int, **how: Any) -> None:
    """A legend to the right of the axes, in as many columns as so many names need."""
    columns = max(1, -(-names // TALLEST))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, ncols=columns, **how)


def legend_below(axes: Axes, names: Sequence[str], **how: Any) -> None:
    """A legend below the axes' label, as many names in a row as there is room for, rows equally full."""
    most = max(1, WIDEST // (max(map(len, names), default=0) + 8))
    rows = max(1, -(-len(names) // most))
    columns = max(1, -(-len(names) // rows))
    axes.legend(
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.15),
        fontsize=8,
        ncols=columns,
        columnspacing=1.2,
        **how,
    )


def png(figure: Figure) -> bytes:
    """A figure as PNG without the metadata that differ between versions."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
