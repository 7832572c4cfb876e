"""The tables of the reference pages say what the code has: every key and option, each with its default."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import typer
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML

from pipeline import dumps, losses, runs
from pipeline.base.registry import Registry, Section
from pipeline.datasets import SOURCES
from pipeline.dumps import FIELDS
from pipeline.losses import TERMS
from pipeline.losses.discriminator_options import DiscriminatorOptions
from pipeline.losses.weights import SCHEDULES
from pipeline.models import MODELS
from pipeline.models.binary.convert import binarise_network
from pipeline.models.heads import HEADS
from pipeline.report.table import COLUMNS
from pipeline.study.part_sections import DatasetParams, DumpParams, ModelParams, TermParams, ViewsParams
from pipeline.study.report_section import ClaimParams, PublishedParams, ReportParams, SweepParams
from pipeline.study.sections import (
    CacheParams,
    NetworkParams,
    PhaseParams,
    RestoreParams,
    SharingParams,
    StudentParams,
    Study,
    TeacherParams,
    TrainableParams,
    TrainingParams,
)
from pipeline.training.registries import LR_SCHEDULES, OPTIMIZERS, ORDERS
from pipeline.views import POLICIES
from stages.main import app
from tests.conftest import ROOT

NOTHING: Any = object()  # the default of what must be given
Defaults = Mapping[str, Any]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def tables(name: str) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Each table of a page: the heading above it, its columns, its rows of cells."""
    heading, block = "", list[list[str]]()
    for line in [*page(name).splitlines(), ""]:
        if line.startswith("| "):
            block.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif line.startswith("|--"):
            continue
        elif block:
            columns, *rows = block
            yield heading, columns, rows
            block = []
        if line.startswith("#"):
            heading = line.strip("# ")


def rows_of(name: str, heading: str, column: str) -> list[list[str]]:
    """The rows of the one table below a heading whose first column is called so."""
    (rows,) = [rows for under, columns, rows in tables(name) if (under, columns[0]) == (heading, column)]
    return rows


def plain(value: Any) -> Any:
    """A default as it is written in YAML."""
    if isinstance(value, Section):
        name = getattr(value, "name", None)
        return name or {}
    return list(value) if isinstance(value, tuple) else value


def told_default(cell: str) -> Any:
    """What a cell says of a default."""
    if cell in ("", "required"):
        return NOTHING if cell else None
    return YAML(typ="safe").load(cell.strip("`"))


def of_section(section: type[Section], *without: type[Section]) -> dict[str, Any]:
    """The keys of a section, each with its default."""
    known = {key for other in without for key in other.model_fields}
    made = {
        key: field.get_default(call_default_factory=True)
        for key, field in section.model_fields.items()
        if key not in known
    }
    return {key: NOTHING if value is PydanticUndefined else plain(value) for key, value in made.items()}


def of_function(function: Callable[..., Any], base: type[Section] | None = None) -> dict[str, Any]:
    """The options of a registered function, each with its default."""
    taken = base.model_fields if base else {}
    return {
        name: NOTHING if option.default is Parameter.empty else plain(option.default)
        for name, option in signature(function).parameters.items()
        if option.kind is option.KEYWORD_ONLY and name not in taken
    }


SECTIONS: dict[tuple[str, str, str], Defaults] = {
    ("parameters.md", "Data sets", "key"): of_section(DatasetParams),
    ("parameters.md", "Views", "key"): of_section(ViewsParams),
    ("parameters.md", "Teachers", "key"): of_section(TeacherParams, NetworkParams),
    ("parameters.md", "Students", "key"): of_section(StudentParams, NetworkParams, PhaseParams),
    ("parameters.md", "Networks", "key"): of_section(NetworkParams, TrainingParams),
    ("parameters.md", "Training", "key"): of_section(TrainingParams),
    ("parameters.md", "Training", "key of `on_nan`"): of_section(RestoreParams),
    ("parameters.md", "Phases", "key"): of_section(PhaseParams, TrainingParams),
    ("parameters.md", "Phases", "key of `trainable`"): of_section(TrainableParams),
    ("parameters.md", "Models", "key"): of_section(ModelParams),
    ("parameters.md", "Binary", "key"): of_function(binarise_network),
    ("parameters.md", "Dumps", "key"): of_section(DumpParams),
    ("parameters.md", "Cache", "key"): of_section(CacheParams),
    ("parameters.md", "Sharing", "key"): of_section(SharingParams),
    ("fields.md", "Logits", "option"): of_function(FIELDS.import_function("logits")),
    ("fields.md", "Hints", "option"): of_function(FIELDS.import_function("hints")),
    ("fields.md", "Multi-channel labels", "option"): of_function(FIELDS.import_function("multichannel")),
    ("fields.md", "Affinities", "option"): of_function(FIELDS.import_function("affinities")),
    ("recipes.md", "Losses", "key"): of_section(TermParams),
    ("recipes.md", "Adversarial distillation", "key of `discriminator`"): of_section(DiscriminatorOptions),
    ("report.md", "The report section", "key"): of_section(ReportParams),
    ("report.md", "Compare with a published source", "key of `published`"): of_section(PublishedParams),
    ("report.md", "Compare with a published source", "key of a claim"): of_section(ClaimParams),
    ("report.md", "More pictures", "key of a sweep"): of_section(SweepParams),
}


@pytest.mark.parametrize("place", SECTIONS, ids=" ".join)
def test_a_table_of_keys_has_each_with_its_default(place: tuple[str, str, str]) -> None:
    told = {key.strip("`"): told_default(default) for key, default, *_ in rows_of(*place)}
    assert told == SECTIONS[place]


def test_the_sections_are_those_of_a_study() -> None:
    told = {key.strip("`"): told_default(default) for key, default, _ in rows_of("parameters.md", "Sections", "key")}
    assert told.pop("x-...") is None
    assert told == of_section(Study)


def test_every_table_of_keys_is_checked() -> None:
    found = {
        (name, heading, columns[0])
        for name in {name for name, _, _ in SECTIONS}
        for heading, columns, _ in tables(name)
        if len(columns) > 1 and columns[1] == "default"
    }
    assert found == SECTIONS.keys() | {("parameters.md", "Sections", "key")}


PARTS: list[tuple[str, str, str, Registry, type[Section] | None]] = [
    ("parameters.md", "Sources", "source", SOURCES, DatasetParams),
    ("parameters.md", "Policies", "policy", POLICIES, None),
    ("parameters.md", "Models", "model", MODELS, None),
    ("parameters.md", "Heads", "head", HEADS, None),
    ("parameters.md", "Optimisers", "optimiser", OPTIMIZERS, None),
    ("parameters.md", "Learning-rate schedules", "schedule", LR_SCHEDULES, None),
    ("parameters.md", "Orders", "order", ORDERS, None),
    ("recipes.md", "Losses", "loss", TERMS, None),
    ("recipes.md", "Schedules of weights", "schedule", SCHEDULES, None),
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part[3].kind)
def test_a_table_of_parts_has_each_option_with_its_default(
    part: tuple[str, str, str, Registry, type[Section] | None],
) -> None:
    name, heading, column, registry, base = part
    found = [columns for under, columns, _ in tables(name) if (under, columns[0]) == (heading, column)]
    (place,) = [number for number, title in enumerate(found[0]) if title.startswith("options")]
    told = {row[0].strip("`"): row[place] for row in rows_of(name, heading, column)}
    assert told.keys() == registry.entries.keys()
    for entry, cell in told.items():
        assert options_in(cell) == of_function(registry.import_function(entry), base), entry


def options_in(cell: str) -> dict[str, Any]:
    """The options of a cell such as "`width`, `fill: zero` (or `reflect`)"; what is in parentheses is aside."""
    made = {}
    for code in re.findall(r"`([^`]*)`", re.sub(r"\([^()]*\)", "", cell)):
        option, colon, default = code.partition(":")
        made[option] = YAML(typ="safe").load(default) if colon else UNTOLD
    return made


class Untold:
    """Of an option that a table has without a default: it must be given, or is None, or too long for a cell."""

    def __eq__(self, other: object) -> bool:
        return other is NOTHING or other is None or other == {}

    __hash__ = None  # type: ignore[assignment]


UNTOLD = Untold()


def test_the_fields_are_those_that_can_be_dumped() -> None:
    rows = rows_of("fields.md", "Fields", "field")
    assert [row[0].strip("`") for row in rows] == sorted(FIELDS.entries, key=[r[0].strip("`") for r in rows].index)
    readers = {field.strip("`"): set(re.findall(r"`(\w+)`", cell)) for field, _, cell in rows}
    assert set().union(*readers.values()) == TERMS.entries.keys() - {"ce", "mutual_kl"}


# ------------------------------------------------------------------ commands


def commands() -> dict[str, click.Command]:
    """All commands by name, those of the cache as `cache NAME`."""
    top: Any = typer.main.get_command(app)
    made = dict(top.commands)
    tools = made.pop("cache")
    return made | {f"cache {name}": command for name, command in tools.commands.items()}


def test_the_commands_are_all_there() -> None:
    told = re.findall(r"^\| `teachercache ((?:cache )?[\w-]+)", page("commands.md"), re.MULTILINE)
    assert sorted(told) == sorted(commands())
    assert len(told) >= 19


def test_the_options_are_those_of_their_commands() -> None:
    told: dict[str, set[str]] = {}
    for option, of, _ in rows_of("commands.md", "Options", "option"):
        named = set(re.findall(r"`([^`]+)`", of))
        told[option.strip("`").partition(" ")[0]] = commands().keys() - named if of.startswith("all but") else named
    real: dict[str, set[str]] = {}
    for name, command in commands().items():
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option != "--help":
                    real.setdefault(option, set()).add(name)
    assert told == real


def test_the_commands_that_pages_show_are_there_with_their_options() -> None:
    shown = [
        line.partition(" #")[0]
        for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "studies").rglob("README.md"))
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
        for line in re.split(r"\n|&&", block)
    ]
    called = [line.split()[1:] for line in shown if line.strip().startswith("teachercache ")]
    assert len(called) >= 10
    for words in called:
        name = " ".join(words[:2]) if words[0] == "cache" else words[0]
        known = {option for parameter in commands()[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, words


# ------------------------------------------------------------------ the report


def test_the_columns_are_those_of_the_report() -> None:
    assert [row[0].strip("`") for row in rows_of("report.md", "The table", "column")] == list(COLUMNS)


def test_the_pictures_are_those_that_the_studies_reports_have() -> None:
    told = [row[0].strip("`") for row in rows_of("report.md", "Pictures", "file")]
    patterns = [re.sub("DUMP|NAME", "[A-Za-z0-9_-]+", name).replace("-N.", r"-\d+.") for name in told]
    there = {path.name for path in ROOT.glob("studies/*/data/report/*.png")}
    assert len(there) > 10
    assert [name for name in there if not any(re.fullmatch(pattern, name) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in there)] == []


def test_the_statistics_are_those_of_the_studies_reports() -> None:
    told = {row[0].strip("`") for row in rows_of("report.md", "Statistics", "key of `statistics.json`")}
    found = [json.loads(path.read_text()).keys() for path in ROOT.glob("studies/*/data/report/statistics.json")]
    assert len(found) >= 7
    assert told == set().union(*found)


@pytest.mark.parametrize(
    ("kind", "file", "unusual"), [("student", "students/kd", {"doubts"}), ("teacher", "teachers/big", {"doubt"})]
)
def test_the_metrics_are_those_that_a_network_has(made: Path, kind: str, file: str, unusual: set[str]) -> None:
    cells = [row[0] for row in rows_of("report.md", "Metrics", f"key of a {kind}")]
    told = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
    found = json.loads((made / f"data/metrics/{file}.json").read_text()).keys()
    assert told - unusual == found - unusual


# ------------------------------------------------------------------ the pages


def test_the_readme_is_read_and_tables_are_for_looking_up() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 170
    for path in {ROOT / "README.md", *(ROOT / "docs").glob("*.md")} - {ROOT / "docs/cache-format.md"}:  # a standard
        rows = [line for line in path.read_text().splitlines() if line.startswith("|")]
        cells = [cell for row in rows for cell in row.split("|")]
        assert [cell for cell in cells if len(re.sub(r"\]\([^)]*\)", "]", cell)) > 200] == [], path.name


def test_every_page_is_in_the_index_and_in_the_readme() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert len(pages) >= 13
    assert {name for name in pages if f"]({name}" in page("README.md")} == pages
    assert {name for name in pages if f"](docs/{name}" in (ROOT / "README.md").read_text()} == pages


def test_the_house_has_each_room_on_one_line() -> None:
    rooms = [path.parent for path in (ROOT / "pipeline").rglob("__init__.py") if path.parent.name != "pipeline"]
    files = [path for path in (ROOT / "pipeline").glob("*.py") if path.name != "__init__.py"]
    depths = {f"{'  ' * len(room.relative_to(ROOT / 'pipeline').parts)}{room.name}/" for room in rooms}
    told = re.findall(r"^( +\S+)  +\S", page("house.md"), re.MULTILINE)
    assert len(told) == len(set(told))
    assert set(told) == depths | {f"  {path.name}" for path in files}


def test_the_functions_of_the_stages_are_those_that_python_is_told_of() -> None:
    told = {
        name for row in rows_of("python.md", "Drive a study", "function") for name in re.findall(r"`(\w+)`", row[0])
    }
    assert told == {name for name in runs.__all__ if name[0].islower()}


@pytest.mark.parametrize(("heading", "room"), [("A loss", losses), ("A field of the cache", dumps)])
def test_what_a_part_s_module_may_have_is_what_its_room_says(heading: str, room: ModuleType) -> None:
    told = [re.findall(r"^`(\w+)", row[0])[0] for row in rows_of("extending.md", heading, "name")]
    assert told == re.findall(r"^- `(\w+)", str(room.__doc__), re.MULTILINE)
