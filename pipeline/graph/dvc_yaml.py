"""The text of dvc.yaml: the stage graph as DVC reads it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.base.errors import InputError
from pipeline.graph.code_dependencies import find_code_paths
from pipeline.graph.git_checkout import is_own_checkout, refuse_other_code
from pipeline.graph.stages import Stage, compile_stages, escape_line_ends, format_command
from pipeline.study.layout import Layout
from pipeline.study.sections import Study

LINE = 120  # characters

HEADER = """\
# Compiled from {file} by `{command}`. Do not edit: edit {file} and compile again.
# Each stage is one command and depends on exactly what it reads.
"""


def format_dvc_yaml(graph: Iterable[Stage], study: Path, file: str = "params.yaml") -> str:
    """The text of dvc.yaml: one headline a group, stages in the order of the flow.

    Args:
        graph: the stages.
        study: the folder of the parameters and of dvc.yaml.
        file: the parameters' name; DVC is told of one that it does not read by itself.
    """
    folder = study.resolve()
    checkout = folder if is_own_checkout(folder) else None
    shown = escape_line_ends(file)
    lines = [HEADER.format(file=shown, command=format_command("graph", shown)), "stages:"]
    group = ""
    for stage in graph:
        if stage.group != group:
            lines.append(f"\n  # {stage.group}")
            group = stage.group
        lines.append(f"  {stage.name}:")
        lines.append(f"    cmd: {_quote(stage.command, COMMAND)}")
        lines += _format_flow("deps", stage.deps, find_code_paths(stage.modules, folder, checkout))
        lines += _format_params(stage.params, file)
        lines += _format_list("outs", [*stage.outs, *(f"{path}: {{cache: false}}" for path in stage.outs_in_git)])
        lines += _format_list("metrics", [f"{path}: {{cache: false}}" for path in stage.metrics])
    lines += PLOTS
    return "\n".join(lines) + "\n"


def read_params_name(text: str | None, target: Path) -> str | None:
    """The name of the parameters that a dvc.yaml was compiled from; None where there is no such file.

    Args:
        text: see `read_dvc_yaml`.
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


def read_dvc_yaml(target: Path) -> str | None:
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


def refuse_stale(study: Study, folder: Path) -> None:
    """Raise InputError where the folder's dvc.yaml is not what its parameters compile to."""
    refuse_other_code(folder)
    current = read_dvc_yaml(folder / "dvc.yaml")
    if current != format_dvc_yaml(compile_stages(study), folder, study.file):
        compile_again = format_command("graph", study.file)
        raise InputError(
            "dvc.yaml",
            expected=f"the stages that {study.file} compiles to",
            found="no file" if current is None else "an older or edited file",
            fix=f"run `{compile_again}`, then `dvc repro`" if Layout(folder).is_under_dvc else f"run `{compile_again}`",
        )


# What YAML takes for a string as it stands: no number, no null or truth value, no list.
PLAIN = r"(?!(?i:null|true|false)$)[^\W\d][\w./-]*(: \{cache: false\})?"
COMMAND = r"teachercache [\w./ -]+"


def _format_list(key: str, items: Iterable[str]) -> list[str]:
    listed = [f"      - {_quote(item)}" for item in items]
    return [f"    {key}:", *listed] if listed else []


def _format_flow(key: str, *groups: Iterable[str], indent: int = 4) -> list[str]:
    """A list in as few lines as it takes, a group's items from the beginning of a line; nothing where all are empty."""
    filled = [line for group in groups for line in _fill_lines([*map(_quote, group)], LINE - indent - 4)]
    if not filled:
        return []
    start, rest = f"{' ' * indent}{key}: [", ",\n".join(filled)
    if len(filled) == 1 and len(start) + len(rest) < LINE:
        return [f"{start}{rest}]"]
    return [start, *(f"{' ' * (indent + 2)}{line}" for line in rest.splitlines()), f"{' ' * indent}]"]


def _fill_lines(items: Sequence[str], width: int) -> list[str]:
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 2 <= width:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return lines


def _format_params(keys: Sequence[str], file: str) -> list[str]:
    """The keys that a stage uses, below the file's name where it is not the one that DVC reads by itself."""
    if file == "params.yaml" or not keys:
        return _format_flow("params", keys)
    return ["    params:", *_format_flow(f"- {_quote(file)}", keys, indent=6)]


def _quote(text: str, plain: str = PLAIN) -> str:
    """Text as YAML and DVC's templating take it, literally."""
    text = text.replace("${", r"\${")
    return text if re.fullmatch(plain, text) else json.dumps(text, ensure_ascii=not text.isprintable())


PLOTS = """
# Pictures for `dvc plots show`; data/report/report.html is the same and opens offline.
plots:
  - data/report/accuracy.png
  - data/report/curves.png""".splitlines()
