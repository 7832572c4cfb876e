"""What a part's module says of itself, without the libraries that its work needs.

torch takes seconds to import, and what stands in params.yaml is to be checked in less. So of a module that nothing has
imported yet, single definitions are run: the names that are asked for and those that they need, in their files, and so
on. The rest, and what only the body of a part's function needs, is left alone.
"""

from __future__ import annotations
import __future__

import ast
import importlib
import sys
from collections.abc import Callable, Iterator
from copy import copy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

OURS = "pipeline."  # only here is a module without effects of its own when it is imported


def read_module(module: str) -> ModuleType | LightModule:
    """A module, as far as its attributes are asked for; all of it where it is imported already."""
    if module in sys.modules or not module.startswith(OURS):
        return importlib.import_module(module)
    return _open_module(module)


@cache
def read_outline(path: str) -> Callable[..., Any]:
    """The function at `module:name` for its signature and docstring alone: it is not to be called."""
    module, _, name = path.partition(":")
    found = read_module(module)
    function: Callable[..., Any] = found.outline(name) if isinstance(found, LightModule) else getattr(found, name)
    return function


@cache
def _open_module(module: str) -> LightModule:
    return LightModule(module)


class LightModule:
    """A module whose names are defined when they are first asked for: those that its file defines at the top.

    A class is not defined twice: a name that needs one imports its whole module.
    """

    def __init__(self, module: str) -> None:
        spec = find_spec(module)  # imports the packages around it, which are registries
        assert spec is not None, module
        assert spec.origin is not None, module
        self._module, self._file = module, spec.origin
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        self._statements = {name: statement for statement in tree.body for name in _defined_names(statement)}
        self._names: dict[str, Any] = {"__name__": module, "__file__": spec.origin}
        self._begun: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self._statements:
            raise AttributeError(f"module {self._module!r} has no attribute {name!r}")
        self._define(name)
        return self._names[name]

    def outline(self, name: str) -> Callable[..., Any]:
        """A function whose body is empty, and whose positional parameters' annotations nobody can evaluate."""
        function = self._statements.get(name)
        if not isinstance(function, ast.FunctionDef):
            found: Callable[..., Any] = getattr(self, name)
            return found
        docstring = [ast.Expr(ast.Constant(text))] if (text := ast.get_docstring(function, clean=False)) else []
        empty = copy(function)
        empty.body, empty.decorator_list = [*docstring, ast.Pass()], []
        self._define_all(_names_in(*function.args.kwonlyargs, *function.args.kw_defaults, *function.args.defaults))
        names = dict(self._names)  # who calls the function by its name means the whole one
        self._run(empty, names)
        made: Callable[..., Any] = names[name]
        return made

    def _define(self, name: str) -> None:
        if name in self._begun or name not in self._statements:
            return
        self._begun.add(name)
        statement = self._statements[name]
        if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith(OURS.rstrip(".")):
            (original,) = (each.name for each in statement.names if name in (each.name, each.asname))
            self._names[name] = _import_name(str(statement.module), original)
        elif isinstance(statement, ast.ClassDef):
            self._names[name] = getattr(importlib.import_module(self._module), name)
        else:
            self._define_all(_names_in(statement))
            self._run(statement, self._names)

    def _define_all(self, names: Iterator[str]) -> None:
        for name in names:
            self._define(name)

    def _run(self, statement: ast.stmt, names: dict[str, Any]) -> None:
        tree = ast.fix_missing_locations(ast.Module([statement], []))
        flags = __future__.annotations.compiler_flag
        exec(compile(tree, self._file, "exec", flags, dont_inherit=True), names)  # noqa: S102 - our own source


def _import_name(module: str, name: str) -> Any:
    """What `from module import name` gives: a module inside of a package, or a name of the module."""
    if find_spec(module + "." + name) if _is_package(module) else None:
        return read_module(f"{module}.{name}")
    return getattr(read_module(module), name)


def _is_package(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.submodule_search_locations is not None


def _defined_names(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top of a module defines; for annotations alone, none."""
    match statement:
        case ast.Import() | ast.ImportFrom():
            yield from (each.asname or each.name.partition(".")[0] for each in statement.names)
        case ast.FunctionDef() | ast.ClassDef():
            yield statement.name
        case ast.Assign():
            yield from (
                node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)
            )
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name


def _names_in(*nodes: ast.AST | None) -> Iterator[str]:
    """The names that are read; of a function's annotations only those of keyword-only parameters, which are options."""
    for node in nodes:
        match node:
            case None:
                continue
            case ast.Name(id=name):
                yield name
            case ast.FunctionDef():
                options = (*node.args.kwonlyargs, *node.args.kw_defaults, *node.args.defaults)
                yield from _names_in(*options, *node.body, *node.decorator_list)
            case _:
                yield from _names_in(*ast.iter_child_nodes(node))
