"""Which source files a stage depends on: followed from imports, compared with what its process really loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.registry import Registry
from pipeline.datasets import SOURCES
from pipeline.dumps import FIELDS
from pipeline.graph import code_dependencies as code
from pipeline.graph import stages as graph
from pipeline.graph.code_dependencies import find_code_paths, follow_imports
from pipeline.losses import TERMS
from pipeline.losses.weights import SCHEDULES
from pipeline.models.heads import HEADS
from pipeline.study.params_file import load_study, parse_study
from pipeline.views import POLICIES
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
        "else:\n    import pipeline.fields\n"
        "def f():\n    from pipeline.base.errors import InputError\n    if TYPE_CHECKING:\n        import pipeline.graph\n"
    )
    found = {name for node in code._walk_executed(tree) for name in code._imported_names(node)}
    assert found == {"pipeline.cache", "pipeline.teacher", "pipeline.fields", "pipeline.base.errors"}


def test_what_is_imported_in_turn_is_followed_up_to_the_study() -> None:
    found = follow_imports(["pipeline.losses.adversarial"])
    assert {"pipeline.losses.discriminator", "pipeline.losses.outputs", "pipeline.base.errors"} <= found
    assert "pipeline.losses" not in found
    assert follow_imports(["pipeline.study.sections"]) == {"pipeline.study.sections"}
    assert follow_imports(["pipeline.nowhere"]) == set()


def paths_of(study: dict[str, Any], name: str) -> set[str]:
    """What the stage of a name depends on, of our code."""
    (stage,) = (stage for stage in graph.compile_stages(parse_study(study)) if stage.name == name)
    return set(find_code_paths(stage.modules, ROOT, ROOT))


def path_of(registry: Registry, name: str) -> str:
    return f"{str(registry.find_module(name)).replace('.', '/')}.py"


def test_a_stage_depends_on_each_part_that_its_parameters_name(study: dict[str, Any]) -> None:
    study["teachers"]["big"]["head"] = {"multichannel": {"kernel": 4}}
    study["dumps"] = {field: {"field": field, "of": "big"} for field in FIELDS.entries}
    together = paths_of(study, "dumps-big")
    study["apart"] = True
    for field in FIELDS.entries:
        found = paths_of(study, f"dump-{field}-{field}")
        assert {path_of(FIELDS, field), path_of(HEADS, "multichannel"), "pipeline/models/mlp.py"} <= found
        assert ("pipeline/perplexity" in found) == (field == "affinities")
        assert found <= together
    study["dumps"] = {"big-logits": {"field": "logits", "of": "big"}}
    for policy in POLICIES.entries:
        study["views"] = {"policy": policy, "count": 1 if policy == "none" else 2}
        for name in ("train-teacher-big", "dump-logits-big-logits", "train-student-kd"):
            assert path_of(POLICIES, policy) in paths_of(study, name), (policy, name)


def test_a_student_depends_on_each_of_its_losses_weights_and_layers(study: dict[str, Any]) -> None:
    student = study["students"]["kd"]
    for weight in (0.5, {"name": "linear", "start": 1.0, "end": 0.0}, {"name": "obedient", "of": "labels"}):
        student["losses"] = {"ce": {"weight": weight}, "soft_targets": {"weight": 0.5}}
        found = paths_of(study, "train-student-kd")
        name = weight["name"] if isinstance(weight, dict) else "constant"
        assert {path_of(SCHEDULES, str(name)), path_of(TERMS, "ce"), path_of(TERMS, "soft_targets")} <= found, weight
    assert "pipeline/models/binary" not in found
    student["model"] = {"name": "mlp", "widths": [8, 8]}
    student["binary"] = {"form": "xnor"}
    assert "pipeline/models/binary" in paths_of(study, "train-student-kd")


@pytest.mark.parametrize("source", SOURCES.entries)
def test_prepared_data_depend_on_their_source(study: dict[str, Any], source: str) -> None:
    options = {"imagefolder": {"root": "images"}, "amat": {"root": "amat"}, "mnist_variations": {"variation": "basic"}}
    study["datasets"] = {"digits": {"source": source, **options.get(source, {})}}
    assert path_of(SOURCES, source) in paths_of(study, "prepare-digits")


def test_an_ensemble_depends_on_what_its_members_are_made_of(study: dict[str, Any]) -> None:
    study["teachers"] |= {
        "conv": {"model": {"name": "cnn", "widths": [2, 2]}, "epochs": 1}, "both": {"members": ["big", "conv"]},
    }  # fmt: skip
    study["dumps"]["all"] = {"field": "logits", "of": "both"}
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "big-logits"
    assert {"pipeline/models/mlp.py", "pipeline/models/cnn.py"} <= paths_of(study, "dump-logits-all")
