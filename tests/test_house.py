"""The house's walls: who may import whom."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles

import pytest

from pipeline import runs
from pipeline.datasets import SOURCES
from pipeline.dumps import FIELDS
from pipeline.inspection import INSPECTIONS
from pipeline.losses import TERMS
from pipeline.losses.weights import SCHEDULES
from pipeline.models import MODELS
from pipeline.models.heads import HEADS
from pipeline.views import POLICIES
from tests.conftest import ROOT

PIPELINE = sorted((ROOT / "pipeline").rglob("*.py"))
HOUSE = [*PIPELINE, *sorted((ROOT / "stages").rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """The modules that a file imports at run time (not for annotations alone)."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    unseen = [
        child for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    ]  # fmt: skip
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            found |= {str(node.module)} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def importing(path: Path, *forbidden: str) -> set[str]:
    return {name for name in imports(path) if any(name == bad or name.startswith(f"{bad}.") for bad in forbidden)}


def test_the_walk_finds_the_house() -> None:
    assert len(PIPELINE) > 40
    assert "pipeline.base.errors" in imports(ROOT / "pipeline/base/files.py")


@pytest.mark.parametrize("path", PIPELINE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_library_knows_neither_commands_nor_dvc(path: Path) -> None:
    assert not importing(path, "stages", "typer", "dvc")


def floors() -> list[set[str]]:
    """The rooms of each floor, from the ground, as docs/house.md states them."""
    text = (ROOT / "docs/house.md").read_text().partition("## Floors")[2]
    return [set(re.findall(r"`(\w+)`", line)) for line in re.findall(r"^\d+\. (.+)$", text, re.MULTILINE)]


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "pipeline" else parts[0]


def test_the_floors_name_every_room() -> None:
    rooms = {room_of(path) for path in PIPELINE if path != ROOT / "pipeline/__init__.py"} | {"stages"}
    assert sorted(name for floor in floors() for name in floor) == sorted(rooms)
    assert len(list((ROOT / "pipeline").glob("*.py"))) <= 5


@pytest.mark.parametrize("path", HOUSE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_room_imports_from_floors_below_it_alone(path: Path) -> None:
    if path == ROOT / "pipeline/__init__.py":
        assert not importing(path, "pipeline", "stages")
        return
    level = {name: number for number, floor in enumerate(floors()) for name in floor}
    room = room_of(path)
    found = [name.split(".") for name in importing(path, "pipeline", "stages")]
    rooms = {parts[1] if parts[0] == "pipeline" and len(parts) > 1 else parts[0] for parts in found} & level.keys()
    assert not {name for name in rooms - {room} if level[name] >= level[room]}


def test_students_and_losses_know_no_teacher_nor_the_teacher_them() -> None:
    """Of one floor or not: a student needs the cache alone."""
    for path in PIPELINE:
        if room_of(path) in ("student", "student_phase", "losses", "fields"):
            assert not importing(path, "pipeline.teacher", "pipeline.dumps"), path
        if room_of(path) in ("teacher", "dumps"):
            assert not importing(path, "pipeline.student", "pipeline.student_phase", "pipeline.losses"), path


def test_the_cache_is_read_without_torch() -> None:
    for path in sorted((ROOT / "pipeline/cache").glob("*.py")):
        assert path.stem == "tensors" or not importing(path, "torch"), path


@pytest.mark.parametrize(
    ("room", "contracts"),
    [
        (
            "datasets",
            {"raw", "dataset", "split", "prepare", "duplicates", "class_folders", "file_trees", "image_files", "idx"},
        ),
        (
            "models",
            {
                "init_weights",
                "network",
                "weights",
                "foreign_weights",
                "constructor_options",
                "network_files",
                "build",
                "library_names",
            },
        ),
        ("dumps", {"hooks", "field", "dump_fields", "one_pass", "parts", "shared_pass"}),
        ("views", {"counter_random", "mirror", "view", "view_limits"}),
        ("models/heads", {"channels"}),
        ("losses", {"hooks", "outputs", "recipe", "hint_choice", "discriminator", "discriminator_options"}),
        ("losses/weights", {"schedules"}),
        ("inspection", {"hooks", "overview", "classes", "text"}),
        ("report/figures", {"style"}),
        ("report/pictures", {"canvas", "sample_choice", "dump_choice", "from_caches"}),
    ],
)
def test_siblings_do_not_import_each_other(room: str, contracts: set[str]) -> None:
    files = {path.stem: path for path in (ROOT / "pipeline" / room).glob("*.py") if path.stem != "__init__"}
    siblings = files.keys() - contracts
    assert siblings
    for name in siblings:
        others = [f"pipeline.{room.replace('/', '.')}.{other}" for other in siblings - {name}]
        assert not importing(files[name], *others), name


@pytest.mark.parametrize(
    "registry",
    [SOURCES, FIELDS, TERMS, SCHEDULES, MODELS, HEADS, POLICIES, INSPECTIONS],
    ids=lambda registry: registry.kind,
)
def test_the_face_of_a_room_of_parts_holds_its_registry_alone(registry: object) -> None:
    """Stages do not depend on it: a line more there must change nothing else."""
    entries = registry.entries.values()  # type: ignore[attr-defined]
    room = ROOT / next(iter(entries)).partition(":")[0].replace(".", "/")
    defined = [
        node for node in ast.parse((room.parent / "__init__.py").read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    assert not defined


@pytest.mark.parametrize(
    "registry",
    [SOURCES, FIELDS, TERMS, SCHEDULES, MODELS, HEADS, POLICIES, INSPECTIONS],
    ids=lambda registry: registry.kind,
)
def test_every_registered_name_resolves_and_says_what_it_is(registry: object) -> None:
    for name in registry.entries:  # type: ignore[attr-defined]
        assert registry.import_function(name).__doc__, name  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", PIPELINE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_text_is_written_with_the_same_line_ends_anywhere(path: Path) -> None:
    """Windows writes others unless it is told not to, and then digests differ."""
    for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
        function = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
        modes = [arg.value for arg in (*call.args, *(k.value for k in call.keywords)) if isinstance(arg, ast.Constant)]
        text = {"w", "a", "x", "w+", "wt"} & {mode for mode in modes if isinstance(mode, str)}
        if function == "write_text" or (function in ("open", "fdopen") and text):
            assert "newline" in {keyword.arg for keyword in call.keywords}, f"line {call.lineno}"


def function_lines(path: Path) -> dict[str, int]:
    """The lines of every function of a file, its docstring left out."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node) is not None
            docstring = node.body[0]
            inside = (docstring.end_lineno or 0) - docstring.lineno + 1 if documented else 0
            found[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = (
                (node.end_lineno or 0) - node.lineno + 1 - inside
            )
    return found


def test_files_and_functions_fit_a_screen() -> None:
    lines = {name: count for path in HOUSE for name, count in function_lines(path).items()}
    assert len(lines) > 1000
    assert not {name: count for name, count in lines.items() if count > 45}
    deciles = quantiles(lines.values(), n=10)
    assert median(lines.values()) <= 6  # with its signature: five lines of its own
    assert deciles[-1] <= 18
    assert not {path: count for path in HOUSE if (count := len(path.read_text().splitlines())) > 400}


def test_the_top_level_is_what_it_should_be() -> None:
    """In the last commit: `dvc repro` stages its lock, and whoever runs this may have staged anything."""
    command = ["git", "ls-tree", "--name-only", "HEAD"]
    top = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert len(top) > 10
    assert {name for name in top if not name.startswith(".")} <= {
        "dvc.yaml", "params.yaml", "pipeline", "stages", "tests", "data", "pyproject.toml", "README.md", "studies",
        "benchmarks", "docs", "LICENSE",
    }  # fmt: skip


COMMANDS = sorted(
    {*(ROOT / "stages").glob("*.py")} - {ROOT / f"stages/{name}.py" for name in ("cli", "options", "main")}
)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_a_command_parses_calls_and_prints(path: Path) -> None:
    assert len(COMMANDS) > 18
    assert len(path.read_text().splitlines()) <= 40
    assert importing(path, "pipeline") <= {"pipeline", "pipeline.runs"}


@pytest.mark.parametrize("name", runs.MODULES)
def test_a_run_is_named_otherwise_than_the_file_that_it_is_in(name: str) -> None:
    """A module of the function's name would hide it."""
    found = getattr(runs, name)
    assert inspect.isfunction(found) or inspect.isclass(found)
    assert found.__doc__
    assert not (ROOT / f"pipeline/runs/{name}.py").exists()


def test_every_run_is_known_to_type_checkers() -> None:
    tree = ast.parse((ROOT / "pipeline/runs/__init__.py").read_text())
    found = {
        name.name: str(node.module).removeprefix("pipeline.runs.")
        for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and str(node.module).startswith("pipeline.runs.")
        for name in node.names
    }  # fmt: skip
    assert found == runs.MODULES


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from stages.main import app; print([m for m in ('torch','zarr','pydantic','dvc') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
