"""What a study's source reports, beside what was measured here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.base.statistics import summarize
from pipeline.report.network_results import PART_NAMES, Measurements, Part, list_values
from pipeline.report.page import ReportSection, ReportTable
from pipeline.report.significance import compute_interval

Kind = Literal["error", "accuracy"]


@dataclass(frozen=True)
class Published:
    """The source's numbers.

    Attributes:
        metric: the part whose accuracy they are.
        kind: what they are.
        values: percent, by group or teacher.
    """

    metric: Part
    kind: Kind
    values: Mapping[str, float]


@dataclass(frozen=True)
class SourceComparison:
    """One network's number here and there; percent.

    Attributes:
        ours: the mean over n values.
        std, low, high: its standard deviation and 95 % interval; None where there are too few values.
        theirs: the source's.
        difference: ours - theirs, points.
    """

    ours: float
    std: float | None
    low: float | None
    high: float | None
    n: int
    theirs: float
    difference: float


def compare_with_source(published: Published, networks: Measurements) -> dict[str, SourceComparison]:
    """Each network that the source has a number of.

    Raises:
        InputError: it is about validation accuracies that nobody logged.
    """
    return {name: _compare_one(name, theirs, published, networks) for name, theirs in published.values.items()}


def _compare_one(name: str, theirs: float, published: Published, networks: Measurements) -> SourceComparison:
    accuracies = list_values(networks.accuracy(name, published.metric))
    values = [100 - 100 * value if published.kind == "error" else 100 * value for value in accuracies]
    made, (low, high) = summarize(values), compute_interval(values) or (None, None)
    return SourceComparison(made.mean, made.std, low, high, made.n, theirs, made.mean - theirs)


def build_source_section(published: Published, rows: Mapping[str, SourceComparison]) -> ReportSection:
    """The numbers as people read them."""
    return ReportSection("Beside the source", tuple(_write_blocks(published, rows)))


def _write_blocks(published: Published, rows: Mapping[str, SourceComparison]) -> Iterator[str | ReportTable]:
    what = f"{PART_NAMES[published.metric]} {published.kind}"
    end = ", the mean over the last twentieth of the epochs" if published.metric == "validation" else ""
    yield f"What the study's source reports, beside the {what} measured here{end}. Difference: ours - the source's."
    columns = ("network", f"{what} (%)", "std", "95 % interval", "n", "the source's", "difference (points)")
    yield ReportTable(columns, tuple(_format_row(name, row) for name, row in rows.items()))


def _format_row(name: str, row: SourceComparison) -> tuple[str, ...]:
    return (
        name,
        f"{row.ours:.2f}",
        "" if row.std is None else f"{row.std:.2f}",
        "" if row.low is None or row.high is None else f"{row.low:.2f} to {row.high:.2f}",
        str(row.n),
        f"{row.theirs:g}",
        f"{row.difference:+.2f}",
    )


def collect_source_numbers(published: Published, rows: Mapping[str, SourceComparison]) -> dict[str, Any]:
    """As JSON, nothing rounded."""
    return {
        "of": published.metric,
        "kind": published.kind,
        "networks": {name: asdict(row) for name, row in rows.items()},
    }
