"""Which source files a stage depends on: followed from imports, compared with what its process really loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.graph import code_dependencies as code
from pipeline.graph import stages as graph
from pipeline.graph.code_dependencies import find_code_paths, follow_imports
from pipeline.study.params_file import load_study, parse_study
from tests.conftest import ROOT

STAGES = ("prepare digits", "train-teacher big", "dump-logits big-logits", "train-student kd", "report")
READ = "from pipeline import runs; runs.open_study()"
RUN = """
from stages.main import main
sys.argv = ["teachercache", *{arguments!r}]
try:
    main()
except SystemExit as error:
    assert not error.code, error.code
"""
LOADED = "print('\\n' + ' '.join(name for name in sys.modules if name.startswith('pipeline.')))"


def loaded(folder: Path, program: str) -> set[str]:
    """The modules of ours that a process has loaded when it is done."""
    command = [sys.executable, "-c", f"import sys\n{program}\n{LOADED}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def is_covered(module: str, paths: list[str]) -> bool:
    """Whether a module's file is one of the paths, or lies in one of them."""
    file = code._module_file(module).relative_to(ROOT).as_posix()
    return any(file == path or file.startswith(f"{path}/") for path in paths)


@pytest.fixture(scope="module")
def merely_read(made: Path) -> set[str]:
    """What reading params.yaml loads: it checks the options of parts that decide nothing here."""
    return loaded(made, READ)


@pytest.mark.parametrize("command", STAGES)
def test_all_that_a_stage_loads_is_a_dependency(copy_of: Path, merely_read: set[str], command: str) -> None:
    params = copy_of / "params.yaml"
    stages = {stage.command: stage for stage in graph.compile_stages(load_study(params))}
    paths = find_code_paths(stages[f"teachercache {command}"].modules, ROOT, ROOT)
    found = loaded(copy_of, RUN.format(arguments=command.split()))
    assert len(found) > 20
    missing = [name for name in found - merely_read if not code._is_registry(name) and not is_covered(name, paths)]
    assert not missing


def test_every_stage_follows_its_run_and_the_parts_that_it_names(study: dict[str, Any]) -> None:
    stages = {stage.name: stage for stage in graph.compile_stages(parse_study(study))}
    paths = {name: set(find_code_paths(stage.modules, ROOT, ROOT)) for name, stage in stages.items()}
    assert not paths["graph"]
    assert {"pipeline/runs/students.py", "pipeline/losses/soft_targets.py"} <= paths["train-student-kd"]
    assert not paths["train-student-kd"] & {"pipeline/teacher.py", "pipeline/losses/logits_mse.py", "pipeline/losses"}
    assert "pipeline/losses/soft_targets.py" not in paths["train-student-baseline"]
    of_caches = {path for path in paths["train-teacher-big"] if "losses" in path or "cache" in path or "dumps" in path}
    assert of_caches == {"pipeline/dumps/hooks.py"}  # which taps must be there
    assert "pipeline/training" in paths["train-teacher-big"] & paths["train-student-kd"]
    everywhere = set.intersection(*(found for name, found in paths.items() if name != "graph"))
    assert {"pipeline/base", "pipeline/study"} <= everywhere
    whole = {"pipeline", "pipeline/runs", "pipeline/models", "pipeline/losses", "stages"}
    assert not [name for name, found in paths.items() if whole & found]


def test_imports_inside_of_functions_count_and_those_for_annotations_do_not() -> None:
    tree = ast.parse(
        "import pipeline.cache\nfrom pipeline import teacher\nif TYPE_CHECKING:\n    import pipeline.student\n"
        "def f():\n    from pipeline.base.errors import InputError\n    if TYPE_CHECKING:\n        import pipeline.graph\n"
    )
    found = {name for node in code._walk_executed(tree) for name in code._imported_names(node)}
    assert found == {"pipeline.cache", "pipeline.teacher", "pipeline.base.errors"}


def test_what_is_imported_in_turn_is_followed_up_to_the_study() -> None:
    found = follow_imports(["pipeline.losses.adversarial"])
    assert {"pipeline.losses.discriminator", "pipeline.losses.outputs", "pipeline.base.errors"} <= found
    assert "pipeline.losses" not in found
    assert follow_imports(["pipeline.study.sections"]) == {"pipeline.study.sections"}
    assert follow_imports(["pipeline.nowhere"]) == set()
