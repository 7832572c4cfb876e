"""The text of dvc.yaml: the stage graph as DVC reads it."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.graph.stages import Stage, command_line, stages
from pipeline.study.layout import Layout
from pipeline.study.sections import Study

OURS = ("pipeline", "stages")  # the packages of this distribution


def module_files(modules: Iterable[str], study: Path, checkout: Path | None) -> list[str]:
    """The source files that decide what a stage makes, relative to the study's folder.

    Of our own packages only where the study is that of this project's own checkout: whoever edits a
    loss there expects `dvc repro` to notice. Any other study, the ones below the checkout included,
    uses them as a tool. The user's own modules count where they lie in the study's repository.

    Args:
        modules: dotted names.
        study: the folder of params.yaml, resolved.
        checkout: the same where it is this project's own.
    """
    found = (
        _own_file(name, checkout) if name.partition(".")[0] in OURS else _users_file(name, study) for name in modules
    )
    return sorted({_relative(file, study) for file in found if file is not None})


def _own_file(name: str, checkout: Path | None) -> Path | None:
    if checkout is None:
        return None
    stem = checkout / name.replace(".", "/")
    return next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()), None)


def _users_file(name: str, study: Path) -> Path | None:
    """The file that Python imports by this name; None where another machine would not get it with the study."""
    try:
        found = find_spec(name)
    except Exception:  # noqa: BLE001 - the packages around the user's module may raise anything
        found = None
    if found is not None and found.origin:
        file = Path(found.origin).resolve()
    else:  # it may be there without what it imports
        file = study / f"{name.replace('.', '/')}.py"
    # An environment often lies inside of the repository, and is none of it.
    installed = file.is_relative_to(sys.prefix) or {"site-packages", "dist-packages"} & set(file.parts)
    here = file.is_file() and file.is_relative_to(repository_of(study) or study)
    return file if here and not installed else None


def _relative(file: Path, folder: Path) -> str:
    up = 0
    while not file.is_relative_to(folder):
        folder, up = folder.parent, up + 1
    return "../" * up + file.relative_to(folder).as_posix()


def repository_of(folder: Path) -> Path | None:
    """The nearest folder at or above with a `.git`, or None."""
    folder = folder.resolve()
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)


def is_own_checkout(folder: Path) -> bool:
    """Whether a folder is a checkout of this project."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return project == "teachercache" and all((folder / package / "__init__.py").is_file() for package in OURS)


def refuse_other_code(folder: Path) -> None:
    """Raise InputError in a checkout of this project while another one's code runs.

    Its stages would depend on files that do not decide what they make.
    """
    folder, running = folder.resolve(), Path(__file__).resolve().parents[2]
    if folder == running or not is_own_checkout(folder) or sources(folder) == sources(running):
        return
    raise InputError(
        str(folder),
        expected="the code of this checkout, on which its stages depend",
        found=f"other code running, from {running}",
        fix="run `pip install -e .` here, or set PYTHONPATH to this folder",
    )


def sources(checkout: Path) -> dict[str, bytes]:
    """The source files of our packages, by their paths in a checkout."""
    files = (file for package in OURS for file in (checkout / package).rglob("*.py"))
    return {file.relative_to(checkout).as_posix(): file.read_bytes() for file in files}


HEADER = """\
# Compiled from {file} by `{command}`. Do not edit: edit {file} and compile again.
# Each stage is one command and depends on exactly what it reads.
"""


def to_yaml(graph: Iterable[Stage], study: Path, file: str = "params.yaml") -> str:
    """The text of dvc.yaml: one headline a group, stages in the order of the flow.

    Args:
        graph: the stages.
        study: the folder of the parameters and of dvc.yaml.
        file: the parameters' name; DVC is told of one that it does not read by itself.
    """
    folder = study.resolve()
    checkout = folder if is_own_checkout(folder) else None
    shown = file if file.isprintable() else json.dumps(file)  # a line end would end the comment
    lines = [HEADER.format(file=shown, command=command_line("graph", shown)), "stages:"]
    group = ""
    for stage in graph:
        if stage.group != group:
            lines.append(f"\n  # {stage.group}")
            group = stage.group
        lines.append(f"  {stage.name}:")
        lines.append(f"    cmd: {_plain(stage.command, COMMAND)}")
        lines += _list("deps", [*stage.deps, *module_files(stage.modules, folder, checkout)])
        lines += _params(stage.params, file)
        lines += _list("outs", [*stage.outs, *(f"{path}: {{cache: false}}" for path in stage.kept_in_git)])
        lines += _list("metrics", [f"{path}: {{cache: false}}" for path in stage.metrics])
    lines += PLOTS
    return "\n".join(lines) + "\n"


def compiled_from(text: str | None, target: Path) -> str | None:
    """The name of the parameters that a dvc.yaml was compiled from; None where there is no such file.

    Args:
        text: see `text_of`.
        target: its path, for the message.

    Raises:
        InputError: it is another's, which is not to be written over.
    """
    found = re.match(r"# Compiled from (.+) by `", text or "")
    if text is not None and found is None:
        raise InputError(
            str(target),
            expected="none, or one that `teachercache graph` has written",
            found="another, with stages of its own",
            fix="put the study into a folder of its own; any folder of the repository will do",
        )
    return found[1] if found else None


def text_of(target: Path) -> str | None:
    """The text of a dvc.yaml; None where nothing is there.

    Raises:
        InputError: a folder, a link or a pipe is there, which is not to be read or written over.
    """
    if not os.path.lexists(target):
        return None
    if target.is_symlink() or not target.is_file():
        found = "a link" if target.is_symlink() else "no regular file"
        raise InputError(str(target), expected="a file, or none", found=found, fix="move it away")
    return target.read_text(encoding="utf-8", errors="replace")


def refuse_stale(study: Study, raw: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError where the folder's dvc.yaml is not what its parameters compile to."""
    refuse_other_code(folder)
    current = text_of(folder / "dvc.yaml")
    if current != to_yaml(stages(study, raw), folder, study.file):
        compile_again = command_line("graph", study.file)
        raise InputError(
            "dvc.yaml",
            expected=f"the stages that {study.file} compiles to",
            found="no file" if current is None else "an older or edited file",
            fix=f"run `{compile_again}`, then `dvc repro`" if Layout(folder).under_dvc else f"run `{compile_again}`",
        )


# What YAML takes for a string as it stands: no number, no null or truth value, no list.
PLAIN = r"(?!(?i:null|true|false)$)[^\W\d][\w./-]*(: \{cache: false\})?"
COMMAND = r"teachercache [\w./ -]+"


def _list(key: str, items: Iterable[str]) -> list[str]:
    listed = [f"      - {_plain(item)}" for item in items]
    return [f"    {key}:", *listed] if listed else []


def _params(keys: Iterable[str], file: str) -> list[str]:
    """The keys that a stage uses, below the file's name where it is not the one that DVC reads by itself."""
    if file == "params.yaml":
        return _list("params", keys)
    listed = [f"          - {key}" for key in keys]
    return ["    params:", f"      - {_plain(file)}:", *listed] if listed else []


def _plain(text: str, plain: str = PLAIN) -> str:
    """Text as YAML and DVC's templating take it, literally."""
    text = text.replace("${", r"\${")
    return text if re.fullmatch(plain, text) else json.dumps(text)


PLOTS = """
# Pictures for `dvc plots show`; data/report/report.html is the same and opens offline.
plots:
  - data/report/accuracy.png
  - data/report/curves.png""".splitlines()
