"""Which dumps one stage makes: those of a network that see the same samples in the same batches, in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.study.sections import Study


@dataclass(frozen=True)
class DumpStage:
    """A stage of dvc.yaml that makes dumps.

    Attributes:
        name: its name.
        command: what `teachercache` is told.
        dumps: their names; all are of one network and one data set.
    """

    name: str
    command: str
    dumps: tuple[str, ...]


def list_dump_stages(study: Study) -> list[DumpStage]:
    """The stages of all dumps.

    Raises:
        ValueError: two would have one name.
    """
    made: dict[str, DumpStage] = {}
    for names in group_dumps(study, (name for name in study.dumps if not study.is_apart(name))):
        _add_stage(made, _describe_stage(study, names, first=f"dumps-{study.dumps[names[0]].of}" not in made))
    for name in filter(study.is_apart, study.dumps):
        _add_stage(made, _describe_stage(study, (name,)))
    order = list(study.dumps)
    return sorted(made.values(), key=lambda stage: order.index(stage.dumps[0]))


def find_dump_stage(study: Study, dump: str) -> DumpStage:
    """The stage that makes a dump."""
    return next(stage for stage in list_dump_stages(study) if dump in stage.dumps)


def group_dumps(study: Study, dumps: Iterable[str]) -> list[tuple[str, ...]]:
    """The dumps, each with those that can be made in the same pass."""
    passes: dict[tuple[object, ...], tuple[str, ...]] = {}
    for name in dumps:
        spec = study.dumps[name]
        seen = spec.of, spec.of_seed, spec.dataset, spec.samples, spec.batch, spec.forward
        passes[seen] = (*passes.get(seen, ()), name)
    return list(passes.values())


def name_dump_work(study: Study, dump: str) -> str:
    """The name of a dump's unfinished work, whichever stage makes it."""
    return f"dump-{study.dumps[dump].field}-{dump}"


def _describe_stage(study: Study, dumps: tuple[str, ...], *, first: bool = True) -> DumpStage:
    """The stage of some dumps; `first`: of several that their network has."""
    spec = study.dumps[dumps[0]]
    if len(dumps) == 1:
        return DumpStage(name_dump_work(study, dumps[0]), f"dump-{spec.field} {dumps[0]}", dumps)
    name = f"dumps-{spec.of}" if first else f"dumps-{spec.of}-{dumps[0]}"
    return DumpStage(name, f"dump {spec.of} {' '.join(dumps)}", dumps)


def _add_stage(made: dict[str, DumpStage], stage: DumpStage) -> None:
    if stage.name in made:
        one, other = made[stage.name].dumps[0], stage.dumps[0]
        raise ValueError(f"dumps: {one!r} and {other!r} would both be made by stage {stage.name!r}; rename one of them")
    made[stage.name] = stage
