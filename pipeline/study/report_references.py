"""References of the `report` section: names that must exist, and measurements that must be made."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pipeline.base.registry import describe_unknown
from pipeline.study.report_section import ReportParams


def check_report_references(
    report: ReportParams, teachers: Collection[str], students: Collection[str], watched: Collection[str]
) -> None:
    """Raise ValueError for a name that nobody has or that stands there twice, and for what nobody measures.

    Args:
        report: the section.
        teachers: those that have metrics.
        students: all.
        watched: teachers and students whose validation accuracy is measured in each epoch.
    """
    for name in report.baselines:
        if name not in students:
            raise ValueError("report.baseline: " + describe_unknown("student", name, students))
    group_of = _map_groups(report, teachers, students)
    groups = [*report.groups, *(student for student in students if student not in group_of)]
    for key, name in _list_named_groups(report):
        _refuse_other(key, "group", name, groups, group_of)
    for key, name in _list_named_networks(report):
        _refuse_other(key, "student, group or teacher", name, [*groups, *teachers], group_of)
    _check_baselines(report, groups, group_of)
    for name in report.terms:
        if name not in students:
            raise ValueError("report.terms: " + describe_unknown("student", name, students))
    _refuse_twins("report.anova", "group", report.anova or ())
    _refuse_twins("report.terms", "student", report.terms)
    _refuse_sides(report, teachers)
    _refuse_unwatched(report, watched)


def _map_groups(report: ReportParams, teachers: Collection[str], students: Collection[str]) -> dict[str, str]:
    """By student that a group names, that group."""
    group_of: dict[str, str] = {}
    for group, members in report.groups.items():
        key = f"report.groups.{group}"
        for kind, names in (("student", students), ("teacher", teachers)):
            if group in names:
                raise ValueError(f"{key}: also the name of a {kind}; expected a name of its own")
        for member in members:
            if member not in students:
                raise ValueError(f"{key}: " + describe_unknown("student", member, students))
            if member in group_of:
                raise ValueError(f"{key}: expected each student once, found {member!r} in {group_of[member]!r} too")
            group_of[member] = group
    return group_of


def _check_baselines(report: ReportParams, groups: Collection[str], group_of: dict[str, str]) -> None:
    """Each baseline's own students or groups: each of them once, and none the baseline itself."""
    if report.baseline is None or isinstance(report.baseline, str):
        return
    baseline_of: dict[str, str] = {}
    _refuse_twins("report.baseline", "group", [group_of.get(baseline, baseline) for baseline in report.baseline])
    for baseline, names in report.baseline.items():
        key = f"report.baseline.{baseline}"
        for name in names:
            _refuse_other(key, "student or group", name, groups, group_of)
            if name == group_of.get(baseline, baseline):
                raise ValueError(
                    f"{key}: expected others to compare with it, found {name!r}, which it is or is a part of"
                )
            if name in baseline_of:
                raise ValueError(
                    f"{key}: expected each student or group once, found {name!r} in {baseline_of[name]!r} too"
                )
            baseline_of[name] = baseline


def _list_named_groups(report: ReportParams) -> Iterator[tuple[str, str]]:
    """Groups, or students that no group names, each with the key that names it."""
    yield from (("report.anova", name) for name in report.anova or ())
    for sweep, params in report.sweeps.items():
        yield from ((f"report.sweeps.{sweep}.values", name) for name in params.values)


def _list_named_networks(report: ReportParams) -> Iterator[tuple[str, str]]:
    """The same, or teachers."""
    for name in report.published.names if report.published else ():
        yield "report.published", name
    for claim, params in report.claims.items():
        yield f"report.claims.{claim}.ahead", params.ahead
        yield f"report.claims.{claim}.behind", params.behind


def _refuse_other(key: str, kind: str, name: str, known: Collection[str], group_of: dict[str, str]) -> None:
    if name in group_of:
        raise ValueError(f"{key}: {name!r} is compared as a part of group {group_of[name]!r}; name that")
    if name not in known:
        raise ValueError(f"{key}: " + describe_unknown(kind, name, known))


def _refuse_twins(key: str, kind: str, names: Collection[str]) -> None:
    for place, name in enumerate(names):
        if name in list(names)[:place]:
            raise ValueError(f"{key}: expected each {kind} once, found {name!r} twice")


def _refuse_sides(report: ReportParams, teachers: Collection[str]) -> None:
    """A claim is about two networks, and a teacher has one run and no epochs that the report counts."""
    for name, claim in report.claims.items():
        if claim.ahead == claim.behind:
            raise ValueError(f"report.claims.{name}: expected two networks, found {claim.ahead!r} twice")
        both = (claim.ahead, claim.behind)
        if all(side in teachers for side in both):
            raise ValueError(f"report.claims.{name}: expected at least one student, found two teachers")
        if claim.metric == "epochs" and any(side in teachers for side in both):
            raise ValueError(f"report.claims.{name}: expected students, whose epochs can be counted, found a teacher")


def _refuse_unwatched(report: ReportParams, watched: Collection[str]) -> None:
    """Known before anything is trained: what is asked of the validation part needs one."""
    for name in sorted(report.validated_names):
        for member in report.groups.get(name, (name,)):
            if member not in watched:
                raise ValueError(
                    f"report: asks for the validation accuracy of {member!r}; expected a network that is trained here "
                    "on a data set with a validation part"
                )
