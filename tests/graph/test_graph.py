from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.graph import dvc_yaml
from pipeline.graph import stages as graph
from pipeline.graph.code_dependencies import find_code_paths
from pipeline.study.params_file import load_study, parse_study
from tests.conftest import ROOT, write_study

STUDIES = [ROOT, *sorted(path.parent for path in ROOT.glob("studies/*/params.yaml"))]


def compiled(study: dict[str, Any], folder: Path = ROOT) -> dict[str, Any]:
    parsed: dict[str, Any] = YAML(typ="safe").load(
        dvc_yaml.format_dvc_yaml(graph.compile_stages(parse_study(study)), folder)
    )
    return parsed


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_every_committed_graph_is_current(folder: Path) -> None:
    path = folder / "params.yaml"
    assert (folder / "dvc.yaml").read_text() == dvc_yaml.format_dvc_yaml(graph.compile_stages(load_study(path)), folder)


def dependencies(folder: Path) -> set[str]:
    """The source files on which a committed graph's stages depend."""
    stages = YAML(typ="safe").load((folder / "dvc.yaml").read_text())["stages"]
    return {dep for stage in stages.values() for dep in stage.get("deps", ()) if dep.startswith("pipeline/")}


def test_our_code_decides_the_study_at_the_root_and_no_other() -> None:
    assert len(dependencies(ROOT)) > 40
    assert all((ROOT / path).exists() for path in dependencies(ROOT))
    assert len(STUDIES) > 5
    assert not any(dependencies(folder) for folder in STUDIES[1:])


def test_modules_are_named_by_real_names(study: dict[str, Any]) -> None:
    for stage in graph.compile_stages(parse_study(study)):
        for module in stage.modules:
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), (stage.name, module)


def test_each_stage_depends_on_exactly_what_it_reads(study: dict[str, Any]) -> None:
    stages = compiled(study)["stages"]
    files = {
        name: {dep for dep in stage.get("deps", ()) if not dep.startswith("pipeline")} for name, stage in stages.items()
    }
    assert files == {
        "graph": {"params.yaml"},
        "prepare-digits": set(),
        "train-teacher-big": {"data/prepared/digits"},
        "dump-logits-big-logits": {"data/prepared/digits", "data/teachers/big"},
        "train-student-baseline": {"data/prepared/digits"},
        "train-student-kd": {"data/prepared/digits", "data/cache/big-logits"},
        "report": {
            "data/metrics/teachers/big.json", "data/metrics/students/baseline.json", "data/metrics/students/kd.json",
            "data/students/baseline", "data/students/kd",
        },
    }  # fmt: skip
    modules = set(stages["train-student-kd"]["deps"])
    assert "pipeline/losses/soft_targets.py" in modules
    assert "pipeline/losses/logits_mse.py" not in modules
    assert "pipeline/teacher.py" not in modules
    assert "pipeline/dumps/logits.py" not in modules


def test_stages_stand_in_flow_order(study: dict[str, Any]) -> None:
    study["dumps"]["of-student"] = {"field": "logits", "of": "baseline"}
    study["students"] = {"first": {**study["students"]["kd"]}, **study["students"]}
    study["students"]["first"]["losses"] = {"logits_mse": {"reads": "of-student"}}
    study["students"]["kd"]["losses"]["soft_targets"]["reads"] = "big-logits"
    study["teachers"] = {"both": {"members": ["big", "more"]}, **study["teachers"], "more": study["teachers"]["big"]}
    made: dict[str, int] = {}
    for place, stage in enumerate(graph.compile_stages(parse_study(study))):
        for dep in stage.deps:
            if dep.startswith("data/"):
                assert made[dep] < place
        made |= dict.fromkeys([*stage.outs, *stage.metrics, *stage.outs_in_git], place)
    assert "data/cache/of-student" in made


def test_a_stage_lists_only_keys_that_stand_in_the_file(study: dict[str, Any]) -> None:
    stages = compiled(study)["stages"]
    assert stages["train-student-kd"]["params"] == ["seed", "students.kd"]
    study["views"] = {"policy": "none", "count": 1}
    assert compiled(study)["stages"]["train-student-kd"]["params"] == ["seed", "views", "students.kd"]


def test_files_are_dependencies_where_they_lie_in_the_study(study: dict[str, Any]) -> None:
    study["datasets"]["digits"] = {"source": "imagefolder", "root": "images"}
    study["teachers"]["ready"] = {"model": {"name": "mlp", "widths": [2]}, "weights": "ready.safetensors"}
    study["teachers"]["both"] = {"members": ["big", "ready"]}
    stages = compiled(study)["stages"]
    assert "images" in stages["prepare-digits"]["deps"]
    assert "ready.safetensors" in stages["train-teacher-ready"]["deps"]
    study["students"]["kd"]["model"] = {"name": "torchvision:resnet18", "weights": "resnet.pt"}
    assert "resnet.pt" in compiled(study)["stages"]["train-student-kd"]["deps"]
    assert {"data/teachers/big", "data/teachers/ready"} < set(stages["train-teacher-both"]["deps"])
    study["datasets"]["digits"]["root"] = "/elsewhere/images"
    assert "/elsewhere/images" not in compiled(study)["stages"]["prepare-digits"]["deps"]


def test_names_that_yaml_would_misread_are_quoted(study: dict[str, Any]) -> None:
    for root in ("photos #1", "photos: x", "[a]", "two  words", "a, b", "{a}", "pics \U0001f600", "\u00fc", "a\x85b"):
        study["datasets"]["digits"] = {"source": "imagefolder", "root": root}
        assert root in compiled(study)["stages"]["prepare-digits"]["deps"]


def test_a_policy_of_views_decides_what_is_trained_and_dumped(study: dict[str, Any]) -> None:
    study["views"] = {"policy": "crop_flip", "count": 4}
    made = graph.compile_stages(parse_study(study))
    shown = [stage for stage in made if stage.name.startswith(("train-", "dump-"))]
    assert len(shown) == 4
    for stage in shown:
        assert "views" in stage.params
        deps = find_code_paths(stage.modules, ROOT, ROOT)
        assert {f"pipeline/views/{name}.py" for name in ("counter_random", "crop_flip", "mirror", "view")} <= set(
            deps
        ), stage


def test_outside_our_repository_no_module_is_a_dependency(tmp_path: Path, study: dict[str, Any]) -> None:
    assert not [
        dep
        for stage in compiled(study, tmp_path)["stages"].values()
        for dep in stage.get("deps", ())
        if dep.startswith(("pipeline", "stages"))
    ]


def test_a_users_own_model_is_a_dependency(
    tmp_path: Path, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_nets.py").write_text("from torch import nn\ndef tiny(shape, classes, *, width: int = 4): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    study["students"]["kd"]["model"] = {"name": "my_nets:tiny", "width": 3}
    assert "my_nets.py" in compiled(study, tmp_path)["stages"]["train-student-kd"]["deps"]


def test_a_stale_graph_is_refused(
    tmp_path: Path, study: dict[str, Any], run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_study(tmp_path, study)
    assert run(folder, "graph", "--check") == 2
    assert (
        "dvc.yaml: expected the stages that params.yaml compiles to, found no file; run `teachercache graph`"
        in capsys.readouterr().err
    )
    assert run(folder, "graph") == 0
    assert run(folder, "graph", "--check") == 0
    study["students"]["more"] = study["students"]["kd"]
    write_study(tmp_path, study)
    assert run(folder, "graph", "--check") == 2
    assert "found an older or edited file" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["n\nl.yaml", "a\u2028b.yaml", "\x7f.yaml", "\U0001f600.yaml"])
def test_parameters_of_any_name_make_a_file_that_yaml_reads(study: dict[str, Any], file: str) -> None:
    text = dvc_yaml.format_dvc_yaml(graph.compile_stages(parse_study(study, file)), ROOT, file)
    stages = YAML(typ="safe").load(text)["stages"]
    assert stages["graph"]["deps"] == [file]
    assert dvc_yaml.read_params_name(text, Path("dvc.yaml"))
