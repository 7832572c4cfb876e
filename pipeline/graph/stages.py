"""Params -> the stage graph, as plain values: which command reads and writes which files."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.datasets import SOURCES
from pipeline.dumps import FIELDS
from pipeline.losses import TERMS
from pipeline.losses.weights import SCHEDULES
from pipeline.models import MODELS
from pipeline.models.heads import HEADS
from pipeline.report.pictures.dump_choice import choose_dumps
from pipeline.study.cross_references import order_students
from pipeline.study.dump_stages import DumpStage, list_dump_stages
from pipeline.study.layout import Layout
from pipeline.study.part_sections import DumpParams
from pipeline.study.sections import StudentParams, Study, TeacherParams, weight_files
from pipeline.views import POLICIES


@dataclass(frozen=True)
class Stage:
    """One command and exactly what decides its result.

    Attributes:
        name: the stage's name in dvc.yaml.
        command: the shell command.
        modules: that decide the result: of the run, and of the parts that it finds by their names. What these import
            decides it too: see `graph.code_dependencies`.
        deps, outs: paths read and written.
        params: keys of params.yaml that it uses.
        metrics: small JSON files that git keeps.
        outs_in_git: outputs that git keeps too, since people look at them.
        group: the headline it stands under.
    """

    name: str
    command: str
    group: str
    modules: tuple[str, ...] = ()
    deps: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    outs_in_git: tuple[str, ...] = ()


def format_command(command: str, file: str = "params.yaml") -> str:
    """A command of ours as it is typed, or as DVC's shell reads it: with the parameters that are not the default."""
    option = () if file == "params.yaml" else ("--params", shlex.quote(file))
    return " ".join(("teachercache", command, *option))


def escape_line_ends(file: str) -> str:
    """A file's name for a comment, which a line end in it would end."""
    return file if file.isprintable() else json.dumps(file)


def compile_stages(study: Study) -> list[Stage]:
    """The study's stages in the order of the flow.

    Of its parameters a stage lists only keys that stand in the study's file.
    """
    made = list(_Compiler(study, Layout(Path())).compile())
    refuse_circular_paths(made, study.file)
    return made


def refuse_circular_paths(graph: Sequence[Stage], file: str) -> None:
    """Raise InputError where a stage reads a folder that the stages write into, or what comes only after it."""
    made = {
        Path(os.path.realpath(out)): (place, out)
        for place, stage in enumerate(graph)
        for out in (*stage.outs, *stage.metrics, *stage.outs_in_git)
    }
    for place, stage in enumerate(graph):
        for dep in stage.deps:
            path = Path(os.path.realpath(dep))
            around = [out for folder, (_, out) in made.items() if path in folder.parents]
            later = [out for folder, (when, out) in made.items() if when >= place and path.is_relative_to(folder)]
            if around or later:
                raise InputError(
                    f"{file}: stage {stage.name} reads {dep}",
                    expected="a path apart from what this stage and later ones write",
                    found=f"{(around + later)[0]} {'inside' if around else 'there'}",
                    fix="keep images and weights in a folder of their own beside data/, such as photos/, and name that",
                )


@dataclass(frozen=True)
class _Compiler:
    study: Study
    layout: Layout

    def compile(self) -> Iterator[Stage]:
        yield Stage(
            "graph",
            self.format_command("graph --check"),
            f"Is this file the one that {escape_line_ends(self.study.file)} compiles to?",
            deps=(self.study.file,),
        )
        yield from map(self.prepare_stage, self.study.datasets)
        teachers = self.study.teachers_run_here
        members_first = sorted(teachers, key=lambda name: self.study.teachers[name].members is not None)
        yield from map(self.teacher_stage, members_first)
        yield from self.dump_stages(teachers)
        made: set[str] = set()
        for student in order_students(self.study):
            name = self.study.find_stage_name(student)
            if name not in made:
                yield self.student_stage(name)
            made.add(name)
            yield from self.dump_stages([student])
        yield self.report_stage()

    def prepare_stage(self, name: str) -> Stage:
        params = self.study.datasets[name]
        return Stage(
            f"prepare-{name}",
            self.format_command(f"prepare {name}"),
            "Data sets",
            modules=_sort_modules("pipeline.runs.datasets", SOURCES.find_module(params.source)),
            deps=_files_inside(params.root),
            params=self.present_keys(f"datasets.{name}" if "datasets" in self.study.raw else "dataset"),
            outs=(self.path(self.layout.prepared(name)),),
        )

    def teacher_stage(self, name: str) -> Stage:
        params = self.study.teachers[name]
        return Stage(
            f"train-teacher-{name}",
            self.format_command(f"train-teacher {name}"),
            "Teachers",
            modules=_sort_modules("pipeline.runs.teachers", self.policy_module, *list_network_modules(params)),
            deps=(
                self.prepared_path(params),
                *_files_inside(*weight_files(params)),
                *self.teacher_paths(params.members or ()),
            ),
            params=self.present_keys("seed", "views", f"teachers.{name}"),
            outs=(self.path(self.layout.teacher(name)),),
            outs_in_git=(self.path(self.layout.metrics("teachers", name)),),
        )

    def dump_stages(self, networks: Sequence[str]) -> list[Stage]:
        made = list_dump_stages(self.study)
        return [self.dump_stage(stage) for stage in made if self.study.dumps[stage.dumps[0]].of in networks]

    def dump_stage(self, stage: DumpStage) -> Stage:
        params = self.study.dumps[stage.dumps[0]]
        of_teacher = params.of in self.study.teachers
        source = self.study.teachers[params.of] if of_teacher else self.study.students[params.of]
        members = (source.members or ()) if isinstance(source, TeacherParams) else ()
        networks = [source, *(self.study.teachers[member] for member in members)]
        folder = self.layout.teacher(params.of) if of_teacher else self.layout.student(params.of)
        return Stage(
            stage.name,
            self.format_command(stage.command),
            "Dumps: what teachers know, computed once",
            modules=_sort_modules(
                "pipeline.runs.dumps",
                *(FIELDS.find_module(self.study.dumps[name].field) for name in stage.dumps),
                self.policy_module,
                *(module for network in networks for module in list_network_modules(network)),
            ),
            deps=(self.prepared_path(params), self.path(folder), *self.teacher_paths(members)),
            params=self.present_keys("cache", "views", *(f"dumps.{name}" for name in stage.dumps)),
            outs=tuple(self.path(self.layout.cache(name)) for name in stage.dumps),
        )

    def student_stage(self, name: str) -> Stage:
        """That of a student, or of all members of a grid."""
        names = self.study.list_trained_with(name)
        students = [self.study.students[each] for each in names]
        params, dumps = students[0], list(dict.fromkeys(dump for each in students for dump in each.list_all_dumps()))
        return Stage(
            f"train-student-{name}",
            self.format_command(f"train-student {name}"),
            "Students: from the cache alone",
            modules=_sort_modules(
                "pipeline.runs.students",
                self.policy_module,
                *(module for each in students for module in list_network_modules(each)),
                *(module for each in students for module in _list_schedule_modules(each)),
                *(TERMS.find_module(term.loss) for each in students for term in each.terms()),
            ),
            deps=(
                self.prepared_path(params),
                *dict.fromkeys(path for each in students for path in _files_inside(*weight_files(each))),
                *self.cache_paths(dumps),
                *((self.path(self.layout.student(params.init.student)),) if params.init else ()),
            ),
            params=self.present_keys("seed", "views", f"students.{name}", *self.external_keys(dumps)),
            outs=tuple(self.path(self.layout.student(each)) for each in names),
            outs_in_git=tuple(self.path(self.layout.metrics("students", each)) for each in names),
        )

    def report_stage(self) -> Stage:
        students, teachers, drawn = self.study.students, self.study.teachers_run_here, choose_dumps(self.study).dumps
        curves = [name for name in teachers if name in self.study.report.validated_names]
        dumps = [self.study.dumps[name] for name in drawn]
        seen = ("views", *self.external_keys(drawn)) if drawn else ()
        networks = [module for student in students.values() for module in list_network_modules(student)]
        of_pictures = (self.policy_module, *networks) if drawn else ()
        schedules = [module for student in students.values() for module in _list_schedule_modules(student)]
        return Stage(
            "report",
            self.format_command("report"),
            "Report",
            modules=_sort_modules("pipeline.runs.report", *schedules, *of_pictures),
            deps=(
                *(self.path(self.layout.metrics("teachers", name)) for name in teachers),
                *(self.path(self.layout.metrics("students", name)) for name in students),
                *self.teacher_paths(curves),
                *dict.fromkeys(map(self.prepared_path, dumps)),
                *self.cache_paths(drawn),
                *(self.path(self.layout.student(name)) for name in students),
            ),
            # The names too: DVC does not run a stage again that merely lost a dependency.
            params=self.present_keys("report", "teachers", "students", *seen),
            outs_in_git=(self.path(self.layout.report()),),
            metrics=(self.path(self.layout.metrics("report", "summary")),),
        )

    def cache_paths(self, dumps: Iterable[str]) -> tuple[str, ...]:
        """The caches that lie in the study: those at a pinned URL are said by the parameters."""
        return tuple(self.path(self.layout.cache(dump)) for dump in dumps if self.study.dumps[dump].at is None)

    def external_keys(self, dumps: Iterable[str]) -> tuple[str, ...]:
        """What says which cache of an external teacher is meant: no stage stands for it."""
        named = {dump: self.study.dumps[dump].of for dump in dumps}
        outside = {
            dump: of
            for dump, of in named.items()
            if of in self.study.teachers and of not in self.study.teachers_run_here
        }
        keys = (key for dump, of in outside.items() for key in (f"teachers.{of}", f"dumps.{dump}"))
        return ("cache", *dict.fromkeys(keys)) if outside else ()

    @property
    def policy_module(self) -> str | None:
        """The module that decides how training images are augmented."""
        return POLICIES.find_module(self.study.views.policy)

    def format_command(self, command: str) -> str:
        return format_command(command, self.study.file)

    def path(self, path: Path) -> str:
        return self.layout.relative(path)

    def prepared_path(self, params: TeacherParams | StudentParams | DumpParams) -> str:
        return self.path(self.layout.prepared(str(params.dataset)))

    def present_keys(self, *keys: str) -> tuple[str, ...]:
        """Those that stand in the file: DVC refuses a stage whose key is missing."""
        return tuple(key for key in keys if key.partition(".")[0] in self.study.raw)

    def teacher_paths(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(self.path(self.layout.teacher(name)) for name in names)


def list_network_modules(params: TeacherParams | StudentParams) -> tuple[str | None, ...]:
    """The modules that build a network (its architecture may be the user's own); none for an ensemble."""
    if params.model is None:
        return ()
    name, prefix = params.model.name, params.model.name.partition(":")[0]
    elsewhere = f"pipeline.models.{prefix}_model" if prefix in ("torchvision", "timm") else prefix
    head = HEADS.find_module(params.head.name) if params.head else None
    binary = "pipeline.models.binary.convert" if params.binary else None
    return (MODELS.find_module(name) or elsewhere, head, binary)


def _list_schedule_modules(params: StudentParams) -> list[str | None]:
    """The modules of the schedules that its losses' weights follow."""
    return [SCHEDULES.find_module(term.weight["name"]) for term in params.terms() if isinstance(term.weight, dict)]


def _files_inside(*paths: Path | str | None) -> tuple[str, ...]:
    """Those inside the study: a file on another disk is not DVC's to watch."""
    given = [Path(path) for path in paths if path]
    return tuple(path.as_posix() for path in given if not path.is_absolute() and not str(path).startswith("~"))


def _sort_modules(*names: str | None) -> tuple[str, ...]:
    return tuple(sorted({name for name in names if name}))
