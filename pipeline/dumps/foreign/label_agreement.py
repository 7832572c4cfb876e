"""How often a foreign teacher's argmax is the label: what shows rows or columns in another order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.dataset import Dataset
from pipeline.training.chance_level import NEAR

ENOUGH = 20  # rows a class, to say what another order of the columns would do; of fewer, guesses seem to gain by it
ROWS = "are the rows in the order of images.npy?"


def describe_agreement(predictions: NDArray[np.int64], dataset: Dataset) -> str:
    """A line about how often the argmax is right, in each part of the data set.

    Args:
        predictions: the class (rows,) that each row prefers.
        dataset: with the labels of these rows.
    """
    right = predictions == np.asarray(dataset.labels[: len(predictions)])
    parts = {part: right[dataset.rows(part)] for part in ("train", "validation", "test")}
    lines = [
        f"{_format_percent(each.mean())} of {len(each):,} {part} rows" for part, each in parts.items() if len(each)
    ]
    return "the argmax is right for " + ", ".join(lines)


def warn_of_disorder(predictions: NDArray[np.int64], dataset: Dataset, *, columns_named: bool) -> str | None:
    """A warning where chance, or another order of the columns, does as well as these outputs.

    Args:
        predictions, dataset: as for `describe_agreement`.
        columns_named: the columns were matched by name.
    """
    labels, classes = np.asarray(dataset.labels[: len(predictions)]), len(dataset.classes)
    accuracy = float((predictions == labels).mean())
    chance = float(np.bincount(labels, minlength=classes).max() / len(labels))
    enough, permuted = len(labels) >= ENOUGH * classes, _permuted_accuracy(predictions, labels, classes)
    gains = permuted > accuracy + 2 * NEAR
    reasons = [f"near chance ({_format_percent(chance)})"] if accuracy <= chance + NEAR * (1 - chance) else []
    if enough and gains:
        reasons.append(f"though for {_format_percent(permuted)} with its columns in another order")
    if not reasons:
        return None
    columns = _advise_on_columns(dataset.classes, columns_named=columns_named)
    advice = (columns if gains else ROWS) if enough else f"{ROWS} {columns}"
    return f"the argmax is right for {_format_percent(accuracy)}, {', '.join(reasons)}: {advice}"


def _format_percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _permuted_accuracy(predictions: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> float:
    """The accuracy, were each column that of the class that it mostly answers for."""
    pairs, counts = np.unique(predictions * classes + labels, return_counts=True)
    best = np.zeros(classes, np.int64)
    np.maximum.at(best, pairs // classes, counts)
    return float(best.sum() / len(labels))


def _advise_on_columns(classes: Sequence[str], *, columns_named: bool) -> str:
    """Say what to do about columns in another order."""
    if columns_named:
        return "are the names in the order of the columns?"
    shown = ", ".join(map(repr, classes[:4])) + (", ..." if len(classes) > 4 else "")
    return f"are the columns in the order of the classes ({shown})? give theirs with --classes names.txt"
