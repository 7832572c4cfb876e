"""What the metrics files of teachers and students say, as the report reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

AccuracyCurves = Sequence[Sequence[float]]  # one a network: a quantity by epoch
Metrics = Mapping[str, Any]  # of one network: its JSON file
Terms = Mapping[str, Mapping[str, Any]]  # of one phase: by name, the loss terms as the user has written them

TEACHER_KEYS = ("test_accuracy", "parameters", "bytes", "bits")
STUDENT_KEYS = (
    *TEACHER_KEYS,
    "test_accuracy_per_seed",
    "test_accuracy_per_peer",
    "losses",
    "pretrain",
    "phase_epochs",
    "init",
    "prepared",
    "restores",
    "consumed",
    "taught_by",
    "rule",
    "dataset",
)


def list_phases(student: Metrics) -> list[Terms]:
    """The loss terms of each phase, the student's own last."""
    return [*student["pretrain"], student["losses"]]


def find_loss(name: str, term: Mapping[str, Any]) -> str:
    """The loss that a term is: its name says so unless it has a `loss`."""
    return str(term.get("loss", name))


def find_labels_only(students: Mapping[str, Metrics]) -> str | None:
    """The first student that only ever saw labels: its one loss, and that of the student it starts from, is `ce`."""
    return next((name for name in students if all(loss == "ce" for loss in _collect_losses(students, name))), None)


def _collect_losses(students: Mapping[str, Metrics], name: str) -> Iterator[str]:
    """The losses of every phase, those of the student that it starts from included."""
    student = students[name]
    yield from (find_loss(term, its) for phase in list_phases(student) for term, its in phase.items())
    start = student["init"]
    if start is not None:
        yield from _collect_losses(students, start["student"])


def select_best_taught(
    students: Mapping[str, Metrics], dataset: str, baseline: str | None, count: int
) -> tuple[str, ...]:
    """At most `count` students of a data set (its fingerprint): the baseline, then the best of those with a teacher."""
    of_it = {name: metrics for name, metrics in students.items() if metrics["dataset"] == dataset}
    taught = [name for name, metrics in of_it.items() if metrics["taught_by"] and name != baseline]
    best = sorted(taught, key=lambda name: -of_it[name]["test_accuracy"]["mean"])
    return tuple([*([baseline] if baseline in of_it else []), *best][:count])
