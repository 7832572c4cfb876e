"""Weights of loss terms over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
from matplotlib.axes import Axes

from pipeline.report.figures.style import DASHES, create_panels, encode_png, fit_names, label_epochs

COLUMNS = 3
TITLE = 0.2  # inches a line of it
FEW_EPOCHS = 40  # where each is worth a dot


def draw_weights(students: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]) -> bytes:
    """A panel a student, or several with the same weights: each term's against the epoch, phase after phase.

    Args:
        students: by title, for each phase the weights of its terms, by term, one an epoch.
    """
    titled = max(title.count("\n") + 1 for title in students)
    figure, panels = create_panels(len(students), COLUMNS, (4.2, 2.8 + TITLE * titled))
    for panel, (name, phases) in zip(panels, students.items(), strict=True):
        _draw_panel(panel, phases)
        panel.set_title("\n".join(fit_names(name.split("\n"))), fontsize=10)
    figure.supylabel("weight", fontsize=10)
    return encode_png(figure)


def _draw_panel(axes: Axes, phases: Sequence[Mapping[str, Sequence[float]]]) -> None:
    """One student's phases; a term has one look in all of them."""
    ends = list(accumulate((len(next(iter(phase.values()))) for phase in phases), initial=0))
    terms = list(dict.fromkeys(term for phase in phases for term in phase))
    dot = "." if ends[-1] <= FEW_EPOCHS else ""
    for number, term in enumerate(terms):
        # Thinner and broken the later: where two terms weigh the same, both are seen.
        width, dashes = max(1.0, 2.6 - 0.5 * number), DASHES[number % len(DASHES)]
        there = [(start, phase[term]) for start, phase in zip(ends, phases, strict=False) if term in phase]
        for place, (start, values) in enumerate(there):
            epochs = start + np.arange(1, len(values) + 1)
            label = None if place else fit_names([term])[0]
            shown = "." if len(values) == 1 else dot  # one epoch makes no line
            axes.plot(epochs, values, f"C{number}", marker=shown, label=label, linestyle=dashes, linewidth=width)
    for border in ends[1:-1]:
        axes.axvline(border + 0.5, color="0.4", linewidth=0.8)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    label_epochs(axes)
    axes.legend(frameon=False, fontsize=8)
