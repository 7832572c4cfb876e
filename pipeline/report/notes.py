"""The lines below the table: what a reader must know of its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from pipeline.base.plain_text import escape_code
from pipeline.report.groups import Baseline
from pipeline.report.metrics_files import Metrics
from pipeline.report.percent import format_percent
from pipeline.training.chance_level import join_doubts


def write_notes(
    students: Mapping[str, Metrics], baselines: Sequence[Baseline], teachers: Mapping[str, Metrics]
) -> Iterator[str]:
    """Rules, what the last column means, and what went on in a training.

    Args:
        students: the metrics, by name.
        baselines: what they are compared with.
        teachers: the metrics, by name.
    """
    yield from _describe_rules(students)
    yield from _describe_gaps(students, baselines, teachers)
    for name, metrics in teachers.items():
        yield from (f"Doubtful: {escape_code(doubt)}." for doubt in list_doubts({}, {name: metrics}))
        yield from _describe_restores(f"teacher {name}", [metrics.get("restores", 0)])
    for name, metrics in students.items():
        yield from (f"Doubtful: {escape_code(doubt)}." for doubt in list_doubts({name: metrics}, {}))
        yield from _describe_peers(name, metrics)
        yield from _describe_prepared(name, metrics)
        yield from _describe_restores(name, metrics["restores"])


def _describe_gaps(
    students: Mapping[str, Metrics], baselines: Sequence[Baseline], teachers: Mapping[str, Metrics]
) -> Iterator[str]:
    """What a gap is closed from."""
    if not baselines:
        return
    every = [name for base in baselines for name in base.group.students]
    first = every[0] if len(every) == 1 else "baseline"
    whose = f"{first}'s data set" if len(every) == 1 else f"the data sets of {', '.join(every)}"
    yield (
        f"Gap closed: (student - {first}) / (teacher - {first}), the teacher being the best of those that "
        f"taught it, for students of {whose} that a teacher taught; empty where {first} is the better one; means "
        "over seeds, to be read beside their spread. `report: {baseline: NAME}` names another."
    )
    if len(baselines) > 1:
        told = (f"of {', '.join(base.others)} it is {base.group.name}" for base in baselines)
        yield f"Each student has its own baseline: {'; '.join(told)}."
    if any("doubts" in students[name] for name in every) or any("doubt" in each for each in teachers.values()):
        yield f"Gap closed is empty too where {first}, or the best teacher, is doubtful."


def list_doubts(students: Mapping[str, Metrics], teachers: Mapping[str, Metrics]) -> Iterator[str]:
    """Which networks seem to have learnt nothing, each in a clause."""
    for name, metrics in teachers.items():
        if "doubt" in metrics:
            yield f"teacher {name} {metrics['doubt']}"
    for name, metrics in students.items():
        if "doubts" in metrics:
            yield f"{name} {join_doubts(metrics['doubts'])}"


def _describe_rules(students: Mapping[str, Metrics]) -> Iterator[str]:
    """Each rule for the reported epoch, with the students that follow it."""
    by_rule: dict[str, list[str]] = {}
    for name, metrics in students.items():
        by_rule.setdefault(metrics["rule"], []).append(name)
    for rule, names in by_rule.items():
        yield f"Reported epoch of {'all students' if len(by_rule) == 1 else ', '.join(names)}: {rule}."


def _describe_peers(name: str, student: Metrics) -> Iterator[str]:
    """Students that learn from each other are reported as one."""
    per_seed = student["test_accuracy_per_peer"]
    if per_seed is not None:
        means = [fmean(peer) for peer in zip(*per_seed, strict=True)]
        yield (
            f"{name} is {len(means)} peers that learn from each other; its accuracy of a seed is their mean. Each "
            f"peer's mean over seeds: {', '.join(map(format_percent, means))} %."
        )


def _describe_prepared(name: str, student: Metrics) -> Iterator[str]:
    """How well each discriminator tells teacher from student before it teaches; of other terms what they say."""
    for term, made in student["prepared"].items():
        if not {"discriminator_accuracy", "held_out"} <= made.keys():
            told = (f"{key} {', '.join(map(str, by_seed))}" for key, by_seed in made.items())
            yield f"{name}: {term}: {'; '.join(told)} (by seed)."
            continue
        rates = made["discriminator_accuracy"]
        least = f" (at least {format_percent(min(rates))} %, over {len(rates)} seeds)" if len(rates) > 1 else ""
        yield (
            f"{name}: the discriminator of its term {term} is right for {format_percent(fmean(rates))} %{least} of the "
            f"logits of {min(made['held_out']):,} samples that it was not trained on."
        )


def _describe_restores(name: str, restores: Sequence[int]) -> Iterator[str]:
    """Trainings that met NaN or infinite numbers."""
    if any(restores):
        times = ", ".join(map(str, restores))
        yield f"{name} met numbers that are not finite and went back to the epoch before: {times} times, by seed."
