"""The kinds of numbers that a foreign teacher's file may hold, and the logits that they become."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import InputError

Values = Literal["logits", "probabilities", "log-probabilities"]
KINDS: tuple[Values, ...] = get_args(Values)

PIECE_BYTES = 16 << 20  # looked at in one go
TOLERANCE = 0.05  # of a row's sum: what rounding to two decimals, or float16, may make of 1
NEGATIVE = 1e-6  # a probability that should have been 0
PERCENT = 100.0


@dataclass(frozen=True)
class Reading:
    """How rows are read.

    Attributes:
        values: what the numbers are.
        floor: smaller probabilities count as this; None: there are none of 0.
    """

    values: Values
    floor: float | None = None

    def to_logits(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """The logits (n, classes) of rows (n, classes): log-probabilities are such, up to a constant a row."""
        exact = np.asarray(rows, np.float64)
        if self.values == "logits":
            return exact
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(np.maximum(exact, 0.0)) if self.values == "probabilities" else exact
            return logs if self.floor is None else np.maximum(logs, np.log(self.floor))

    @property
    def parameters(self) -> dict[str, Any]:
        """What a manifest says of it; nothing of plain logits."""
        if self.values == "logits":
            return {}
        return {"given": self.values} | ({} if self.floor is None else {"floor": self.floor})


@dataclass
class Survey:
    """What all rows look like.

    Attributes:
        rows: their number.
        like: of these look like probabilities, log-probabilities or percentages; or lie in [0, 1] at least.
        other: the first row that looks not like that, with the reason.
        infinite: row and column of the first minus infinity.
        zero: row and column of the first probability of 0, were these probabilities.
        below: how many of the numbers are below the floor.
    """

    rows: int = 0
    like: dict[str, int] = field(default_factory=dict)
    other: dict[str, tuple[int, str]] = field(default_factory=dict)
    infinite: tuple[int, int] | None = None
    zero: tuple[int, int] | None = None
    below: int = 0

    def is_mostly(self, kind: str) -> bool:
        """Whether more than half of the rows look like this: a few do by accident."""
        return self.like.get(kind, 0) > self.rows / 2


def survey_outputs(outputs: NDArray[Any], reading: Reading) -> Survey:
    """Look at rows (n, classes), a few megabytes at a time."""
    found = Survey()
    size = max(1, PIECE_BYTES // max(1, 8 * outputs.shape[1]))
    for start in range(0, len(outputs), size):
        rows = np.asarray(outputs[start : start + size], np.float64)
        for kind, totals, good in _classify_rows(rows):
            found.like[kind] = found.like.get(kind, 0) + int(good.sum())
            if kind not in found.other and not good.all():
                bad = int(np.argmin(good))
                found.other[kind] = (
                    start + bad,
                    f"numbers from {rows[bad].min():.6g} to {rows[bad].max():.6g}, {totals[bad]}",
                )
        found.infinite = found.infinite or _find_first(np.isneginf(rows), start)
        found.zero = found.zero or _find_first(rows <= 0, start)
        if reading.floor is not None:
            least = reading.floor if reading.values == "probabilities" else np.log(reading.floor)
            found.below += int((rows < least).sum())
        found.rows += len(rows)
    return found


class _RowTotals:
    """Sums of rows, each formatted when it is asked for."""

    def __init__(self, what: str, sums: NDArray[np.float64]) -> None:
        self.what, self.sums = what, sums

    def __getitem__(self, row: int) -> str:
        return f"{self.what} {self.sums[row]:.6g}"


def _classify_rows(rows: NDArray[np.float64]) -> Iterator[tuple[str, _RowTotals, NDArray[np.bool_]]]:
    """Each kind that rows may look like, their sums, and which do; NaN looks like nothing."""
    with np.errstate(all="ignore"):
        sums, least, most = rows.sum(1), rows.min(1), rows.max(1)
        masses = np.exp(np.minimum(rows, 1.0)).sum(1)
    totals = _RowTotals("sum", sums)
    within = (least >= -NEGATIVE) & (most <= 1 + TOLERANCE)
    yield "probabilities", totals, within & (np.abs(sums - 1) <= TOLERANCE)
    yield "log-probabilities", _RowTotals("sum of exp", masses), (most <= TOLERANCE) & (np.abs(masses - 1) <= TOLERANCE)
    yield "percentages", totals, (least >= -NEGATIVE) & (np.abs(sums - PERCENT) <= PERCENT * TOLERANCE)
    yield "[0, 1]", totals, within


def _find_first(there: NDArray[np.bool_], start: int) -> tuple[int, int] | None:
    places = np.argwhere(there)
    return (start + int(places[0, 0]), int(places[0, 1])) if len(places) else None


def choose_reading(values: Values | None, floor: float | None, classes: int) -> Reading:
    """How rows are to be read: as logits unless it is said otherwise.

    Raises:
        InputError: a floor of logits, or one that is no small probability.
    """
    reading = Reading(values or "logits", floor)
    if floor is not None and reading.values == "logits":
        raise InputError("--floor", expected="--values probabilities or log-probabilities", found=values or "none")
    if floor is not None and not 0 < floor < 1 / classes:
        raise InputError(
            "--floor",
            expected=f"a probability above 0 and below 1/{classes}, that of chance",
            found=f"{floor:g}",
            fix="say 1e-6",
        )
    return reading


def refuse_wrong_values(
    path: str, values: Values | None, reading: Reading, found: Survey, classes: tuple[str, ...]
) -> None:
    """Raise InputError where rows look like other numbers than they are said to be, or where one cannot be a logit.

    Args:
        path: of the file, for messages.
        values: what the user has said; None: nothing.
        reading: how they are to be read.
        found: what they look like.
        classes: names of the columns.
    """
    if values is None:
        _refuse_look_alikes(path, found)
    if reading.values != "logits" and reading.values in found.other:
        row, why = found.other[reading.values]
        sums = "which" if reading.values == "probabilities" else "whose exponentials"
        raise InputError(
            f"{path}: sample {row}",
            expected=f"{reading.values}, {sums} sum to 1",
            found=why,
            fix=_suggest_fix(found),
        )
    gap = found.zero if reading.values == "probabilities" else found.infinite
    if gap is None or reading.floor is not None:
        return
    row, column = gap
    if reading.values == "logits":
        raise InputError(
            f"{path}: sample {row}, class {classes[column]!r}",
            expected="a finite logit",
            found="-inf",
            fix="put a finite number below the others of its row there",
        )
    raise InputError(
        f"{path}: sample {row}, class {classes[column]!r}",
        expected="a probability above 0, which has a logarithm",
        found="0" if reading.values == "probabilities" else "-inf, the logarithm of 0",
        fix="say --floor 1e-6, and smaller ones count as that",
    )


def _refuse_look_alikes(path: str, found: Survey) -> None:
    """Raise InputError where most rows look like something else than logits."""
    for kind in ("probabilities", "log-probabilities"):
        if found.is_mostly(kind):
            floor = found.zero if kind == "probabilities" else found.infinite
            raise InputError(
                path,
                expected="logits",
                found=f"rows that look like {kind} ({found.like[kind]:,} of {found.rows:,})",
                fix=f"say --values {kind}{' --floor 1e-6' if floor else ''}, or --values logits where they are such",
            )
    if found.is_mostly("percentages"):
        raise InputError(
            path,
            expected="logits",
            found=f"rows that look like percentages ({found.like['percentages']:,} of {found.rows:,} sum to 100)",
            fix="divide them by 100 and say --values probabilities, or --values logits where they are such",
        )


def _suggest_fix(found: Survey) -> str:
    if found.is_mostly("percentages"):
        return "divide them by 100"
    kinds = [kind for kind in ("probabilities", "log-probabilities") if found.is_mostly(kind)]
    if kinds:
        return f"mend this row, or say --values {kinds[0]}, which most rows look like"
    return "say --values logits where they are such, or let each row sum to 1"


def describe_reading(reading: Reading, found: Survey, classes: int) -> Iterator[str]:
    """Lines that say what was made of the numbers."""
    if reading.values == "probabilities":
        yield "probabilities: their logarithms are kept, which are logits up to a constant a row"
    elif reading.values == "log-probabilities":
        yield "log-probabilities: kept as they are, which are logits up to a constant a row"
    if found.below:
        count = f"{found.below:,} of {found.rows * classes:,} probabilities"
        yield f"floor: {count} were below {reading.floor:g} and count as that"


def warn_of_look_alikes(reading: Reading, values: Values | None, found: Survey) -> Iterator[str]:
    """Warnings of logits that look like something else all the same.

    Args:
        reading: how they are read.
        values: what the user has said; None: nothing.
        found: what they look like.
    """
    if reading.values != "logits":
        return
    like = [kind for kind in ("probabilities", "log-probabilities", "percentages") if found.is_mostly(kind)]
    if values and like:
        count = f"{found.like[like[0]]:,} of {found.rows:,} rows"
        yield f"taken as logits, as --values says, though {count} look like {like[0]}"
    elif found.is_mostly("[0, 1]"):
        count = f"{found.like['[0, 1]']:,} of {found.rows:,} rows"
        yield f"all numbers of {count} lie in [0, 1], though most sums are not 1: are they logits?"
