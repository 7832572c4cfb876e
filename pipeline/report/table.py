"""The main table: one network a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.base.statistics import compute_gap_closed
from pipeline.report.metrics_files import Metrics, Terms, find_loss, list_phases
from pipeline.report.percent import format_interval, format_percent
from pipeline.report.significance import compute_interval

COLUMNS = (
    "network", "losses", "reads", "test accuracy (%)", "std", "95 % interval", "n", "parameters", "bytes", "bits",
    "multiply-adds", "activation bytes", "gap closed",
)  # fmt: skip
TEXTS = 3  # columns that are no numbers
PAGES_ALONE = ("multiply-adds", "activation bytes")  # columns that a terminal has no room for


@dataclass(frozen=True)
class Row:
    """One network of the table; accuracies in [0, 1].

    Attributes:
        reads: the dumps that it learnt from.
        interval: of the mean over seeds, None below 3 of them.
        bits: of the network as it is deployed.
        multiply_adds, activation_bytes: of one image; None where its metrics are older than these.
        gap_closed: None where there is no gap to close, or none that means anything.
    """

    name: str
    kind: str
    losses: str
    reads: str
    mean: float
    std: float | None
    interval: tuple[float, float] | None
    n: int
    parameters: int
    bytes: int
    bits: int
    multiply_adds: int | None
    activation_bytes: int | None
    gap_closed: float | None

    def cells(self) -> tuple[str, ...]:
        """The row as it is printed."""
        return (
            f"{self.kind} {self.name}",
            self.losses,
            self.reads,
            format_percent(self.mean),
            format_percent(self.std),
            format_interval(self.interval),
            str(self.n),
            *map(_format_size, (self.parameters, self.bytes, self.bits, self.multiply_adds, self.activation_bytes)),
            "" if self.gap_closed is None else f"{100 * self.gap_closed:.0f} %",
        )

    def cells_of(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Some of the cells."""
        cells = dict(zip(COLUMNS, self.cells(), strict=True))
        return tuple(cells[column] for column in columns)

    def summary(self) -> dict[str, Any]:
        """Its numbers, for `dvc metrics`."""
        low, high = self.interval or (None, None)
        numbers = {"test_accuracy": self.mean, "std": self.std, "low": low, "high": high, "n": self.n}
        return {**numbers, "gap_closed": self.gap_closed}


def build_rows(
    teachers: Mapping[str, Metrics], students: Mapping[str, Metrics], baselines: Mapping[str, Sequence[str]]
) -> Iterator[Row]:
    """Teachers, then students, in the order given.

    Args:
        teachers, students: the metrics, by name.
        baselines: by student, those that its gap is closed from, each on its own data set.
    """
    for name, metrics in teachers.items():
        yield Row(name, "teacher", "", "", metrics["test_accuracy"], None, None, 1, *_size(metrics), None)
    for name, metrics in students.items():
        accuracy = metrics["test_accuracy"]
        yield Row(
            name,
            "student",
            format_losses(metrics),
            ", ".join(metrics["consumed"]),
            accuracy["mean"],
            accuracy["std"],
            compute_interval(metrics["test_accuracy_per_seed"]),
            accuracy["n"],
            *_size(metrics),
            _compute_gap(metrics, _find_start(metrics, [students[each] for each in baselines.get(name, ())]), teachers),
        )


def _find_start(student: Metrics, baselines: Iterable[Metrics]) -> Metrics | None:
    """The first baseline of the student's data set."""
    return next((metrics for metrics in baselines if metrics["dataset"] == student["dataset"]), None)


def _size(metrics: Metrics) -> tuple[int, int, int, int | None, int | None]:
    costs = metrics.get("multiply_adds"), metrics.get("activation_bytes")
    return metrics["parameters"], metrics["bytes"], metrics["bits"], *costs


def _format_size(size: int | None) -> str:
    """A number in full; a dash for one that is not known."""
    return "-" if size is None else f"{size:,}"


def _compute_gap(student: Metrics, baseline: Metrics | None, teachers: Mapping[str, Metrics]) -> float | None:
    """Against the best of those that taught it; None where it or the baseline seems to have learnt nothing."""
    taught_by = [teachers[teacher] for teacher in student["taught_by"] if teacher in teachers]
    if baseline is None or not taught_by:
        return None
    best = max(taught_by, key=lambda teacher: teacher["test_accuracy"])
    if "doubts" in baseline or "doubt" in best:
        return None
    return compute_gap_closed(
        student["test_accuracy"]["mean"], baseline["test_accuracy"]["mean"], best["test_accuracy"]
    )


def format_losses(student: Metrics) -> str:
    """The phases as people write them: `from initial: hint_mse, then 0.5 ce + 0.5 soft_targets`."""
    *before, own = list_phases(student)
    start = "" if student["init"] is None else f"from {student['init']['student']}: "
    return start + ", then ".join([*map(_describe_pretraining, before), _describe_sum(own)])


def _describe_pretraining(phase: Terms) -> str:
    """A lone loss of weight 1 needs no weight."""
    ((name, term), *others) = phase.items()
    alone = not others and term["weight"] == 1
    return f"{find_loss(name, term)}{_describe_options(term['options'])}" if alone else _describe_sum(phase)


def _describe_sum(terms: Terms) -> str:
    return " + ".join(
        _describe_term(find_loss(name, term), term["weight"], term["options"]) for name, term in terms.items()
    )


def _describe_term(loss: str, weight: float | Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """A loss term as people write it: `0.5 soft_targets (temperature 4.0)`."""
    if isinstance(weight, Mapping):
        numbers = {key: value for key, value in weight.items() if key != "name"}
        return f"{weight['name']}{_describe_options(numbers)} {loss}{_describe_options(options)}"
    return f"{weight} {loss}{_describe_options(options)}"


def _describe_options(options: Mapping[str, Any]) -> str:
    return f" ({', '.join(_describe_option(key, value) for key, value in options.items())})" if options else ""


def _describe_option(key: str, value: Any) -> str:
    """An option as people write it; of a group of options each of its own."""
    if isinstance(value, Mapping):
        return f"{key}: {', '.join(_describe_option(*each) for each in value.items())}"
    return f"{key} {value}"
