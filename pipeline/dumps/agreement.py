"""How far a foreign teacher's favourites are the labels: what shows rows or columns in another order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.record import Dataset
from pipeline.doubt import NEAR

ENOUGH = 10  # rows a class, to say what another order of the columns would do


def agreement(favourites: NDArray[np.int64], dataset: Dataset, *, named: bool) -> Iterator[str]:
    """A line about how often the argmax is right; a warning where chance, or another order of columns, does as well.

    Args:
        favourites: the class (rows,) that each row prefers.
        dataset: with the labels of these rows.
        named: the columns were matched by name.
    """
    labels, classes = np.asarray(dataset.labels[: len(favourites)]), len(dataset.classes)
    right = favourites == labels
    parts = {part: right[dataset.rows(part)] for part in ("train", "validation", "test")}
    shares = [f"{_percent(each.mean())} of {len(each):,} {part} rows" for part, each in parts.items() if len(each)]
    yield "the argmax is right for " + ", ".join(shares)
    accuracy, chance = float(right.mean()), float(np.bincount(labels, minlength=classes).max() / len(labels))
    reasons = []
    if accuracy <= chance + NEAR * (1 - chance):
        reasons.append(f"near chance ({_percent(chance)})")
    permuted = _permuted(favourites, labels, classes)
    if len(labels) >= ENOUGH * classes and permuted > accuracy + 2 * NEAR:
        reasons.append(f"though for {_percent(permuted)} with its columns in another order")
    if reasons:
        advice = _advice(dataset.classes, named=named)
        yield f"warning: the argmax is right for {_percent(accuracy)}, {', '.join(reasons)}: {advice}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _permuted(favourites: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> float:
    """The accuracy, were each column that of the class that it mostly answers for."""
    pairs, counts = np.unique(favourites * classes + labels, return_counts=True)
    best = np.zeros(classes, np.int64)
    np.maximum.at(best, pairs // classes, counts)
    return float(best.sum() / len(labels))


def _advice(classes: Sequence[str], *, named: bool) -> str:
    if named:
        return "are the rows in the order of images.npy, and the names in that of the columns?"
    shown = ", ".join(map(repr, classes[:4])) + (", ..." if len(classes) > 4 else "")
    return f"are the columns in the order of the classes ({shown})? give theirs with --classes names.txt"
