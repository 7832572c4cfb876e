"""The split into train, validation and test rows: pure functions of labels, options and a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError, join_names

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


def split_rows(
    train_labels: NDArray[np.int64],
    test_labels: NDArray[np.int64],
    *,
    train: Amount | None = None,
    validation: Amount | None = None,
    test: Amount | None = None,
    folds: Folds | None = None,
    seed: int = 0,
    classes: Sequence[str] = (),
) -> tuple[Indices, Indices, Indices]:
    """Source rows (training part first, test part behind) of train, validation and test.

    Validation is taken out of the training part first, then `train` samples of the rest; each
    keeps the source's order. Without `validation` there is none, without `train` all the rest, without `test` all of
    the test part. A number or a share leaves at least one training image to each class.

    Args:
        train_labels, test_labels: (n,) of the source's two parts.
        train, validation, test, folds, seed: what is asked for.
        classes: names for messages; labels where there are none.

    Raises:
        InputError: more is asked for than there is, there are no test images, all images are of one class, or some
            class would have no training image.
    """
    labels = np.concatenate([train_labels, test_labels])
    names = classes or [str(label) for label in range(int(labels.max(initial=0)) + 1)]
    _refuse_one_class(labels, names)
    pool, tested = _separate_test(labels, len(train_labels), folds, seed)
    more = "add images of these classes" + ", or state other `folds:`" * (folds is not None)
    _refuse_untrained("data set", pool, labels, names, more)
    held_out = take_rows(pool, labels, validation, "validation", seed, spare=1) if validation is not None else pool[:0]
    rest = np.setdiff1d(pool, held_out, assume_unique=True)
    chosen = take_rows(rest, labels, train, "train", seed, least=1) if train is not None else rest
    if not len(chosen):
        raise InputError("train", expected="at least one image", found="none left beside validation and test")
    if isinstance(validation, First):
        drawn = _advise_draw(validation, "validation", drawable_counts(pool, labels, spare=1))
        _refuse_untrained("validation", rest, labels, names, drawn)
    if isinstance(train, First):
        drawn = _advise_draw(train, "train", drawable_counts(rest, labels, least=1))
        _refuse_untrained("train", chosen, labels, names, drawn)
    return chosen, held_out, take_rows(tested, labels, test, "test", seed) if test is not None else tested


def _separate_test(
    labels: NDArray[np.int64], train_count: int, folds: Folds | None, seed: int
) -> tuple[Indices, Indices]:
    """The rows that train or validate, and the test rows: the source's own parts, or those of the folds."""
    if folds is None:
        pool, test = np.arange(train_count), np.arange(train_count, len(labels))
    else:
        fold = assign_folds(labels, folds.count, seed)
        pool, test = np.flatnonzero(fold != folds.test), np.flatnonzero(fold == folds.test)
    if folds is not None and not len(test):
        raise InputError(
            "folds",
            expected=f"at most {len(labels)}, which is how many images there are",
            found=f"{folds.count}, of which fold {folds.test} is empty",
            fix="state fewer folds, or add images",
        )
    if not len(test):
        raise InputError("test images", expected="some", found="none", fix="add a test part, or state `folds:`")
    return pool, test


def _advise_draw(amount: First, key: str, possible: range) -> str:
    """Advice to draw from each class in place of the first: that many, or the nearest number that can be."""
    if not possible:
        return "add images of these classes"
    count = min(max(amount.count, possible[0]), possible[-1])
    return f"state `{key}: {count}`, which is drawn from each class, in place of the first"


def _refuse_one_class(labels: NDArray[np.int64], names: Sequence[str]) -> None:
    """Raise InputError where all images are of one class."""
    found = np.unique(labels)
    if len(found) == 1:
        raise InputError(
            "classes",
            expected="images of at least two",
            found=f"those of {names[found[0]]} alone",
            fix="add another class; if there are several, see which folders are taken for classes",
        )


def _refuse_untrained(key: str, rows: Indices, labels: NDArray[np.int64], names: Sequence[str], fix: str) -> None:
    """Raise InputError for classes without an image among the rows that train."""
    missing = [names[label] for label in np.setdiff1d(labels, labels[rows])]
    if missing:
        raise InputError(
            key, expected="a training image of each class", found=f"none of {join_names(missing)}", fix=fix
        )


def take_rows(
    pool: Indices,
    labels: NDArray[np.int64],
    amount: Amount,
    key: str,
    seed: int,
    *,
    least: int = 0,
    spare: int = 0,
) -> Indices:
    """The rows of `pool` that `amount` asks for, in order.

    Args:
        pool: rows to choose from.
        labels: of all rows.
        amount: the first so many, or a number or a share, drawn from each class by `seed`.
        key: what messages call the amount.
        seed: of the draw.
        least, spare: how many of each class a draw takes, and leaves, at least.

    Raises:
        InputError: more, or fewer, than that allows.
    """
    if isinstance(amount, First):
        wanted = amount.count
    else:
        wanted = round(amount * len(pool)) if isinstance(amount, float) else amount
    first = isinstance(amount, First)
    possible = range(1, len(pool) + 1) if first else drawable_counts(pool, labels, least=least, spare=spare)
    if wanted not in possible:
        amounts = f"{possible[0]} to {possible[-1]} images" if possible else "more images to choose from"
        reason = f", so that each of {len(np.unique(labels[pool]))} classes has one that trains"
        raise InputError(
            key,
            expected=amounts + reason * (not first and least + spare > 0),
            found=str(wanted),
            fix="ask for another amount" if possible else f"leave `{key}:` out, or add images",
        )
    if first:
        return pool[:wanted]
    return draw_stratified(pool, labels, wanted, seed, least=least, spare=spare)


def drawable_counts(pool: Indices, labels: NDArray[np.int64], *, least: int = 0, spare: int = 0) -> range:
    """How many rows a draw from `pool` can take, where it takes `least` and leaves `spare` of each class at least."""
    count = len(np.unique(labels[pool]))
    return range(max(1, count * least), len(pool) - count * spare + 1)


def draw_stratified(
    pool: Indices, labels: NDArray[np.int64], wanted: int, seed: int, *, least: int = 0, spare: int = 0
) -> Indices:
    """`wanted` rows of `pool`, each class with its share (largest remainders), drawn by `seed`; of each class `least`
    are taken, and `spare` left, at least.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    classes, counts = np.unique(labels[pool], return_counts=True)
    quota = class_quotas(counts, wanted, least, counts - spare)
    drawn = [
        generator.permutation(pool[labels[pool] == label])[:number]
        for label, number in zip(classes, quota, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def class_quotas(counts: Indices, wanted: int, least: int, most: Indices) -> Indices:
    """(C,) whole numbers of sum `wanted`, proportional to `counts` (largest remainders) but within `least` and `most`.

    What a bound takes from one class goes to that which is then furthest from its share.
    """
    exact = counts * wanted / counts.sum()
    quota = np.floor(exact).astype(np.int64)
    most_short = np.argsort(quota - exact, kind="stable")[: wanted - quota.sum()]
    quota[most_short] += 1
    quota = np.clip(quota, least, most)
    while missing := np.sign(wanted - quota.sum()):
        free = quota < most if missing > 0 else quota > least
        quota[np.argmax(np.where(free, missing * (exact - quota), -np.inf))] += missing
    return np.asarray(quota, np.int64)


def assign_folds(labels: NDArray[np.int64], count: int, seed: int) -> Indices:
    """(N,) fold numbers; each class spread evenly, fold sizes within one of each other."""
    generator = np.random.Generator(np.random.Philox(seed))
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[by_class] = np.arange(len(labels)) % count
    return fold
