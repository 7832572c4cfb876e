"""Which source files decide what a stage makes: followed from its modules by what they import."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pipeline.base.registry import Registry
from pipeline.graph.git_checkout import OURS, find_repository

ROOT = Path(__file__).resolve().parents[2]
# What it makes of params.yaml is what the stage lists under `params`, so what it imports to check that decides nothing.
STUDY = "pipeline.study"
RUNS = "pipeline.runs"  # one run a file


def find_code_paths(modules: Iterable[str], study: Path, checkout: Path | None) -> list[str]:
    """The source files, or folders of them, that decide what a stage makes, relative to the study's folder.

    Of our own packages only where the study is that of this project's own checkout: whoever edits a
    loss there expects `dvc repro` to notice. Any other study, the ones below the checkout included,
    uses them as a tool. The user's own modules count where they lie in the study's repository.

    Args:
        modules: dotted names: of the stage's run, and of the parts that it finds by their names.
        study: the folder of params.yaml, resolved.
        checkout: the same where it is this project's own.
    """
    named = {True: set[str](), False: set[str]()}
    for module in modules:
        named[module.partition(".")[0] in OURS].add(module)
    ours = sorted({_dependency_path(module) for module in follow_imports(named[True])}) if checkout else []
    users = sorted({_relative_path(file, study) for name in named[False] if (file := _find_user_file(name, study))})
    return [*users, *ours]


def follow_imports(modules: Iterable[str]) -> set[str]:
    """These modules of ours and all that they import at run time, and so on.

    Registries are passed through, and left out: they find parts by their names, and the parts that a study names are
    modules of its stages.
    """
    found: set[str] = set()
    ahead = {module for module in modules if _find_file(module)}
    while ahead:
        module = ahead.pop()
        found.add(module)
        if not _is_in(module, STUDY):
            ahead |= _imports(module) - found
    return {module for module in found if not _is_registry(module)}


@cache
def _imports(module: str) -> frozenset[str]:
    """The modules of ours that a module imports when it runs, in functions too; not for annotations alone."""
    tree = ast.parse(_module_file(module).read_text(encoding="utf-8"))
    return frozenset(
        name for node in _walk_executed(tree) for name in _imported_names(node) if name.partition(".")[0] in OURS
    )


def _walk_executed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a syntax tree but those under `if TYPE_CHECKING` (not its `else`)."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for other in child.orelse:
                yield from _walk_executed(other)
        else:
            yield from _walk_executed(child)


def _imported_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = (name.name for name in node.names)
        yield from (name for name in names if _find_file(name) or name.partition(".")[0] not in OURS)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "our modules import by whole names: a test of the house says so"
        for name in node.names:
            module = f"{node.module}.{name.name}"
            yield module if module.partition(".")[0] in OURS and _find_file(module) else str(node.module)


@cache
def _find_file(module: str) -> Path | None:
    stem = ROOT / module.replace(".", "/")
    return next((file for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()), None)


def _module_file(module: str) -> Path:
    file = _find_file(module)
    assert file is not None, module
    return file


def _dependency_path(module: str) -> str:
    """The file of a module; the folder of its room, where that is not one of parts that studies choose from."""
    for room in _packages_around(module):
        if not _has_registry(room) and room != RUNS:
            return room.replace(".", "/")
    return _module_file(module).relative_to(ROOT).as_posix()


def _packages_around(module: str) -> Iterator[str]:
    """The packages around a module (or itself), the widest first, `pipeline` apart."""
    parts = module.split(".")
    packages = [".".join(parts[:depth]) for depth in range(2, len(parts) + 1)]
    return (package for package in packages if _module_file(package).name == "__init__.py")


@cache
def _is_registry(module: str) -> bool:
    """Whether a module is the face of a room: the package itself, or one whose parts are found by their names."""
    return module in (*OURS, RUNS) or (_module_file(module).name == "__init__.py" and _names_parts(module))


@cache
def _names_parts(package: str) -> bool:
    """Whether a package's own file makes a registry; it is read, for some rooms take seconds to import."""
    tree = ast.parse(_module_file(package).read_text(encoding="utf-8"))
    calls = (node.value.func for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call))
    return any(isinstance(call, ast.Name) and call.id == Registry.__name__ for call in calls)


@cache
def _has_registry(room: str) -> bool:
    """Whether a room, or one inside, has parts that studies choose from."""
    inside = [room, *(f"{room}.{path.parent.name}" for path in _module_file(room).parent.glob("*/__init__.py"))]
    return any(map(_names_parts, inside))


def _is_in(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def _find_user_file(name: str, study: Path) -> Path | None:
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
    here = file.is_file() and file.is_relative_to(find_repository(study) or study)
    return file if here and not installed else None


def _relative_path(file: Path, folder: Path) -> str:
    up = 0
    while not file.is_relative_to(folder):
        folder, up = folder.parent, up + 1
    return "../" * up + file.relative_to(folder).as_posix()
