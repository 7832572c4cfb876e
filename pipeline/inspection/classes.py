"""What fields that choose a class for every sample have to say: how often it is right, and one row a class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.progress import track
from pipeline.base.table import Table
from pipeline.cache import Cache

MOST_ROWS = 50  # classes in a table
PIECE_ROWS = 8192  # read at a time


def walk_rows(cache: Cache) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each view with the sample ids (n,) of a piece of its rows, behind a progress bar."""
    manifest = cache.manifest
    parts = [(view, start) for view in range(manifest.views.count) for start in range(0, manifest.rows, PIECE_ROWS)]
    for view, start in track(parts, "inspect", len(parts)):
        yield view, np.arange(start, min(start + PIECE_ROWS, manifest.rows))


def count_choices(choice: NDArray[np.int64], classes: int) -> list[int]:
    """Return how often each class is chosen."""
    counts: list[int] = np.bincount(choice.reshape(-1), minlength=classes).tolist()
    return counts


def measure_agreement(choice: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> dict[str, Any]:
    """Return how often the chosen class (views, rows) is the true one (rows,); None for a class without samples."""
    right = choice == labels[None]
    members = [right[:, labels == label] for label in range(classes)]
    per_class = [float(each.mean()) if each.size else None for each in members]
    return {"agreement_with_labels": float(right.mean()), "agreement_per_class": per_class}


def describe_choices(
    facts: Mapping[str, Any], classes: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> Iterator[str | Table]:
    """The agreement with the true classes, where they are known, and a table of the classes.

    Args:
        facts: with `chosen_per_class`, `agreement_with_labels` and `agreement_per_class`.
        classes: their names.
        columns: of the table, beside those of every such field; a cell a class.
    """
    if "agreement_with_labels" in facts:
        yield f"agreement with the labels: {100 * facts['agreement_with_labels']:.2f} %"
    rates = facts.get("agreement_per_class") or [None] * len(classes)
    every = {
        "class": classes,
        **columns,
        "chosen": [f"{chosen:,}" for chosen in facts["chosen_per_class"]],
        "agreement (%)": ["" if rate is None else f"{100 * rate:.2f}" for rate in rates],
    }
    rows = list(zip(*every.values(), strict=True))
    yield Table("classes", tuple(every), rows[:MOST_ROWS])
    if len(rows) > MOST_ROWS:
        yield f"... and {len(rows) - MOST_ROWS} more classes: --json shows all"
