"""How far a foreign teacher's favourites are the labels: what shows rows or columns in another order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.dataset import Dataset
from pipeline.training.doubts import NEAR

ENOUGH = 20  # rows a class, to say what another order of the columns would do; of fewer, guesses seem to gain by it
ROWS = "are the rows in the order of images.npy?"


def describe_agreement(favourites: NDArray[np.int64], dataset: Dataset) -> str:
    """A line about how often the argmax is right, in each part of the data set.

    Args:
        favourites: the class (rows,) that each row prefers.
        dataset: with the labels of these rows.
    """
    right = favourites == np.asarray(dataset.labels[: len(favourites)])
    parts = {part: right[dataset.rows(part)] for part in ("train", "validation", "test")}
    told = [f"{_format_percent(each.mean())} of {len(each):,} {part} rows" for part, each in parts.items() if len(each)]
    return "the argmax is right for " + ", ".join(told)


def find_disorder(favourites: NDArray[np.int64], dataset: Dataset, *, named: bool) -> str | None:
    """A warning where chance, or another order of the columns, does as well as these outputs.

    Args:
        favourites, dataset: as for `describe_agreement`.
        named: the columns were matched by name.
    """
    labels, classes = np.asarray(dataset.labels[: len(favourites)]), len(dataset.classes)
    accuracy = float((favourites == labels).mean())
    chance = float(np.bincount(labels, minlength=classes).max() / len(labels))
    enough, permuted = len(labels) >= ENOUGH * classes, _permuted_accuracy(favourites, labels, classes)
    gains = permuted > accuracy + 2 * NEAR
    reasons = [f"near chance ({_format_percent(chance)})"] if accuracy <= chance + NEAR * (1 - chance) else []
    if enough and gains:
        reasons.append(f"though for {_format_percent(permuted)} with its columns in another order")
    if not reasons:
        return None
    columns = _advise_on_columns(dataset.classes, named=named)
    advice = (columns if gains else ROWS) if enough else f"{ROWS} {columns}"
    return f"the argmax is right for {_format_percent(accuracy)}, {', '.join(reasons)}: {advice}"


def _format_percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _permuted_accuracy(favourites: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> float:
    """The accuracy, were each column that of the class that it mostly answers for."""
    pairs, counts = np.unique(favourites * classes + labels, return_counts=True)
    best = np.zeros(classes, np.int64)
    np.maximum.at(best, pairs // classes, counts)
    return float(best.sum() / len(labels))


def _advise_on_columns(classes: Sequence[str], *, named: bool) -> str:
    """Advice on columns in another order."""
    if named:
        return "are the names in the order of the columns?"
    shown = ", ".join(map(repr, classes[:4])) + (", ..." if len(classes) > 4 else "")
    return f"are the columns in the order of the classes ({shown})? give theirs with --classes names.txt"
