"""The text of dvc.yaml: the stage graph as DVC reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.graph import Stage, stages
from pipeline.layout import Layout
from pipeline.sections import Study


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
    found: set[str] = set()
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
        lines += _list("outs", [*stage.outs, *(f"{path}: {{cache: false}}" for path in stage.kept_in_git)])
        lines += _list("metrics", [f"{path}: {{cache: false}}" for path in stage.metrics])
    lines += PLOTS
    return "\n".join(lines) + "\n"


def refuse_stale(study: Study, raw: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError where the folder's dvc.yaml is not what its params.yaml compiles to."""
    path = folder / "dvc.yaml"
    current = path.read_text(encoding="utf-8") if path.exists() else None
    if current != to_yaml(stages(study, raw), folder):
        raise InputError(
            "dvc.yaml",
            expected="the stages that params.yaml compiles to",
            found="no file" if current is None else "an older or edited file",
            fix="run `teachercache graph`" + (", then `dvc repro`" if Layout(folder).under_dvc else ""),
        )


PLAIN = r"[\w./-]+(: \{cache: false\})?"  # what YAML takes for a string as it stands


def _list(key: str, items: Iterable[str]) -> list[str]:
    listed = [f"      - {item if re.fullmatch(PLAIN, item) else json.dumps(item)}" for item in items]
    return [f"    {key}:", *listed] if listed else []


PLOTS = """
# Pictures for `dvc plots show`; data/report/report.html is the same and opens offline.
plots:
  - data/report/accuracy.png
  - data/report/curves.png""".splitlines()
