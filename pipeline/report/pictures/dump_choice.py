"""Which dumps of a study the report draws: plain values of its sections, for the stage and for the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.study.part_sections import DumpParams
from pipeline.study.sections import Study

MOST_DUMPS = 3  # of a field
MOST_STUDENTS = 3  # beside a teacher
FEATURES = "features"  # the tap that every architecture of ours has: the last hidden layer
NEIGHBOURS = "tsne"


@dataclass(frozen=True)
class Choice:
    """What is drawn; all names in the study's order.

    Attributes:
        affinities: by dump, the students that learnt it, each with the options of its loss.
        hints: dumps.
        multichannel: dumps.
        feature_map: the dump whose features (or logits) are mapped, or None.
        left_out: of each kind that has too many, how many of how many are drawn.
    """

    affinities: Mapping[str, Mapping[str, Mapping[str, Any]]]
    hints: tuple[str, ...]
    multichannel: tuple[str, ...]
    feature_map: str | None
    left_out: tuple[str, ...]

    @property
    def dumps(self) -> tuple[str, ...]:
        """All that are read, each once."""
        one = () if self.feature_map is None else (self.feature_map,)
        return tuple(dict.fromkeys((*self.affinities, *self.hints, *self.multichannel, *one)))


def choose_dumps(study: Study) -> Choice:
    """The dumps to draw; none in a study of logits alone, whose report is its table and its curves."""
    there = {name: dump for name, dump in study.dumps.items() if _is_made(study, name)}
    taught = _find_affinity_students(study)
    of_field = {
        field: [name for name, dump in there.items() if dump.field == field] for field in ("hints", "multichannel")
    }
    hints, multichannel = (names[:MOST_DUMPS] for names in of_field.values())
    affinities = {dump: dict(list(taught[dump].items())[:MOST_STUDENTS]) for dump in list(taught)[:MOST_DUMPS]}
    few = {
        "dumps of hints": (hints, of_field["hints"]),
        "dumps of multi-channel labels": (multichannel, of_field["multichannel"]),
        "dumps of affinities": (affinities, taught),
        **{f"students of {dump}": (affinities[dump], taught[dump]) for dump in affinities},
    }
    left_out = tuple(
        f"Pictures show {', '.join(some)}: {len(some)} of the {len(every)} {what}."
        for what, (some, every) in few.items()
        if len(some) < len(every)
    )
    first = _choose_feature_map(study, there) if affinities or hints or multichannel else None
    return Choice(affinities, tuple(hints), tuple(multichannel), first, left_out)


def _is_made(study: Study, name: str) -> bool:
    """Whether the cache is there when all students are trained: an external teacher's may be one that nobody reads."""
    source = study.teachers.get(study.dumps[name].of)
    read = any(name in student.list_all_dumps() for student in study.students.values())
    return read or source is None or source.external is None


def _find_affinity_students(study: Study) -> dict[str, dict[str, Mapping[str, Any]]]:
    """By dump of affinities, the students that learn it in any phase; the last phase's options count."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {
        name: {} for name, dump in study.dumps.items() if dump.field == "affinities"
    }
    for name, student in study.students.items():
        for term in student.terms():
            if term.loss == NEIGHBOURS:
                for dump in term.dumps:
                    found[dump][name] = term.options
    return {dump: students for dump, students in found.items() if students}


def _choose_feature_map(study: Study, dumps: Mapping[str, DumpParams]) -> str | None:
    """The first dump of a teacher's features, else the first of its logits."""
    of_teachers = {name: dump for name, dump in dumps.items() if dump.of in study.teachers}
    features = (name for name, dump in of_teachers.items() if FEATURES in dump.options.get("taps", ()))
    return next(features, None) or _find_logits(of_teachers.items())


def _find_logits(dumps: Iterable[tuple[str, DumpParams]]) -> str | None:
    """The first dump of all classes' logits."""
    return next((name for name, dump in dumps if dump.field == "logits" and dump.options["top_k"] is None), None)
