"""Who trains, who validates, who tests: pure functions of labels, options and a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class First:
    """The first n samples, in file order."""

    count: int


@dataclass(frozen=True)
class Folds:
    """Balanced folds over all images, fold `test` (from 0) being the test part."""

    count: int
    test: int


Amount = First | int | float  # the first n, a number, or a share below 1; the latter two stratified


def split(
    train_labels: NDArray[np.int64],
    test_labels: NDArray[np.int64],
    *,
    train: Amount | None = None,
    validation: Amount | None = None,
    folds: Folds | None = None,
    seed: int = 0,
) -> tuple[Indices, Indices, Indices]:
    """Source rows (training part first, test part behind) of train, validation and test.

    Validation is taken out of the training part first, then `train` samples of the rest; each
    keeps the source's order. Without `validation` there is none, without `train` all the rest.

    Raises:
        InputError: more is asked for than there is, or there are no test images.
    """
    labels = np.concatenate([train_labels, test_labels])
    if folds is None:
        pool = np.arange(len(train_labels))
        test = np.arange(len(train_labels), len(labels))
    else:
        fold = fold_of_each(labels, folds.count, seed)
        pool, test = np.flatnonzero(fold != folds.test), np.flatnonzero(fold == folds.test)
    if not len(test):
        raise InputError("test images", expected="some", found="none", fix="add a test part, or state `folds:`")
    held_out = take(pool, labels, validation, "validation", seed) if validation is not None else pool[:0]
    rest = np.setdiff1d(pool, held_out, assume_unique=True)
    chosen = take(rest, labels, train, "train", seed) if train is not None else rest
    if not len(chosen):
        raise InputError("train", expected="at least one image", found="none left beside validation and test")
    return chosen, held_out, test


def take(pool: Indices, labels: NDArray[np.int64], amount: Amount, key: str, seed: int) -> Indices:
    """The rows of `pool` that `amount` asks for, in order."""
    if isinstance(amount, First):
        wanted = amount.count
    else:
        wanted = round(amount * len(pool)) if isinstance(amount, float) else amount
    if not 0 < wanted <= len(pool):
        raise InputError(key, expected=f"1 to {len(pool)} images", found=str(wanted), fix="ask for another amount")
    return pool[:wanted] if isinstance(amount, First) else stratified(pool, labels, wanted, seed)


def stratified(pool: Indices, labels: NDArray[np.int64], wanted: int, seed: int) -> Indices:
    """`wanted` rows of `pool`, each class with its share (largest remainders), drawn by `seed`."""
    generator = np.random.Generator(np.random.Philox(seed))
    classes, counts = np.unique(labels[pool], return_counts=True)
    exact = counts * wanted / len(pool)
    quota = np.floor(exact).astype(np.int64)
    most_short = np.argsort(quota - exact, kind="stable")[: wanted - quota.sum()]
    quota[most_short] += 1
    drawn = [
        generator.permutation(pool[labels[pool] == label])[:number]
        for label, number in zip(classes, quota, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def fold_of_each(labels: NDArray[np.int64], count: int, seed: int) -> Indices:
    """(N,) fold numbers; each class spread evenly, fold sizes within one of each other."""
    generator = np.random.Generator(np.random.Philox(seed))
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[by_class] = np.arange(len(labels)) % count
    return fold
