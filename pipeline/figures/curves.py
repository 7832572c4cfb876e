"""Students while they train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pipeline.figures.style import legend_beside, look, png

MOST_SHADED = 8  # curves whose spread can still be told apart


def curves(students: Mapping[str, Sequence[Sequence[float]]]) -> bytes:
    """Validation accuracy against epochs: the mean over runs, one standard deviation shaded where curves are few.

    Args:
        students: by name (of a student or a group), one curve (accuracy in [0, 1] by epoch) a run.
    """
    figure = Figure(figsize=(7, 4 if len(students) <= MOST_SHADED else 5))
    axes = figure.subplots()
    shaded = len(students) <= MOST_SHADED and any(len(runs) > 1 for runs in students.values())
    for number, (name, runs) in enumerate(students.items()):
        table = 100 * np.array(runs)  # (runs, epochs)
        epochs = np.arange(1, table.shape[1] + 1)
        axes.plot(epochs, table.mean(0), label=name, linewidth=1.5, **look(number))
        if shaded and len(table) > 1:
            std = table.std(0, ddof=1)
            axes.fill_between(
                epochs, table.mean(0) - std, table.mean(0) + std, color=look(number)["color"], alpha=0.15, linewidth=0
            )
    if students:
        # The first epochs would squeeze the rest into a line: start at the lowest curve's early value.
        # But a student that never leaves chance is seen all the same.
        early = [100 * float(np.mean([run[len(run) // 6] for run in runs])) for runs in students.values()]
        early += [100 * float(np.mean([max(run) for run in runs])) - 2 for runs in students.values()]
        bottom, best = min(*early, 98.0), 100 * max(max(run) for runs in students.values() for run in runs)
        axes.set_ylim(bottom, min(100.5, best + 0.08 * (best - bottom) + 0.1))
        legend_beside(axes, len(students))
    several = any(len(runs) > 1 for runs in students.values())
    spread = ": mean and std over runs" if shaded else ": means over runs" if several else ""
    axes.set(xlabel="epoch", ylabel="validation accuracy (%)", title=f"Students while they train{spread}")
    return png(figure)
