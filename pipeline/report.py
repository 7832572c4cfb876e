"""The report: one table and pictures, as Markdown and as one HTML file that opens offline."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline import figures
from pipeline.pictures.canvas import Picture
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
    """All that the report's files say.

    Attributes:
        rows: of the table.
        notes: below it.
        pictures: by file name, PNG.
        captions: of the pictures that have one, by file name.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    pictures: Mapping[str, bytes]
    captions: Mapping[str, str] = field(default_factory=dict)

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
        for name in self.pictures:
            lines.append(f"\n![{name.removesuffix('.png')}]({name})")
            lines += [f"\n*{_escaped(self.captions[name])}*"] if name in self.captions else []
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """`report.html`: pictures and style inside, no request to anywhere."""
        head = "".join(f"<th>{html.escape(column)}</th>" for column in COLUMNS)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells()) + "</tr>" for row in self.rows
        )
        notes = "\n".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        pictures = "\n".join(self._figure(name, data) for name, data in self.pictures.items())
        return PAGE.format(head=head, body=body, notes=notes, pictures=pictures)

    def _figure(self, name: str, data: bytes) -> str:
        """A picture with its caption where it has one."""
        image = f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        if name not in self.captions:
            return image
        return f"<figure>\n{image}\n<figcaption>{html.escape(self.captions[name])}</figcaption>\n</figure>"


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
figure {{ margin: 2.5em 0; }}
figure img {{ margin: 0 0 .5em; }}
figcaption {{ font-size: 13px; color: #555; }}
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
    *,
    pictures: Iterable[Picture] = (),
    more_notes: Iterable[str] = (),
) -> Report:
    """Put the metrics of all stages together.

    Args:
        teachers, students: the metrics files, by name, in the order to show.
        curves: by student, one validation-accuracy curve a seed; empty without validation part.
        baseline: the student that the others are compared with; by default the first that learns
            from labels alone.
        pictures: of what is cached, to stand below those of the students.
        more_notes: what they leave out.
    """
    chosen = baseline or labels_only(students)
    pictures = list(pictures)
    rows = [_teacher_row(name, metrics) for name, metrics in teachers.items()]
    rows += [_student_row(name, metrics, students.get(chosen or ""), teachers) for name, metrics in students.items()]
    notes = [f"{name}: {rule}" for name, rule in _rules(students).items()]
    if chosen is not None:
        notes.append(
            f"Gap closed: (student - {chosen}) / (teacher - {chosen}), the teacher being the best of those that taught "
            f"it, for students of {chosen}'s data set; empty where {chosen} is the better one; means over seeds, to be "
            "read beside their spread. `report: {baseline: NAME}` names another."
        )
    own = {
        "accuracy.png": figures.box_plot(
            {name: metrics["test_accuracy_per_seed"] for name, metrics in students.items()},
            {name: metrics["test_accuracy"] for name, metrics in teachers.items()},
        ),
        "curves.png": figures.curves({name: seeds for name, seeds in curves.items() if seeds and seeds[0]}),
    }
    drawn = {picture.name: picture.png for picture in pictures}
    captions = {picture.name: picture.caption for picture in pictures}
    return Report(tuple(rows), (*notes, *more_notes), {**own, **drawn}, captions)


def labels_only(students: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The first student whose only loss, in every phase, is `ce`."""
    terms = {name: {loss for phase in _phases(metrics) for loss in phase} for name, metrics in students.items()}
    return next((name for name, losses in terms.items() if losses == {"ce"}), None)


def best_taught(
    students: Mapping[str, Mapping[str, Any]], dataset: str, baseline: str | None, count: int
) -> tuple[str, ...]:
    """At most `count` students of a data set (its fingerprint): the baseline, then the best of those with a teacher."""
    of_it = {name: metrics for name, metrics in students.items() if metrics["dataset"] == dataset}
    taught = [name for name, metrics in of_it.items() if metrics["taught_by"] and name != baseline]
    best = sorted(taught, key=lambda name: -of_it[name]["test_accuracy"]["mean"])
    return tuple([*([baseline] if baseline in of_it else []), *best][:count])


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
    return Row(
        name,
        "student",
        _losses(metrics),
        accuracy["mean"],
        accuracy["std"],
        accuracy["n"],
        metrics["parameters"],
        metrics["bytes"],
        closed,
    )


def _phases(metrics: Mapping[str, Any]) -> list[Mapping[str, Mapping[str, Any]]]:
    """The loss terms of each phase, the student's own last; metrics of old have that alone."""
    return [*metrics.get("pretrain", ()), metrics["losses"]]


def _losses(metrics: Mapping[str, Any]) -> str:
    """The phases as people write them: `hint_mse, then 0.5 ce + 0.5 soft_targets`."""
    *before, own = _phases(metrics)
    return ", then ".join([*map(_pretraining, before), _sum(own)])


def _pretraining(phase: Mapping[str, Mapping[str, Any]]) -> str:
    """A lone loss of weight 1 needs no weight."""
    ((loss, term), *others) = phase.items()
    alone = not others and term["weight"] == 1
    return f"{loss}{_listed(term['options'])}" if alone else _sum(phase)


def _sum(terms: Mapping[str, Mapping[str, Any]]) -> str:
    return " + ".join(_term(loss, **term) for loss, term in terms.items())


def _term(loss: str, weight: float | Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """A loss term as people write it: `0.5 soft_targets (temperature 4.0)`."""
    if isinstance(weight, Mapping):
        numbers = {key: value for key, value in weight.items() if key != "name"}
        return f"{weight['name']}{_listed(numbers)} {loss}{_listed(options)}"
    return f"{weight} {loss}{_listed(options)}"


def _listed(options: Mapping[str, Any]) -> str:
    return f" ({', '.join(f'{key} {value}' for key, value in options.items())})" if options else ""


def _escaped(text: str) -> str:
    """Text whose marks Markdown would take for its own."""
    return re.sub(r"([*_`\[\]<>\\])", r"\\\1", text)


def _rules(students: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Each rule for the reported epoch, under the students that follow it."""
    by_rule: dict[str, list[str]] = {}
    for name, metrics in students.items():
        by_rule.setdefault(metrics["rule"], []).append(name)
    return {f"Reported epoch of {', '.join(names)}": rule for rule, names in by_rule.items()}
