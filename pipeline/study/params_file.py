"""`params.yaml` -> a validated study. The only reader of that file.

A mistake anywhere is refused before anything runs, in one line that names the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.base.errors import InputError
from pipeline.base.files import refuse_irregular_file
from pipeline.base.registry import AbsentError, flatten_errors
from pipeline.models import MODELS
from pipeline.study.cross_references import complete_study, refuse_circles
from pipeline.study.grid import expand_grids
from pipeline.study.sections import Study

HERE = Path()  # the current folder
IGNORED = "x-"  # keys at the top that begin so hold anchors for the others, as in compose files


def read_params(path: Path) -> dict[str, Any]:
    """The file as plain values, merge keys resolved.

    Raises:
        InputError: it is missing or is not a YAML mapping.
    """
    refuse_irregular_file(path, "a file of parameters")
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            str(path),
            expected="a study's parameters",
            found="no such file",
            fix="run from the study's folder or pass --params FILE",
        ) from None
    except OSError as error:
        raise InputError(str(path), expected="a readable file", found=str(error.strerror)) from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise InputError(str(path), expected="valid YAML", found=f"{error.problem} (line {line})") from None
    except (YAMLError, ValueError) as error:  # no text; a number of thousands of digits
        raise InputError(str(path), expected="valid YAML", found=str(error)) from None
    if raw is None:
        raise InputError(str(path), expected="a mapping of sections", found="an empty file")
    if not isinstance(raw, dict):
        raise InputError(str(path), expected="a mapping of sections", found=type(raw).__name__)
    return raw


def find_unavailable_models(study: Study) -> Iterator[tuple[str, str]]:
    """The keys of the models whose code is not here, each with the reason."""
    for section in ("teachers", "students"):
        for name, params in getattr(study, section).items():
            if params.model is not None and params.model.is_unchecked:
                try:
                    MODELS.import_function(params.model.name)
                except AbsentError as error:
                    yield f"{section}.{name}.model.name", str(error)


def _convert_lists(value: Any) -> Any:
    """Lists as the tuples that the sections hold."""
    if isinstance(value, Mapping):
        return {key: _convert_lists(item) for key, item in value.items()}
    if isinstance(value, str) and "\0" in value:
        raise InputError("the parameters", expected="text", found=f"a NUL character in {value!r}", fix="take it out")
    return tuple(map(_convert_lists, value)) if isinstance(value, list | tuple) else value


def load_study(path: Path) -> Study:
    """Read, validate and complete a study.

    Raises:
        InputError: with the key of the first mistake, what was expected and what was found.
    """
    return parse_study(read_params(path), path.name, path.parent.resolve())


def parse_study(raw: Mapping[str, Any], file: str = "params.yaml", folder: Path = HERE) -> Study:
    """Validate plain values and fill in data sets, formats and dumps that may be left out.

    Args:
        raw: the values.
        file: the name that messages give them.
        folder: where relative paths in them start.

    Raises:
        InputError: see `load_study`.
    """
    try:
        values = {key: _convert_lists(value) for key, value in raw.items() if not str(key).startswith(IGNORED)}
    except RecursionError:
        raise InputError(file, expected="values", found="one inside itself, or too deep to be meant") from None
    if "dataset" in values:
        if "datasets" in values:
            raise InputError(f"{file}: dataset", expected="either dataset or datasets", found="both")
        values["datasets"] = {"default": values.pop("dataset")}
    values = {key: {} if value is None and key in Study.model_fields else value for key, value in values.items()}
    try:
        values["students"], grids = expand_grids(values.get("students", {}))
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        mistakes = list(flatten_errors(error))
        place, text = mistakes[0]
        key = ".".join(str(part) for part in place if part != "[key]")
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        raise InputError(f"{file}: {key}: {text}{more}" if key else f"{file}: {text}{more}") from None
    try:
        made = complete_study(study).with_file(file, folder, raw).with_grids(grids)
        refuse_circles(made)
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
    return made
