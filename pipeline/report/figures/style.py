"""What all pictures share: matplotlib's settings, the look of lines and names, PNG bytes that depend on the numbers
alone.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator

from pipeline.base.plain_text import shorten_names

mpl.rcParams.update(
    {
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same letters on every machine
        "font.size": 10,
        "grid.alpha": 0.3,
        "savefig.bbox": "tight",
        "savefig.dpi": 130,
        # Names are data: a dollar sign is a letter.
        "text.parse_math": False,
        "text.usetex": False,
    }
)

DASHES = ("-", "--", ":", "-.")
COLOURS = 10  # of matplotlib's cycle
TALLEST = 22  # names in a column of a legend
WIDEST = 64  # letters in a row of a legend, each name's line included
LONGEST = 32  # letters of a name
MINUS, POWERS = "\N{MINUS SIGN}", str.maketrans("-0123456789", "\N{SUPERSCRIPT MINUS}⁰¹²³⁴⁵⁶⁷⁸⁹")


def choose_line_style(number: int) -> dict[str, Any]:
    """Return colour and dashes of the nth line; the first forty differ."""
    return {"color": f"C{number % COLOURS}", "linestyle": DASHES[number // COLOURS % len(DASHES)]}


def fit_names(names: Sequence[str], most: int = LONGEST) -> list[str]:
    """Names as a picture shows them: no longer than there is room for, letters without a glyph as code points."""
    return shorten_names([spell_missing_glyphs(name) for name in names], most)


def spell_missing_glyphs(name: str) -> str:
    """The name, each letter that the font lacks written as its code point, so that names still differ."""
    return "".join(letter if ord(letter) in _glyphs() else f"{letter!a}"[1:-1] for letter in name)


def find_spelled_names(names: Iterable[str]) -> list[str]:
    """Those names that have letters which the pictures' font lacks."""
    return [name for name in names if spell_missing_glyphs(name) != name]


@cache
def _glyphs() -> frozenset[int]:
    """The code points that the font has, as it stands and bold."""
    regular, bold = (get_font(findfont(FontProperties(weight=weight))).get_charmap() for weight in ("normal", "bold"))
    return frozenset(regular.keys() & bold.keys())


def format_power_of_ten(value: float, _place: float | None = None) -> str:
    """A tick of a logarithmic axis as one writes it: 10⁻³."""
    if value == 0:
        return "0"
    power = math.log10(abs(value))
    if not math.isclose(power, round(power), abs_tol=1e-9):
        return f"{value:g}"
    return f"{MINUS if value < 0 else ''}10{str(round(power)).translate(POWERS)}"


def create_panels(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels, row by row, and the panels.

    Args:
        count: at least 1.
        columns: in a row, at most; what a last row has beyond `count` stays empty.
        size: width and height of a panel, in inches.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]


def label_epochs(axes: Axes, **how: Any) -> None:
    """An axis of epochs: no ticks between two of them."""
    axes.set_xlabel("epoch", **how)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1))


def add_legend_right(axes: Axes, names: int, **how: Any) -> None:
    """A legend to the right of the axes, in as many columns as so many names need."""
    columns = max(1, -(-names // TALLEST))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, ncols=columns, **how)


def add_legend_below(axes: Axes, names: Sequence[str], **how: Any) -> None:
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


def encode_png(figure: Figure) -> bytes:
    """A figure as PNG without the metadata that differ between versions."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the word of a name that nobody has spelt
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
