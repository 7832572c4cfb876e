"""Params -> the stage graph, as plain values: which command reads and writes which files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.datasets import SOURCES
from pipeline.dumps import FIELDS
from pipeline.layout import Layout
from pipeline.losses import TERMS
from pipeline.models import MODELS
from pipeline.params import DumpParams, StudentParams, Study, TeacherParams

NETWORK = ("pipeline.models.network", "pipeline.models.saved", "pipeline.models.weights")
TRAINING = (*NETWORK, "pipeline.training", "pipeline.optimizers", "pipeline.seeds")
READING = ("pipeline.cache.manifest", "pipeline.cache.reader")
WRITING = ("pipeline.cache.blocks", "pipeline.cache.manifest", "pipeline.cache.writer")
STORES = {"zarr": "pipeline.cache.zarr_store", "hdf5": "pipeline.cache.hdf5_store"}
RECORD = ("pipeline.datasets.record",)
REPORT = ("pipeline.report", "pipeline.figures", "pipeline.statistics")


@dataclass(frozen=True)
class Stage:
    """One command and exactly what decides its result.

    Attributes:
        name: the stage's name in dvc.yaml.
        command: the shell command.
        modules: our modules that decide the result.
        deps, outs: paths read and written.
        params: keys of params.yaml that it uses.
        metrics: small JSON files that git keeps.
        plots: pictures among the outputs to show in `dvc plots`.
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


def stages(study: Study, raw: Mapping[str, Any]) -> list[Stage]:
    """The study's stages in the order of the flow.

    Args:
        study: the validated study.
        raw: its file as plain values: a stage lists only keys that stand there.
    """
    compiler = _Compiler(study, raw)
    return list(compiler.stages())


@dataclass(frozen=True)
class _Compiler:
    study: Study
    raw: Mapping[str, Any]
    layout: Layout = Layout(Path())

    def stages(self) -> Iterator[Stage]:
        yield Stage(
            "graph", "teachercache graph --check", "Is this file the one that params.yaml compiles to?",
            deps=("params.yaml",),
        )  # fmt: skip
        yield from map(self.prepare, self.study.datasets)
        yield from map(self.teacher, self.study.teachers)
        dumps = dict(self.study.dumps)
        # A dump of a student comes after that student, a dump of a teacher before all students.
        of_teachers = [name for name, dump in dumps.items() if dump.of in self.study.teachers]
        yield from map(self.dump, of_teachers)
        yield from map(self.student, self.study.students)
        yield from map(self.dump, (name for name in dumps if name not in of_teachers))
        yield self.report()

    def prepare(self, name: str) -> Stage:
        params = self.study.datasets[name]
        # A folder inside the study is a dependency; one on another disk is not DVC's to watch.
        root = (params.root,) if params.root and not Path(params.root).expanduser().is_absolute() else ()
        return Stage(
            f"prepare-{name}", f"teachercache prepare {name}", "Data sets",
            modules=_modules(SOURCES.module(params.source), "pipeline.datasets.raw", "pipeline.datasets.split", *RECORD),
            deps=root,
            params=self.keys(f"datasets.{name}" if "datasets" in self.raw else "dataset"),
            outs=(self.path(self.layout.prepared(name)),),
        )  # fmt: skip

    def teacher(self, name: str) -> Stage:
        params = self.study.teachers[name]
        weights = (params.weights.as_posix(),) if params.weights and not params.weights.is_absolute() else ()
        members = tuple(self.path(self.layout.teacher(member)) for member in params.members or ())
        return Stage(
            f"train-teacher-{name}", f"teachercache train-teacher {name}", "Teachers",
            modules=_modules("pipeline.teacher", *TRAINING, *RECORD, *self.model_modules(params)),
            deps=(self.prepared(params), *weights, *members),
            params=self.keys("seed", f"teachers.{name}"),
            outs=(self.path(self.layout.teacher(name)),),
            metrics=(self.path(self.layout.metrics("teachers", name)),),
        )  # fmt: skip

    def dump(self, name: str) -> Stage:
        params = self.study.dumps[name]
        source = self.study.teachers.get(params.of) or self.study.students[params.of]
        members = source.members or () if isinstance(source, TeacherParams) else ()
        network = self.layout.teacher(params.of) if params.of in self.study.teachers else self.layout.student(params.of)
        return Stage(
            f"dump-{params.field}-{name}", f"teachercache dump-{params.field} {name}", "Dumps: what teachers know, computed once",
            modules=_modules(
                FIELDS.module(params.field), "pipeline.teacher", *NETWORK, *WRITING, STORES[str(params.format)], *RECORD,
                *self.model_modules(source), *(m for member in members for m in self.model_modules(self.study.teachers[member])),
            ),
            deps=(self.prepared(params), self.path(network), *(self.path(self.layout.teacher(member)) for member in members)),
            params=self.keys("cache", "views", f"dumps.{name}"),
            outs=(self.path(self.layout.cache(name)),),
        )  # fmt: skip

    def student(self, name: str) -> Stage:
        params = self.study.students[name]
        dumps = [term.reads for term in params.losses.values() if term.reads]
        terms = [TERMS.module(loss) for loss in params.losses]
        stores = [STORES[str(self.study.dumps[dump].format)] for dump in dumps]
        return Stage(
            f"train-student-{name}", f"teachercache train-student {name}", "Students: from the cache alone",
            modules=_modules(
                "pipeline.student", *TRAINING, *RECORD, *self.model_modules(params),
                "pipeline.schedules", "pipeline.losses.step", *terms, *(READING if dumps else ()), *stores,
            ),
            deps=(self.prepared(params), *(self.path(self.layout.cache(dump)) for dump in dict.fromkeys(dumps))),
            params=self.keys("seed", "views", f"students.{name}"),
            outs=(self.path(self.layout.student(name)),),
            metrics=(self.path(self.layout.metrics("students", name)),),
        )  # fmt: skip

    def report(self) -> Stage:
        students = self.study.students
        return Stage(
            "report", "teachercache report", "Report",
            modules=_modules(*REPORT),
            deps=(
                *(self.path(self.layout.metrics("teachers", name)) for name in self.study.teachers),
                *(self.path(self.layout.metrics("students", name)) for name in students),
                *(self.path(self.layout.student(name)) for name in students),
            ),
            params=self.keys("report"),
            outs=(self.path(self.layout.report()),),
            metrics=(self.path(self.layout.metrics("report", "summary")),),
        )  # fmt: skip

    def path(self, path: Path) -> str:
        return self.layout.relative(path)

    def prepared(self, params: TeacherParams | StudentParams | DumpParams) -> str:
        return self.path(self.layout.prepared(str(params.dataset)))

    def keys(self, *keys: str) -> tuple[str, ...]:
        """Those that stand in the file: DVC refuses a stage whose key is missing."""
        return tuple(key for key in keys if key.partition(".")[0] in self.raw)

    def model_modules(self, params: TeacherParams | StudentParams) -> Iterator[str | None]:
        if params.model is not None:
            yield model_module(params.model.name)


def model_module(name: str) -> str:
    """The module that builds an architecture, ours or the user's."""
    own = MODELS.module(name)
    prefix = name.partition(":")[0]
    return own or (f"pipeline.models.{prefix}_model" if prefix in ("torchvision", "timm") else prefix)


def _modules(*names: str | None) -> tuple[str, ...]:
    return tuple(sorted({name for name in names if name}))


def module_files(modules: Iterable[str], study: Path, repository: Path | None) -> list[str]:
    """The source files of modules, relative to the study's folder.

    Args:
        modules: dotted names.
        study: the folder of params.yaml.
        repository: the git repository around it. Modules that do not lie there (the package is
            installed, only the study is a repository) cannot be dependencies of a pipeline that
            is to run on another machine, and are left out.
    """
    study = study.resolve()
    folders = dict.fromkeys((study, repository or study))
    found = set()
    for name in modules:
        stem = name.replace(".", "/")
        files = (folder / path for folder in folders for path in (f"{stem}.py", f"{stem}/__init__.py"))
        found.update(_relative(file, study) for file in files if file.is_file())
    return sorted(found)


def _relative(file: Path, folder: Path) -> str:
    up = 0
    while not file.is_relative_to(folder):
        folder, up = folder.parent, up + 1
    return "../" * up + file.relative_to(folder).as_posix()


def repository_of(folder: Path) -> Path | None:
    """The nearest folder at or above with a `.git`, or None."""
    folder = folder.resolve()
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)


HEADER = """\
# Compiled from params.yaml by `teachercache graph`. Do not edit: edit params.yaml and compile again.
# Each stage is one command and depends on exactly what it reads.
"""


def to_yaml(graph: Iterable[Stage], study: Path) -> str:
    """The text of dvc.yaml: one headline a group, stages in the order of the flow.

    Args:
        graph: the stages.
        study: the folder of params.yaml and dvc.yaml.
    """
    repository = repository_of(study)
    lines = [HEADER, "stages:"]
    group = ""
    for stage in graph:
        if stage.group != group:
            lines.append(f"\n  # {stage.group}")
            group = stage.group
        lines.append(f"  {stage.name}:")
        lines.append(f"    cmd: {stage.command}")
        lines += _list("deps", [*stage.deps, *module_files(stage.modules, study, repository)])
        lines += _list("params", stage.params)
        lines += _list("outs", stage.outs)
        lines += _list("metrics", [f"{path}: {{cache: false}}" for path in stage.metrics])
    lines += PLOTS
    return "\n".join(lines) + "\n"


def _list(key: str, items: Iterable[str]) -> list[str]:
    listed = [f"      - {item}" for item in items]
    return [f"    {key}:", *listed] if listed else []


PLOTS = """
# Pictures for `dvc plots show`; data/report/report.html is the same and opens offline.
plots:
  - data/report/accuracy.png
  - data/report/curves.png""".splitlines()
