"""The report: one table, two pictures, as Markdown and as one HTML file that opens offline."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import figures
from pipeline.statistics import gap_closed

TEACHER_KEYS = ("test_accuracy", "parameters", "bytes")
STUDENT_KEYS = (*TEACHER_KEYS, "test_accuracy_per_seed", "losses", "taught_by", "rule", "dataset")
COLUMNS = ("network", "losses", "test accuracy (%)", "std", "n", "parameters", "bytes", "gap closed")


@dataclass(frozen=True)
class Row:
    """One network of the table; accuracies in [0, 1]."""

    name: str
    kind: str
    losses: str
    mean: float
    std: float | None
    n: int
    parameters: int
    bytes: int | None
    gap_closed: float | None

    def cells(self) -> tuple[str, ...]:
        """The row as it is printed."""
        return (
            f"{self.kind} {self.name}",
            self.losses,
            f"{100 * self.mean:.2f}",
            "" if self.std is None else f"{100 * self.std:.2f}",
            str(self.n),
            f"{self.parameters:,}",
            "" if self.bytes is None else f"{self.bytes:,}",
            "" if self.gap_closed is None else f"{100 * self.gap_closed:.0f} %",
        )


@dataclass(frozen=True)
class Report:
    """All that the report's files say."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    pictures: Mapping[str, bytes]  # file name -> PNG

    def summary(self) -> dict[str, Any]:
        """The table's numbers, as JSON for `dvc metrics`."""
        made: dict[str, Any] = {}
        for row in self.rows:
            numbers = {"test_accuracy": row.mean, "std": row.std, "n": row.n, "gap_closed": row.gap_closed}
            made.setdefault(f"{row.kind}s", {})[row.name] = numbers
        return made

    def markdown(self) -> str:
        """`report.md`; it refers to the pictures beside it."""
        lines = ["# Report", "", "| " + " | ".join(COLUMNS) + " |", "|---|---" + "|---:" * (len(COLUMNS) - 2) + "|"]
        lines += ["| " + " | ".join(row.cells()) + " |" for row in self.rows]
        lines += ["", *(f"- {note}" for note in self.notes)]
        lines += [f"\n![{name.removesuffix('.png')}]({name})" for name in self.pictures]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """`report.html`: pictures and style inside, no request to anywhere."""
        head = "".join(f"<th>{html.escape(column)}</th>" for column in COLUMNS)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells()) + "</tr>" for row in self.rows
        )
        notes = "\n".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        pictures = "\n".join(
            f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
            for name, data in self.pictures.items()
        )
        return PAGE.format(head=head, body=body, notes=notes, pictures=pictures)


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>teachercache report</title>
<link rel="icon" href="data:,">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; }}
table {{ border-collapse: collapse; margin: 1em 0; }}
th, td {{ padding: .35em .8em; border-bottom: 1px solid #ddd; text-align: right; }}
th:nth-child(-n+2), td:nth-child(-n+2) {{ text-align: left; }}
img {{ max-width: 100%; display: block; margin: 1.5em 0; }}
</style>
</head>
<body>
<h1>Report</h1>
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
<ul>
{notes}
</ul>
{pictures}
</body>
</html>
"""


def build(
    teachers: Mapping[str, Mapping[str, Any]],
    students: Mapping[str, Mapping[str, Any]],
    curves: Mapping[str, Sequence[Sequence[float]]],
    baseline: str | None = None,
) -> Report:
    """Put the metrics of all stages together.

    Args:
        teachers, students: the metrics files, by name, in the order to show.
        curves: by student, one validation-accuracy curve a seed; empty without validation part.
        baseline: the student that the others are compared with; by default the first whose
            only loss is `ce`.
    """
    labels_only = (name for name, metrics in students.items() if set(metrics["losses"]) == {"ce"})
    chosen = baseline or next(labels_only, None)
    rows = [_teacher_row(name, metrics) for name, metrics in teachers.items()]
    rows += [_student_row(name, metrics, students.get(chosen or ""), teachers) for name, metrics in students.items()]
    notes = [f"{name}: {rule}" for name, rule in _rules(students).items()]
    if chosen is not None:
        notes.append(
            f"Gap closed: (student - {chosen}) / (teacher - {chosen}), for taught students of {chosen}'s data set; "
            "means over seeds, to be read beside their spread. `report: {baseline: NAME}` names another."
        )
    pictures = {
        "accuracy.png": figures.box_plot(
            {name: metrics["test_accuracy_per_seed"] for name, metrics in students.items()},
            {name: metrics["test_accuracy"] for name, metrics in teachers.items()},
        ),
        "curves.png": figures.curves({name: seeds for name, seeds in curves.items() if seeds and seeds[0]}),
    }
    return Report(tuple(rows), tuple(notes), pictures)


def _teacher_row(name: str, metrics: Mapping[str, Any]) -> Row:
    return Row(name, "teacher", "", metrics["test_accuracy"], None, 1, metrics["parameters"], metrics["bytes"], None)


def _student_row(
    name: str, metrics: Mapping[str, Any], baseline: Mapping[str, Any] | None, teachers: Mapping[str, Mapping[str, Any]]
) -> Row:
    accuracy = metrics["test_accuracy"]
    closed = None
    taught_by = [teacher for teacher in metrics["taught_by"] if teacher in teachers]
    if baseline is not None and taught_by and baseline["dataset"] == metrics["dataset"]:
        best = max(teachers[teacher]["test_accuracy"] for teacher in taught_by)
        closed = gap_closed(accuracy["mean"], baseline["test_accuracy"]["mean"], best)
    losses = " + ".join(_term(loss, **term) for loss, term in metrics["losses"].items())
    return Row(
        name,
        "student",
        losses,
        accuracy["mean"],
        accuracy["std"],
        accuracy["n"],
        metrics["parameters"],
        metrics["bytes"],
        closed,
    )


def _term(loss: str, weight: float | Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """A loss term as people write it: `0.5 soft_targets (temperature 4.0)`."""
    if isinstance(weight, Mapping):
        numbers = {key: value for key, value in weight.items() if key != "name"}
        return f"{weight['name']}{_listed(numbers)} {loss}{_listed(options)}"
    return f"{weight} {loss}{_listed(options)}"


def _listed(options: Mapping[str, Any]) -> str:
    return f" ({', '.join(f'{key} {value}' for key, value in options.items())})" if options else ""


def _rules(students: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Each rule for the reported epoch, under the students that follow it."""
    by_rule: dict[str, list[str]] = {}
    for name, metrics in students.items():
        by_rule.setdefault(metrics["rule"], []).append(name)
    return {f"Reported epoch of {', '.join(names)}": rule for rule, names in by_rule.items()}
