"""Doubts whether a trained network has learnt anything: it answers one class for all images, or is at chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.plain_text import escape_unprintable

FEWEST, OTHERS = 5, 10  # test images of a class that alone is right, and of the others, before that means anything
ADVICE = "train it longer, or at another learning rate; with batch normalisation, with another norm_momentum"
FROM_A_FILE = "its mean, std and order of classes must be those that it was trained with"
FEWEST_AT_CHANCE = 20  # test images beyond the commonest class: fewer cannot tell chance from learning
BY_CHANCE = 0.05  # the probability that guessing does as well, above which a network may have guessed
NEAR = 0.1  # of the way from chance to right: a mean accuracy of the classes beyond is no chance


def find_doubt(correct: Tensor, labels: Tensor, classes: Sequence[str]) -> str | None:
    """The reason to doubt that a network has learnt its classes, as a clause without a subject; None: no reason.

    Guessing gets the share of its favourite class right, so that chance is the commonest class's share, and the mean
    accuracy of the classes is then 1 / classes. Where the images are too few to tell, there is no doubt.

    Args:
        correct: (n,) bool, whether each test row is classified correctly.
        labels: (n,) of the test rows.
        classes: names, by label.
    """
    rows = labels.cpu().numpy()
    counts = np.bincount(rows, minlength=len(classes))
    hits = np.bincount(rows[correct.cpu().numpy()], minlength=len(classes))
    there = counts > 0
    alone = there & (hits == counts)
    constant = alone.sum() == 1 and not hits[~alone].any()
    if constant and counts[alone].sum() >= FEWEST and counts[~alone].sum() >= OTHERS:
        name = escape_unprintable(classes[int(alone.argmax())])
        return (
            f"says '{name}' whatever it is shown: right for all {counts[alone].sum()} test images of that class, and "
            f"for none of the {counts[~alone].sum()} others"
        )
    if _is_at_chance(counts[there], hits[there]):
        return (
            f"is no better than chance: right for {hits.sum()} of {counts.sum()} test images, where always saying "
            f"the commonest class is for {counts.max()}"
        )
    return None


def join_doubts(doubts: Mapping[str, str]) -> str:
    """The doubts of several runs, by run, in one clause."""
    return f"{next(iter(doubts.values()))} ({', '.join(doubts)})"


def _is_at_chance(counts: NDArray[np.int64], correct: NDArray[np.int64]) -> bool:
    """Whether so many right ones of each class are what guessing gives."""
    from scipy.special import bdtrc  # `scipy.stats` takes half a second to import

    n, commonest = int(counts.sum()), int(counts.max(initial=0))
    if len(counts) < 2 or n - commonest < FEWEST_AT_CHANCE:
        return False
    chance = 1 / len(counts)
    if (correct / counts).mean() > chance + NEAR * (1 - chance):
        return False
    return float(bdtrc(int(correct.sum()) - 1, n, commonest / n)) > BY_CHANCE
