"""What all pictures share: matplotlib's settings, the look of lines, PNG bytes that depend on the numbers alone."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
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

DASHES = ("-", "--", ":", "-.")
COLOURS = 10  # of matplotlib's cycle
TALLEST = 22  # names in a column of a legend


def look(number: int) -> dict[str, Any]:
    """Colour and dashes of the nth line: forty look different."""
    return {"color": f"C{number % COLOURS}", "linestyle": DASHES[number // COLOURS % len(DASHES)]}


def legend_beside(axes: Axes, names: int, **how: Any) -> None:
    """A legend to the right of the axes, in as many columns as so many names need."""
    columns = max(1, -(-names // TALLEST))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, ncols=columns, **how)


def png(figure: Figure) -> bytes:
    """A figure as PNG without the metadata that differ between versions."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
